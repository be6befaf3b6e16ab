//! Tunnel GSO on transmit: the kernel or the NIC segments encapsulated super-packets.
//!
//! Since Linux 6.17 a TAP device takes an encapsulated super-packet in one write, with a virtio header that says
//! where the inner packet begins. The kernel forwards it to the underlay and segments it as late as possible. This
//! needs a dedicated device, on which alone forwarding is enabled. Only TCP super-packets over an IPv4 underlay use
//! it; everything else goes through the sockets, with the same ports.
//!
//! Whether packets are really sent is checked with the first one of each link to each host, by the kernel's count of
//! forwarded packets, and again every few seconds, because firewall rules come and go. A refusal counts against the
//! link that the packet came from and no other, because whoever is behind a link can forge virtio headers. Most
//! forged headers do not reach the kernel, and the ones that it gets are rebuilt from the packet's own headers.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use libgeneve::datapath::{self, Forward};
use libgeneve::drop::DropReason;
use libgeneve::offload::cut::{WireSize, longest_segment};
use libgeneve::offload::split::is_sound_tcp;
use libgeneve::offload::vnet::{self, VirtioTunnelHeader, VnetHdr};
use libgeneve::time::Now;
use libgeneve::vpc::{LinkIndex, Tables};
use libgeneve::wire::checksum::pseudo_header;
use libgeneve::wire::ethernet::{ETHERNET_HEADER_LEN, Ethernet, Mac, ethernet_header, ethertype};
use libgeneve::wire::ip::{DEFAULT_TTL, IPV4_HEADER_LEN, Ipv4Header, protocol};
use libgeneve::wire::packet::Packet;
use libgeneve::wire::transport::{UDP_HEADER_LEN, udp_header};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::backend::{PacketIo, PoolKind};
use super::buffer_pool::BufferId;
use super::counters::TrafficDirection;
use super::device_features;
use super::egress::{BufferedPacket, TrainRequest};
use super::engine::{EngineEvent, Segmentation};
use super::train::{TunWriteKind, outer_len};
use super::tun::tap_with_tunnel_offload;
use super::worker::{Worker, counters_of};

/// Headers before the Geneve header.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct OuterHeaders {
    virtio: VirtioTunnelHeader,
    ethernet: [u8; ETHERNET_HEADER_LEN],
    ip: [u8; IPV4_HEADER_LEN],
    udp: [u8; UDP_HEADER_LEN],
}

/// Total length of these headers.
pub(super) const HEADERS: usize = size_of::<OuterHeaders>();
/// Offset of the outer UDP header from the Ethernet header.
const UDP_AT: usize = ETHERNET_HEADER_LEN + IPV4_HEADER_LEN;
/// Source MAC address of frames on the device, which has no other station.
const SENDER: Mac = Mac::local([0, 0, 0, 0, 1]);
/// Maximum length of an IP packet.
const MAX_IP: usize = 65_535;
/// Interval after which a working path to a host is checked again.
const TRUST: Duration = Duration::from_secs(5);
/// Interval after which a failed path is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// Tunnel GSO device, before its queues go to the workers.
#[derive(Debug)]
pub struct TunnelDevice {
    name: String,
    mac: Mac,
    queues: Vec<OwnedFd>,
    forced: bool,
}

impl TunnelDevice {
    /// Creates the device if `segmentation` asks for it, with a queue for each worker. It has no effect until the
    /// kernel is configured to forward its packets: see [`TunnelDevice::ready`].
    ///
    /// # Errors
    /// If there is none; the text gives the reason for `geneved host show`.
    pub fn new(segmentation: Segmentation, workers: usize) -> Result<Self, String> {
        match segmentation {
            Segmentation::Auto if forwards() => {
                return Err("not chosen by itself where the host routes packets (net.ipv4.ip_forward): \
                     firewall rules for those would hold for the tunnel, too; segmentation = \"tunnel\" asks for it"
                    .into());
            }
            Segmentation::Off | Segmentation::Gso => {
                return Err("the configuration asks for another way".into());
            }
            Segmentation::Auto | Segmentation::Tunnel => {}
        }
        let (name, queues) = tap_with_tunnel_offload(workers)
            .map_err(|e| format!("no TAP device with tunnel offload: {e}"))?;
        Ok(TunnelDevice {
            name,
            mac: Mac::default(),
            queues,
            forced: segmentation == Segmentation::Tunnel,
        })
    }

