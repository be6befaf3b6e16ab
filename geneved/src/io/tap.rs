//! Taps: copies of packets for those who want to see them, taken by the worker that has the packet.
//!
//! A worker without taps looks at one flag of its own a packet. With one it copies what the tap wants
//! into a ring of fixed size, which somebody else empties; what finds no room is counted. Nothing here
//! allocates or waits while packets pass.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use ipnet::IpNet;
use libgeneve::drop::DropReason;
use libgeneve::link::LinkIndex;
use libgeneve::time::Now;
use libgeneve::wire::encapsulation::{Encapsulation, Inner};
use libgeneve::wire::ethernet::Ethernet;
use libgeneve::wire::packet::{Packet, Transport};
use rtrb::{Consumer, Producer, RingBuffer};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::counters::Direction;

/// Taps of one worker at most.
pub(super) const MAX_TAPS: usize = 8;
/// Room for the longest packet and the headers before it.
const STAGE: usize = 66 << 10;

/// Which packets are wanted, and how much of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapConfig {
    /// The datagrams of the underlay, rather than the packets inside. A packet that was dropped and has nothing readable
    /// inside is given as a datagram in any case.
    pub outer: bool,
    /// Only packets that are not forwarded.
    pub dropped: bool,
    /// Bytes of each packet at most.
    pub snaplen: u32,
    /// Bytes of each worker's ring.
    pub room: usize,
    /// For each reason one packet in so long a time and no more; only for dropped ones.
    pub pause: Duration,
    /// Which flows.
    pub filter: TapFilter,
}

/// Which flows are wanted; what is `None` does not matter. Packets of both directions of a flow pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapFilter {
    /// The link.
    pub link: Option<LinkIndex>,
    /// Who began the flow.
    pub from: Option<IpNet>,
    /// With whom.
    pub to: Option<IpNet>,
    /// The IP protocol.
    pub protocol: Option<u8>,
    /// The source port.
    pub sport: Option<u16>,
    /// The destination port.
    pub dport: Option<u16>,
}

impl TapFilter {
    fn admits(&self, link: Option<LinkIndex>, tuple: Option<&Tuple>) -> bool {
        if self.link.is_some() && self.link != link {
            return false;
        }
        let any = TapFilter {
            link: self.link,
            ..TapFilter::default()
        };
        if *self == any {
            return true;
        }
        tuple.is_some_and(|t| self.fits(t) || self.fits(&t.reversed()))
    }

    fn fits(&self, tuple: &Tuple) -> bool {
        self.from.is_none_or(|net| net.contains(&tuple.src))
            && self.to.is_none_or(|net| net.contains(&tuple.dst))
            && self.protocol.is_none_or(|p| p == tuple.protocol)
            && self.sport.is_none_or(|p| p == tuple.sport)
            && self.dport.is_none_or(|p| p == tuple.dport)
    }
}

/// Who speaks to whom inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// The source.
    pub src: IpAddr,
    /// The destination.
    pub dst: IpAddr,
    /// The IP protocol.
    pub protocol: u8,
    /// The source port; 0 where there is none.
    pub sport: u16,
    /// The destination port; 0 where there is none.
    pub dport: u16,
}

impl Tuple {
    fn inside(inner: Inner, bytes: &[u8]) -> Option<Tuple> {
        match inner {
            Inner::Ip => Tuple::of(bytes),
            Inner::Ethernet => Tuple::of(Ethernet::parse(bytes).ok()?.payload()),
        }
    }

    fn of(bytes: &[u8]) -> Option<Tuple> {
        let packet = Packet::parse(bytes).ok()?;
        let (sport, dport) = match packet.transport {
            Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst, .. } => (src, dst),
            Transport::Icmp { .. } | Transport::Other | Transport::Unavailable => (0, 0),
        };
        Some(Tuple {
            src: packet.src,
            dst: packet.dst,
            protocol: packet.protocol,
            sport,
            dport,
        })
    }

    fn reversed(self) -> Tuple {
        Tuple {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            ..self
        }
    }
}

