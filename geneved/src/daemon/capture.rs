//! Packet capture: reads the workers' rings and adds the IP and UDP headers that the kernel writes.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt, stream};
use libgeneve::vpc::LinkIndex;
use libgeneve::wire::checksum::pseudo_header;
use libgeneve::wire::ip::{Ipv4Header, Ipv6Header, protocol};
use libgeneve::wire::transport::udp_header;

use super::core::Core;
use super::flows::names;
use crate::config::value::{DirectionValue as Way, IfName};
use crate::control::protocol::{CallFailure, CaptureArgs, CaptureReply, CapturedPacket};
use crate::control::server::ReplyStream;
use crate::io::{
    OuterHeader, RecordLayer, TapConfig, TapFilter, TapReader, TapRecord, TrafficDirection,
};
use crate::refusal::Refusal;

/// Interval at which the rings are read.
const EVERY: Duration = Duration::from_millis(20);
/// Size of each worker's ring in bytes.
const CAPTURE_RING: usize = 8 << 20;
/// Approximate maximum of packet bytes in one reply.
const REPLY_BYTES: usize = 1 << 20;
/// Snapshot length for whole packets.
const WHOLE: u32 = 66 << 10;
/// TTL shown where the real one is unknown: the default of Linux.
const UNKNOWN_TTL: u8 = 64;

struct CaptureSession {
    core: Rc<Core>,
    reader: TapReader,
    names: BTreeMap<LinkIndex, IfName>,
    clock: CaptureClock,
    locals: HashMap<IpAddr, IpAddr>,
    /// Number of packets still wanted.
    left: u64,
    snaplen: usize,
}

impl Core {
    /// Starts streaming packets to a client.
    pub(super) async fn capture(
        self: Rc<Self>,
        words: CaptureArgs,
    ) -> Result<ReplyStream, CallFailure> {
        let filter = &words.filter;
        if filter.state.is_some() {
            return Err(CallFailure::InvalidParameter(
                "state is none of packets".into(),
            ));
        }
        let snaplen = match words.snaplen {
            0 => WHOLE,
            some => some.min(WHOLE),
        };
        let names = {
            let inner = self.inner().await;
            super::show::check(&inner, filter.dev.as_ref())?;
            names(&inner)
        };
        let of = |dev: &IfName| names.iter().find(|(_, n)| *n == dev).map(|(i, _)| *i);
        let link = filter.dev.as_ref().and_then(of);
        let tap = TapConfig {
            outer: words.outer,
            dropped: words.dropped,
            snaplen,
            room: CAPTURE_RING,
            pause: Duration::ZERO,
            filter: TapFilter {
                link,
                from: filter.from.map(|p| p.0),
                to: filter.to.map(|p| p.0),
                protocol: filter.proto.map(|p| p.0),
                sport: filter.sport,
                dport: filter.dport,
            },
        };
        let reader = self.engine().tap(tap).ok_or(Refusal::new(
            "as many clients capture as can",
            "end one of them first",
        ))?;
        let capture = CaptureSession {
            clock: CaptureClock::new(self.engine().now().0),
            core: self,
            reader,
            names,
            locals: HashMap::new(),
            left: if words.count == 0 {
                u64::MAX
            } else {
                words.count
            },
            snaplen: snaplen as usize,
        };
        // The first reply tells the client that the tap is in place.
        let begun = stream::iter([CaptureReply::default()]);
        let replies = begun.chain(stream::unfold(capture, async |mut capture| {
            let next = capture.next().await?;
            Some((next, capture))
        }));
        let json = |reply| serde_json::to_value(reply).expect("packets have a form in JSON");
        Ok(replies.map(json).boxed_local())
    }
}