    /// Returns its name, which the kernel chose.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Confirms that the device is up, has this MAC address, and that its packets are forwarded.
    #[must_use]
    pub fn ready(self, mac: Mac) -> Self {
        TunnelDevice { mac, ..self }
    }

    /// Splits the device into one queue for each worker.
    pub(super) fn into_workers(self) -> impl Iterator<Item = TunnelGso> {
        let (mac, forced) = (self.mac, self.forced);
        self.queues.into_iter().map(move |queue| TunnelGso {
            queue,
            mac,
            forced,
            find_path: path_of_kernel,
            paths: HashMap::new(),
        })
    }
}

/// Whether this host forwards other traffic.
fn forwards() -> bool {
    fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() != "0")
}

/// One worker's queue of the device, and its knowledge of the hosts.
#[derive(Debug)]
pub(super) struct TunnelGso {
    queue: OwnedFd,
    mac: Mac,
    /// The operator asked for it, regardless of what the underlay device supports.
    forced: bool,
    find_path: FindPath,
    /// By link and host ID.
    paths: HashMap<(LinkIndex, u32), PathState>,
}

/// Path from this host to another one.
#[derive(Clone, Copy, Debug)]
struct UnderlayPath {
    local: Ipv4Addr,
    /// The device on the path does not need segmented packets, or the operator forces tunnel GSO.
    worthwhile: bool,
}

/// Looks up the path to a host from the link's local address; `true` if the operator forces tunnel GSO.
type FindPath = fn(Ipv4Addr, Option<IpAddr>, bool) -> Option<UnderlayPath>;

/// State of the path of a link's packets to a host.
#[derive(Clone, Copy, Debug, Default)]
struct PathState {
    state: GsoSupport,
    /// The link's configured local address at the last path lookup.
    named: Option<IpAddr>,
    /// When `state` was determined.
    since: Now,
    /// Generation of the underlay at the last path lookup.
    found_in: Option<u32>,
    /// Source address of its packets; `None` if there is no path to the host.
    local: Option<Ipv4Addr>,
    /// The device towards the host does not need segmented packets.
    worthwhile: bool,
}