/// The underlay's side of a datagram. An address that is not known is unspecified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The source.
    pub src: SocketAddr,
    /// The destination.
    pub dst: SocketAddr,
    /// DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit; `None` where it is not known.
    pub ttl: Option<u8>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fate {
    pub(super) now: Now,
    pub(super) link: Option<LinkIndex>,
    pub(super) direction: Direction,
    /// Why it was dropped, if it was.
    pub(super) reason: Option<DropReason>,
    /// Packets on the wire.
    pub(super) packets: u64,
}

/// What the bytes of a record are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The packet inside, from its IP header on.
    Inner,
    /// The frame inside, from its Ethernet header on.
    Frame,
    /// A datagram's payload, from its Geneve header on.
    Payload,
    /// A whole packet of the underlay, from its IP header on.
    Whole,
}

/// A packet as a tap has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When, by the packet path's time.
    pub time: Now,
    /// The link; `None` where the packet did not get as far.
    pub link: Option<LinkIndex>,
    /// Which way it went.
    pub direction: Direction,
    /// Why it was dropped, if it was.
    pub reason: Option<DropReason>,
    /// Packets on the wire: more than one for a super-packet.
    pub packets: u32,
    /// Who speaks to whom; `None` where that cannot be read.
    pub tuple: Option<Tuple>,
    /// The underlay's side, where the packet came from there or went there.
    pub envelope: Option<Envelope>,
    /// What the bytes are.
    pub layer: Layer,
    /// The length of the whole, in bytes.
    pub length: u32,
    /// As many of them as were wanted.
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Head {
    time: u64,
    stored: u32,
    length: u32,
    packets: u32,
    link: u32,
    addresses: [[u8; 16]; 4],
    ports: [u16; 4],
    protocol: u8,
    flags: u8,
    reason: u8,
    layer: u8,
    tos: u8,
    ttl: u8,
    spare: [u8; 2],
}

const HEAD: usize = size_of::<Head>();
const NONE: u32 = u32::MAX;
const NO_REASON: u8 = u8::MAX;
const EGRESS: u8 = 1;
const TUPLE: u8 = 2;
const ENVELOPE: u8 = 4;
const LAYERS: [Layer; 4] = [Layer::Inner, Layer::Frame, Layer::Payload, Layer::Whole];

fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

fn address(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).to_canonical()
}

impl Head {
    fn new(
        fate: &Fate,
        tuple: Option<&Tuple>,
        envelope: Option<&Envelope>,
        layer: Layer,
        length: usize,
        stored: usize,
    ) -> Self {
        let mut head = Head {
            time: fate.now.0,
            stored: stored as u32,
            length: length as u32,
            packets: fate.packets as u32,
            link: fate.link.map_or(NONE, |l| l.0),
            addresses: [[0; 16]; 4],
            ports: [0; 4],
            protocol: 0,
            flags: if fate.direction == Direction::Egress {
                EGRESS
            } else {
                0
            },
            reason: fate.reason.map_or(NO_REASON, |r| r as u8),
            layer: layer as u8,
            tos: 0,
            ttl: 0,
            spare: [0; 2],
        };
        if let Some(t) = tuple {
            head.flags |= TUPLE;
            head.protocol = t.protocol;
            (head.addresses[0], head.addresses[1]) = (octets(t.src), octets(t.dst));
            (head.ports[0], head.ports[1]) = (t.sport, t.dport);
        }
        if let Some(e) = envelope {
            head.flags |= ENVELOPE;
            (head.addresses[2], head.addresses[3]) = (octets(e.src.ip()), octets(e.dst.ip()));
            (head.ports[2], head.ports[3]) = (e.src.port(), e.dst.port());
            (head.tos, head.ttl) = (e.tos, e.ttl.unwrap_or(0));
        }
        head
    }