impl CaptureSession {
    /// Returns waiting packets as soon as there are any; `None` after the last one wanted.
    async fn next(&mut self) -> Option<CaptureReply> {
        if self.left == 0 {
            return None;
        }
        loop {
            let lost = self.reader.lost();
            let packets = self.take().await;
            if !packets.is_empty() || lost > 0 {
                self.left -= (packets.len() as u64).min(self.left);
                return Some(CaptureReply { packets, lost });
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn take(&mut self) -> Vec<CapturedPacket> {
        let mut packets = Vec::new();
        let mut unknown = false;
        let mut bytes = 0;
        let (names, locals, clock) = (&self.names, &mut self.locals, &self.clock);
        self.reader.read(|record| {
            unknown |= record.link.is_some_and(|link| !names.contains_key(&link));
            let data = data(record, locals, self.snaplen);
            bytes += data.1.len();
            packets.push(CapturedPacket {
                time_ns: clock.unix(record.time.0),
                dev: record.link.and_then(|link| names.get(&link).cloned()),
                direction: match record.direction {
                    TrafficDirection::Ingress => Way::Ingress,
                    TrafficDirection::Egress => Way::Egress,
                },
                outer: matches!(record.layer, RecordLayer::Payload | RecordLayer::Whole),
                ethernet: record.layer == RecordLayer::Frame,
                reason: record.reason.map(|r| r.name().to_owned()),
                packets: record.packets,
                length: data.0,
                data: STANDARD.encode(&data.1),
            });
            bytes < REPLY_BYTES && (packets.len() as u64) < self.left
        });
        if unknown {
            // The link was added later; the next packets will have its name.
            self.names = self::names(&*self.core.inner().await);
        }
        packets
    }
}

/// Returns at most `snaplen` bytes of a packet with its outer headers, and its full length.
fn data(
    record: &TapRecord<'_>,
    locals: &mut HashMap<IpAddr, IpAddr>,
    snaplen: usize,
) -> (u32, Vec<u8>) {
    let (RecordLayer::Payload, Some(envelope)) = (record.layer, record.outer) else {
        return (record.length, record.bytes.to_vec());
    };
    let mut bytes = headers(&envelope, record, locals);
    let length = record.length + bytes.len() as u32;
    bytes.extend_from_slice(record.bytes);
    bytes.truncate(snaplen);
    (length, bytes)
}

/// IP and UDP headers for the payload of a record. The UDP checksum is left out if the record is truncated.
fn headers(
    envelope: &OuterHeader,
    record: &TapRecord<'_>,
    locals: &mut HashMap<IpAddr, IpAddr>,
) -> Vec<u8> {
    let length = record.length;
    let local = |addr: IpAddr, remote: IpAddr, locals: &mut HashMap<IpAddr, IpAddr>| {
        if !addr.is_unspecified() {
            return addr;
        }
        *locals
            .entry(remote)
            .or_insert_with(|| local_towards(remote).unwrap_or(addr))
    };
    let (src, dst) = (envelope.src.ip(), envelope.dst.ip());
    let src = local(src, dst, locals);
    let dst = local(dst, src, locals);
    let datagram = u16::try_from(length + 8).unwrap_or(u16::MAX);
    let ports = (envelope.src.port(), envelope.dst.port());
    let mut udp = udp_header(ports.0, ports.1, datagram, 0);
    if record.bytes.len() == length as usize {
        let sum = pseudo_header(src, dst, protocol::UDP, datagram.into());
        // RFC 768: a computed checksum of zero is sent as all ones.
        let sum = match !sum.bytes(&udp).bytes(record.bytes).fold() {
            0 => u16::MAX,
            sum => sum,
        };
        udp = udp_header(ports.0, ports.1, datagram, sum);
    }
    let ttl = envelope.ttl.unwrap_or(UNKNOWN_TTL);
    let mut bytes = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Ipv4Header {
            tos: envelope.tos,
            ttl,
            ..Ipv4Header::new(src, dst, protocol::UDP, datagram)
        }
        .to_bytes()
        .to_vec(),
        _ => Ipv6Header {
            version_class_flow: Ipv6Header::class_and_flow(envelope.tos, 0),
            hop_limit: ttl,
            ..Ipv6Header::new(six(src), six(dst), protocol::UDP, datagram)
        }
        .to_bytes()
        .to_vec(),
    };
    bytes.extend_from_slice(&udp);
    bytes
}

fn six(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    }
}

/// Source address that the kernel would choose.
fn local_towards(remote: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match remote {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // Connecting a UDP socket sends nothing; it only does a route lookup.
    socket.connect(SocketAddr::new(remote, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Converts the packet path's time to wall-clock time.
struct CaptureClock {
    path: u64,
    unix: u64,
}

impl CaptureClock {
    /// `now` is the packet path's time.
    fn new(now: u64) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix = since.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(0));
        CaptureClock { path: now, unix }
    }

    fn unix(&self, time: u64) -> u64 {
        (self.unix + time).saturating_sub(self.path)
    }
}