impl PathState {
    /// Updates what follows from the underlay's routes and addresses.
    fn refresh(&mut self, path: Option<UnderlayPath>) {
        let before = self.local;
        self.local = path.map(|path| path.local);
        self.worthwhile = path.is_some_and(|path| path.worthwhile);
        if self.local != before {
            // Firewall and reverse-path filter may treat another source address differently.
            self.state = GsoSupport::Untried;
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum GsoSupport {
    #[default]
    Untried,
    Works,
    Refused,
}

/// Path of one super-packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct TunnelPath {
    local: Ipv4Addr,
    remote: Ipv4Addr,
    /// Whether to verify that this packet is really sent.
    watched: bool,
}

impl TunnelGso {
    /// Simulated device that does not query the kernel: every host is reachable from 192.0.2.1.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn simulated(queue: OwnedFd) -> Self {
        TunnelGso {
            queue,
            mac: Mac::default(),
            forced: true,
            find_path: |_, _, _| {
                Some(UnderlayPath {
                    local: Ipv4Addr::new(192, 0, 2, 1),
                    worthwhile: true,
                })
            },
            paths: HashMap::new(),
        }
    }

    /// Returns the path of a super-packet if it can go through the device. A watched packet is sent synchronously,
    /// which preserves the order only while the backend is `idle`.
    #[inline]
    pub(super) fn path(
        &mut self,
        forward: &Forward,
        vnet: &VnetHdr,
        (packet, before): (&Packet, usize),
        local: Option<IpAddr>,
        (now, idle, underlay): (Now, bool, u32),
    ) -> Option<TunnelPath> {
        let IpAddr::V4(remote) = forward.host.addr else {
            return None;
        };
        let fits =
            usize::from(packet.total_len) + before + UDP_HEADER_LEN + IPV4_HEADER_LEN <= MAX_IP;
        if !fits || !is_sound_tcp(vnet, packet) || !forward.outer.df {
            return None;
        }
        let (forced, find_path) = (self.forced, self.find_path);
        let path_state = self.path_state(forward.link, forward.host.id);
        if path_state.found_in != Some(underlay) || path_state.named != local {
            path_state.refresh(find_path(remote, local, forced));
            (path_state.found_in, path_state.named) = (Some(underlay), local);
        }
        let watched = match path_state.state {
            GsoSupport::Untried => true,
            GsoSupport::Works => idle && now.since(path_state.since) > TRUST,
            GsoSupport::Refused if idle && now.since(path_state.since) > RETRY => true,
            GsoSupport::Refused => return None,
        };
        if !path_state.worthwhile {
            return None;
        }
        Some(TunnelPath {
            local: path_state.local?,
            remote,
            watched,
        })
    }

    fn path_state(&mut self, link: LinkIndex, host: u32) -> &mut PathState {
        self.paths.entry((link, host)).or_default()
    }

    /// Records whether a link's packets to a host pass; returns true if that has changed.
    fn set_support(&mut self, link: LinkIndex, host: u32, works: bool, now: Now) -> bool {
        let path_state = self.path_state(link, host);
        let state = if works {
            GsoSupport::Works
        } else {
            GsoSupport::Refused
        };
        path_state.since = now;
        let before = std::mem::replace(&mut path_state.state, state);
        before != state && (before, state) != (GsoSupport::Untried, GsoSupport::Works)
    }

    /// Writes everything that goes before the inner packet to `out`; returns the number of bytes.
    #[inline]
    fn headers(
        &self,
        tunnel_path: &TunnelPath,
        want: &TrainRequest,
        vnet: &VnetHdr,
        packet: &Packet,
        out: &mut [u8],
    ) -> usize {
        let forward = &want.forward;
        let checksum = want.source.checksum;
        let before = usize::from(want.key.before);
        let udp_len = (UDP_HEADER_LEN + before + usize::from(packet.total_len)) as u16;
        // The inner Ethernet header, if present, lies before the packet in its buffer.
        let inner_at = (UDP_AT + UDP_HEADER_LEN + before) as u16;
        let ip = Ipv4Header {
            tos: forward.outer.tos,
            // The kernel decrements the TTL when it forwards the packet.
            ttl: forward.outer.ttl.unwrap_or(DEFAULT_TTL).saturating_add(1),
            ..Ipv4Header::new(
                tunnel_path.local,
                tunnel_path.remote,
                protocol::UDP,
                udp_len,
            )
        };
        let (local, remote) = (tunnel_path.local.into(), tunnel_path.remote.into());
        let partial = match checksum {
            true => pseudo_header(local, remote, protocol::UDP, udp_len.into()).fold(),
            false => 0,
        };
        let headers = OuterHeaders {
            virtio: VirtioTunnelHeader::new(vnet, packet, (UDP_AT as u16, inner_at), checksum),
            ethernet: ethernet_header(self.mac, SENDER, ethertype::IPV4),
            ip: ip.to_bytes(),
            udp: udp_header(want.source.port, forward.port, udp_len, partial),
        };
        out[..HEADERS].copy_from_slice(headers.as_bytes());
        let end = HEADERS + forward.encap.len();
        out[HEADERS..end].copy_from_slice(&forward.encap);
        end
    }
}

impl<B: PacketIo> Worker<B> {
    /// Passes a super-packet to the kernel unsegmented; returns false if the kernel does not take it, in which case
    /// the packet is unchanged.
    pub(super) fn hand_over(
        &mut self,
        read: TunRead,
        tunnel_path: &TunnelPath,
        want: &TrainRequest,
        held: &BufferedPacket,
    ) -> bool {
        let Some(tunnel) = self.tunnel.as_mut() else {
            return false;
        };
        let Some(id) = self.writes.take() else {
            return false;
        };
        self.trains.queue_key(&mut self.io, &want.key);
        let host = want.forward.host.addr;
        let (vnet, packet) = (want.forward.cut.resized(&held.vnet), &held.packet);
        let payload = usize::from(want.key.before) + longest_segment(&vnet, packet);
        let len = outer_len(host, payload);
        let sent = &self.shared.state.sent;
        sent.note(host, want.source.port, len, self.now);
        let frame = usize::from(want.key.before) - want.forward.encap.len();
        let write = self.writes.slot(id);
        write.open(want.key.link, TunWriteKind::Egress, |scratch| {
            tunnel.headers(tunnel_path, want, &vnet, packet, scratch)
        });
        (write.packets, write.bytes) = (held.size.packets, held.size.bytes);
        let inner = self.tun_buffers.map().iovec(
            read.buffer_id,
            vnet::LEN,
            frame + usize::from(packet.total_len),
        );
        // SAFETY: the buffer is held for the packet, and below for a write that outlasts it.
        unsafe { write.push((PoolKind::Tun, read.buffer_id), inner) };
        if tunnel_path.watched {
            let device = tunnel.queue.as_raw_fd();
            // SAFETY: the tunnel's queue is the worker's own; the iovecs point into the write's own memory and the buffer.
            let works = unsafe { self.io.write_watched(device, write.iovs()) };
            let (packets, bytes) = (write.packets, write.bytes);
            self.note_way(&want.forward, works);
            if works && self.taps.outer {
                self.tell_taps_of_uncut(id);
            }
            self.writes.finish(id);
            if let (true, Some(Some(here))) = (works, self.links.get(want.key.link.0 as usize)) {
                here.counters
                    .forwarded(TrafficDirection::Egress, packets, bytes);
            }
            return works;
        }
        write.forward = Some(want.forward.clone());
        self.tun_buffers.hold(read.buffer_id);
        let queue = tunnel.queue.as_raw_fd();
        // SAFETY: the tunnel's queue is the worker's own and outlives the backend; the slot is reused only after
        // `Wrote`, and the buffer is held until then.
        unsafe { self.io.write(id, queue, self.writes.slot(id).iovs()) };
        true
    }