    fn record<'a>(&self, bytes: &'a [u8]) -> Record<'a> {
        let [src, dst, from, to] = self.addresses.map(address);
        let [sport, dport, from_port, to_port] = self.ports;
        Record {
            time: Now(self.time),
            link: (self.link != NONE).then_some(LinkIndex(self.link)),
            direction: if self.flags & EGRESS != 0 {
                Direction::Egress
            } else {
                Direction::Ingress
            },
            reason: DropReason::ALL.get(usize::from(self.reason)).copied(),
            packets: self.packets,
            tuple: (self.flags & TUPLE != 0).then_some(Tuple {
                src,
                dst,
                protocol: self.protocol,
                sport,
                dport,
            }),
            envelope: (self.flags & ENVELOPE != 0).then(|| Envelope {
                src: SocketAddr::new(from, from_port),
                dst: SocketAddr::new(to, to_port),
                tos: self.tos,
                ttl: Some(self.ttl).filter(|&ttl| ttl != 0),
            }),
            layer: LAYERS[usize::from(self.layer).min(LAYERS.len() - 1)],
            length: self.length,
            bytes,
        }
    }
}

fn layer_of(inner: Inner) -> Layer {
    match inner {
        Inner::Ip => Layer::Inner,
        Inner::Ethernet => Layer::Frame,
    }
}

/// The worker's end of a tap.
pub(super) struct Tap {
    config: Arc<TapConfig>,
    ring: Producer<u8>,
    lost: Arc<AtomicU64>,
    /// For each reason, when the next packet may be taken.
    next: [Now; DropReason::COUNT],
}

impl Tap {
    fn wants(&self, outer: bool, fate: &Fate) -> bool {
        match fate.reason {
            None => !self.config.dropped && self.config.outer == outer,
            Some(reason) => self.next[reason as usize] <= fate.now,
        }
    }

    fn push(&mut self, fate: &Fate, head: &Head, bytes: &[u8]) {
        if let Some(reason) = fate.reason {
            let pause = u64::try_from(self.config.pause.as_nanos()).unwrap_or(u64::MAX);
            self.next[reason as usize] = Now(fate.now.0.saturating_add(pause));
        }
        if self.ring.slots() < HEAD + bytes.len() {
            self.lost.store(self.lost.load(Relaxed) + 1, Relaxed);
            return;
        }
        let _ = self.ring.push_entire_slice(head.as_bytes());
        let _ = self.ring.push_entire_slice(bytes);
    }
}

/// The taps of one worker.
pub(super) struct Taps {
    all: Vec<Tap>,
    /// Whether forwarded packets are wanted, as they are inside.
    pub(super) inner: bool,
    /// Whether forwarded datagrams are wanted.
    pub(super) outer: bool,
    staged: Vec<u8>,
}