    /// Records whether the kernel forwards a link's super-packets to a host, and tells the daemon if that has
    /// changed.
    fn note_way(&mut self, forward: &Forward, works: bool) {
        let (link, host) = (forward.link, forward.host.addr);
        if let Some(tunnel) = &mut self.tunnel
            && tunnel.set_support(link, forward.host.id, works, self.now)
        {
            let news = EngineEvent::TunnelGso { link, host, works };
            let _ = self.shared.events.send(news);
        }
    }

    /// Shows taps a super-packet that was passed to the kernel.
    fn tell_taps_of_uncut(&mut self, id: u32) {
        let write = self.writes.slot(id);
        let (link, packets) = (write.link, write.packets);
        let packet_outcome = self.outcome(TrafficDirection::Egress, Some(link), None, packets);
        let write = self.writes.slot(id);
        let ip_at = HEADERS - UDP_HEADER_LEN - IPV4_HEADER_LEN;
        self.taps.stage(write.pieces(ip_at));
        let (encapsulation, _) = self.link_protocols(Some(link));
        self.taps
            .offer_outer(&packet_outcome, encapsulation, None, HEADERS - ip_at);
    }

    /// Handles the kernel's answer to a super-packet. If it was refused, it is segmented here, and so are all later
    /// ones of its link to this host.
    pub(super) fn on_handed_over(&mut self, tables: &Tables, id: u32, taken: bool) {
        let write = self.writes.slot(id);
        let (link, packets, (_, buffer_id)) = (write.link, write.packets, write.buffer_ids[0]);
        let forward = write.forward.take();
        if taken && self.taps.outer {
            self.tell_taps_of_uncut(id);
        }
        let write = self.writes.slot(id);
        if taken {
            let counters = counters_of(&self.links, link, &self.unmatched);
            counters.forwarded(TrafficDirection::Egress, write.packets, write.bytes);
        } else if let Some(forward) = forward {
            self.note_way(&forward, false);
            if let Err((reason, packets)) = self.cut_after_all(tables, buffer_id, packets, forward)
            {
                self.count_drop(TrafficDirection::Egress, Some(link), reason, packets);
            }
        }
        self.release(PoolKind::Tun, buffer_id);
    }

    /// Sends a super-packet that the kernel refused, now in trains. It has already been decided and translated.
    fn cut_after_all(
        &mut self,
        tables: &Tables,
        buffer_id: BufferId,
        packets: u64,
        forward: Forward,
    ) -> Result<(), (DropReason, u64)> {
        let all = |reason| (reason, packets);
        let link = tables.link(forward.link);
        let link = link.ok_or(all(DropReason::LinkGone))?;
        let bytes = self.tun_buffers.bytes_mut(buffer_id);
        let vnet = VnetHdr::parse(bytes).map_err(|_| all(DropReason::BadOffload))?;
        let frame_len = match &link.bridge {
            None => 0,
            Some(_) => Ethernet::parse(&bytes[vnet::LEN..])
                .map_err(|e| all(datapath::frame_reason(e)))?
                .header_len(),
        };
        let start = vnet::LEN + frame_len;
        let packet = Packet::parse(&bytes[start..]);
        let packet = packet.map_err(|e| all(datapath::parse_reason(e)))?;
        let held = BufferedPacket {
            link: forward.link,
            side: PoolKind::Tun,
            buffer_id,
            start,
            frame_len,
            vnet,
            packet,
            size: WireSize::of(&forward.cut.resized(&vnet), &packet),
        };
        self.send(&held, forward, None, None)
    }
}

/// A TUN read: the buffer, and the number of bytes in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TunRead {
    pub(super) buffer_id: BufferId,
    pub(super) len: usize,
}

/// Looks up the path to a host in the kernel.
fn path_of_kernel(remote: Ipv4Addr, named: Option<IpAddr>, forced: bool) -> Option<UnderlayPath> {
    let local = local_towards(remote, named)?;
    let worthwhile = forced || device_cuts(local);
    Some(UnderlayPath { local, worthwhile })
}

/// Whether the device with this address takes encapsulated super-packets unsegmented. With any other device the
/// kernel would segment them in software, which costs more than trains do.
fn device_cuts(local: Ipv4Addr) -> bool {
    device_features::device_of(local.into())
        .is_some_and(|device| device_features::cuts_tunnels(&device).unwrap_or(false))
}

/// Source address of packets to `remote`: the `named` one, if this host has it, or the kernel's choice.
fn local_towards(remote: Ipv4Addr, named: Option<IpAddr>) -> Option<Ipv4Addr> {
    let from = named.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let socket = UdpSocket::bind((from, 0)).ok()?;
    // Connecting a UDP socket sends nothing; it only looks up the route.
    socket.connect((remote, 9)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(local) => Some(*local.ip()),
        SocketAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_counts_against_its_link_and_host_alone_and_is_news_once() {
        let mut tunnel = TunnelGso {
            queue: fs::File::open("/dev/null").expect("it is there").into(),
            mac: Mac::default(),
            forced: true,
            find_path: |_, _, _| None,
            paths: HashMap::new(),
        };
        let (greedy, modest) = (LinkIndex(1), LinkIndex(2));
        let now = Now(5);
        assert!(
            !tunnel.set_support(modest, 7, true, now),
            "what is expected"
        );
        assert!(tunnel.set_support(greedy, 7, false, now));
        assert!(!tunnel.set_support(greedy, 7, false, now));
        assert_eq!(tunnel.path_state(greedy, 7).state, GsoSupport::Refused);
        assert_eq!(tunnel.path_state(modest, 7).state, GsoSupport::Works);
        assert_eq!(tunnel.path_state(greedy, 8).state, GsoSupport::Untried);
        assert!(tunnel.set_support(greedy, 7, true, now), "it works again");
    }
}