impl Taps {
    pub(super) fn new() -> Self {
        Taps {
            all: Vec::with_capacity(MAX_TAPS),
            inner: false,
            outer: false,
            staged: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, tap: Tap) {
        self.staged.reserve_exact(STAGE);
        self.all.push(tap);
        self.note();
    }

    fn note(&mut self) {
        let forwarded = |outer| {
            let mut all = self.all.iter();
            all.any(|t| !t.config.dropped && t.config.outer == outer)
        };
        (self.inner, self.outer) = (forwarded(false), forwarded(true));
    }

    /// Lets go of the taps whose other end is gone.
    fn prune(&mut self) {
        if self.all.iter().any(|tap| tap.ring.is_abandoned()) {
            self.all.retain(|tap| !tap.ring.is_abandoned());
            self.note();
        }
    }

    /// Whether somebody wants a dropped packet.
    #[inline]
    pub(super) fn want_drop(&self, fate: &Fate) -> bool {
        !self.all.is_empty() && self.all.iter().any(|tap| tap.wants(false, fate))
    }

    /// Copies a packet that an offer will be about.
    pub(super) fn stage<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        self.staged.clear();
        for piece in pieces {
            let room = STAGE - self.staged.len();
            self.staged
                .extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }

    /// Offers the staged packet or frame, as it is inside.
    pub(super) fn offer_inner(&mut self, fate: &Fate, inner: Inner) {
        self.prune();
        let tuple = Tuple::inside(inner, &self.staged);
        let layer = layer_of(inner);
        for tap in &mut self.all {
            if !tap.wants(false, fate) || !tap.config.filter.admits(fate.link, tuple.as_ref()) {
                continue;
            }
            let len = self.staged.len();
            let stored = len.min(tap.config.snaplen as usize);
            let head = Head::new(fate, tuple.as_ref(), None, layer, len, stored);
            tap.push(fate, &head, &self.staged[..stored]);
        }
    }

    /// Offers the staged datagram: its payload, or with `whole` all of it, the first `before` bytes of which are IP and UDP
    /// header.
    pub(super) fn offer_outer(
        &mut self,
        fate: &Fate,
        encapsulation: Encapsulation,
        envelope: Option<&Envelope>,
        before: usize,
    ) {
        self.prune();
        let payload = self.staged.get(before..).unwrap_or_default();
        // Where it begins, and what it is.
        let inner = encapsulation
            .parse(payload)
            .ok()
            .and_then(|e| Some((before + e.header_len, e.inner()?)));
        let tuple = inner.and_then(|(at, inner)| Tuple::inside(inner, &self.staged[at..]));
        let layer = if before == 0 {
            Layer::Payload
        } else {
            Layer::Whole
        };
        for tap in &mut self.all {
            if !tap.wants(true, fate) || !tap.config.filter.admits(fate.link, tuple.as_ref()) {
                continue;
            }
            // What can be read inside is given as the packet that it is.
            let (layer, start) = match inner {
                Some((at, inner))
                    if !tap.config.outer && (tuple.is_some() || inner != Inner::Ip) =>
                {
                    (layer_of(inner), at)
                }
                _ => (layer, 0),
            };
            let bytes = &self.staged[start..];
            let stored = bytes.len().min(tap.config.snaplen as usize);
            let head = Head::new(fate, tuple.as_ref(), envelope, layer, bytes.len(), stored);
            tap.push(fate, &head, &bytes[..stored]);
        }
    }
}

/// The other end of a tap, over all workers. The tap ends when it is dropped.
#[derive(Debug)]
pub struct TapReader {
    rings: Vec<Consumer<u8>>,
    lost: Vec<Arc<AtomicU64>>,
    told: u64,
    scratch: Vec<u8>,
    // Counted by those who ask how many taps there are.
    _place: Arc<()>,
}

impl TapReader {
    /// A tap for each of so many workers.
    pub(super) fn new(config: TapConfig, workers: usize, place: Arc<()>) -> (Self, Vec<Tap>) {
        let config = Arc::new(config);
        let mut reader = TapReader {
            rings: Vec::with_capacity(workers),
            lost: Vec::with_capacity(workers),
            told: 0,
            scratch: Vec::new(),
            _place: place,
        };
        let taps = (0..workers).map(|_| {
            let (ring, other) = RingBuffer::new(config.room);
            let lost = Arc::new(AtomicU64::new(0));
            reader.rings.push(other);
            reader.lost.push(Arc::clone(&lost));
            Tap {
                config: Arc::clone(&config),
                ring,
                lost,
                next: [Now(0); DropReason::COUNT],
            }
        });
        let taps = taps.collect();
        (reader, taps)
    }

    /// Gives the records that wait to `each`, worker by worker, until it has enough and says `false`.
    pub fn read(&mut self, mut each: impl FnMut(&Record<'_>) -> bool) {
        for ring in &mut self.rings {
            while ring.slots() >= HEAD {
                let mut head = [0; HEAD];
                {
                    // Only looked at: it is taken together with what follows it.
                    let Ok(chunk) = ring.read_chunk(HEAD) else {
                        break;
                    };
                    let (a, b) = chunk.as_slices();
                    head[..a.len()].copy_from_slice(a);
                    head[a.len()..].copy_from_slice(b);
                }
                let Ok(head) = Head::read_from_bytes(&head) else {
                    break;
                };
                let stored = head.stored as usize;
                // Its bytes come a moment after the head.
                let Ok(chunk) = ring.read_chunk(HEAD + stored) else {
                    break;
                };
                let (a, b) = chunk.as_slices();
                self.scratch.clear();
                self.scratch.extend(a.iter().chain(b).skip(HEAD));
                chunk.commit_all();
                if !each(&head.record(&self.scratch)) {
                    return;
                }
            }
        }
    }

    /// How many packets found no room since this was asked last.
    pub fn lost(&mut self) -> u64 {
        let all: u64 = self.lost.iter().map(|n| n.load(Relaxed)).sum();
        all - std::mem::replace(&mut self.told, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Direction::{Egress, Ingress};

    /// 10.0.0.1:1000 to 10.0.0.2:53, UDP, 4 bytes.
    const PACKET: [u8; 32] = [
        0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0x26, 0xcb, 10, 0, 0, 1, 10, 0, 0, 2, 0x03, 0xe8, 0,
        53, 0, 12, 0, 0, 1, 2, 3, 4,
    ];
    /// Without options, VNI 100.
    const GENEVE: [u8; 8] = [0, 0, 0x08, 0, 0, 0, 100, 0];

    fn fate(reason: Option<DropReason>, now: u64) -> Fate {
        Fate {
            now: Now(now),
            link: Some(LinkIndex(3)),
            direction: if reason.is_some() { Ingress } else { Egress },
            reason,
            packets: 1,
        }
    }

    fn tap(config: TapConfig) -> (Taps, TapReader) {
        let (reader, mut all) = TapReader::new(config, 1, Arc::default());
        let mut taps = Taps::new();
        taps.add(all.pop().unwrap());
        (taps, reader)
    }

    fn usual() -> TapConfig {
        TapConfig {
            snaplen: 65_535,
            room: 4096,
            ..TapConfig::default()
        }
    }

    fn read(reader: &mut TapReader) -> Vec<(Layer, Option<DropReason>, Vec<u8>)> {
        let mut all = Vec::new();
        reader.read(|r| {
            all.push((r.layer, r.reason, r.bytes.to_vec()));
            true
        });
        all
    }

    #[test]
    fn a_packet_is_read_as_it_was_offered() {
        let (mut taps, mut reader) = tap(TapConfig {
            snaplen: 20,
            ..usual()
        });
        assert!(taps.inner && !taps.outer);
        taps.stage([&PACKET[..10], &PACKET[10..]]);
        taps.offer_inner(&fate(None, 7), Inner::Ip);
        let mut seen = 0;
        reader.read(|record| {
            seen += 1;
            assert_eq!(record.time, Now(7));
            assert_eq!(
                (record.link, record.direction),
                (Some(LinkIndex(3)), Egress)
            );
            assert_eq!((record.reason, record.layer), (None, Layer::Inner));
            let tuple = record.tuple.unwrap();
            assert_eq!((tuple.sport, tuple.dport, tuple.protocol), (1000, 53, 17));
            assert_eq!(tuple.src, IpAddr::from([10, 0, 0, 1]));
            assert_eq!((record.length, record.bytes), (32, &PACKET[..20]));
            true
        });
        assert_eq!((seen, reader.lost()), (1, 0));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_what_fits_again_is_whole() {
        let (mut taps, mut reader) = tap(TapConfig {
            room: 300,
            ..usual()
        });
        let offer = |taps: &mut Taps| {
            taps.stage([&PACKET[..]]);
            taps.offer_inner(&fate(None, 1), Inner::Ip);
        };
        for _ in 0..1000 {
            offer(&mut taps);
            offer(&mut taps);
            offer(&mut taps);
            let all = read(&mut reader);
            assert_eq!(all.len(), 2);
            assert!(all.iter().all(|(_, _, bytes)| *bytes == PACKET));
            assert_eq!(reader.lost(), 1);
        }
    }

    #[test]
    fn a_filter_admits_both_directions_of_a_flow_and_nothing_else() {
        let admits = |filter: TapFilter| {
            let tuple = Tuple::of(&PACKET).unwrap();
            let both =
                [tuple, tuple.reversed()].map(|t| filter.admits(Some(LinkIndex(3)), Some(&t)));
            assert_eq!(both[0], both[1]);
            both[0]
        };
        let none = TapFilter::default;
        assert!(admits(none()));
        assert!(admits(TapFilter {
            dport: Some(53),
            ..none()
        }));
        assert!(!admits(TapFilter {
            dport: Some(54),
            ..none()
        }));
        let from: IpNet = "10.0.0.1/32".parse().unwrap();
        assert!(admits(TapFilter {
            from: Some(from),
            dport: Some(53),
            ..none()
        }));
        assert!(!admits(TapFilter {
            to: Some(from),
            dport: Some(53),
            ..none()
        }));
        assert!(!admits(TapFilter {
            protocol: Some(6),
            ..none()
        }));
        assert!(!admits(TapFilter {
            link: Some(LinkIndex(4)),
            ..none()
        }));
        let port = TapFilter {
            sport: Some(1),
            ..none()
        };
        assert!(
            !port.admits(None, None),
            "what cannot be read fits no filter"
        );
        assert!(none().admits(None, None));
    }

    #[test]
    fn a_dropped_datagram_is_given_as_what_is_inside_if_that_can_be_read() {
        let (mut taps, mut reader) = tap(TapConfig {
            dropped: true,
            ..usual()
        });
        assert!(!taps.inner && !taps.outer);
        let reason = Some(DropReason::UnknownHost);
        assert!(taps.want_drop(&fate(reason, 1)));
        taps.stage([&GENEVE[..], &PACKET]);
        taps.offer_outer(&fate(None, 1), Encapsulation::Geneve, None, 0);
        taps.offer_outer(&fate(reason, 1), Encapsulation::Geneve, None, 0);
        taps.stage([&GENEVE[..4]]);
        taps.offer_outer(&fate(reason, 1), Encapsulation::Geneve, None, 0);
        let all = read(&mut reader);
        let inner = (Layer::Inner, reason, PACKET.to_vec());
        assert_eq!(all, [inner, (Layer::Payload, reason, GENEVE[..4].to_vec())]);
    }

    #[test]
    fn a_frame_is_given_as_a_frame_and_is_filtered_by_the_packet_inside() {
        let filter = TapFilter {
            dport: Some(53),
            ..TapFilter::default()
        };
        let (mut taps, mut reader) = tap(TapConfig { filter, ..usual() });
        let frame = [&[2; 12][..], &[8, 0], &PACKET].concat();
        taps.stage([&frame[..]]);
        taps.offer_inner(&fate(None, 1), Inner::Ethernet);
        let arp = [&[2; 12][..], &[8, 6], &[0; 28]].concat();
        taps.stage([&arp[..]]);
        taps.offer_inner(&fate(None, 1), Inner::Ethernet);
        assert_eq!(read(&mut reader), [(Layer::Frame, None, frame)]);
    }

    #[test]
    fn a_pause_lets_one_packet_of_each_reason_through() {
        let pause = Duration::from_nanos(10);
        let (mut taps, mut reader) = tap(TapConfig {
            dropped: true,
            pause,
            ..usual()
        });
        taps.stage([&PACKET[..]]);
        for now in 0..30 {
            taps.offer_inner(&fate(Some(DropReason::NoRoute), now), Inner::Ip);
        }
        assert!(!taps.want_drop(&fate(Some(DropReason::NoRoute), 29)));
        assert!(taps.want_drop(&fate(Some(DropReason::TooBig), 29)));
        assert_eq!(read(&mut reader).len(), 3);
    }

    #[test]
    fn a_tap_ends_with_its_reader() {
        let (mut taps, reader) = tap(usual());
        drop(reader);
        taps.stage([&PACKET[..]]);
        taps.offer_inner(&fate(None, 1), Inner::Ip);
        assert!(!taps.inner && !taps.want_drop(&fate(Some(DropReason::NoRoute), 1)));
    }
}
