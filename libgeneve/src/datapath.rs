//! The packet's journey through one host, egress and ingress, each readable from top to bottom.
//!
//! Both are called once per super-packet or run of equal headers; they look things up and decide,
//! and leave moving bytes to [`crate::offload`] and to the caller.

use std::net::IpAddr;
use std::sync::Arc;

use crate::drop::DropReason;
use crate::ecn;
use crate::link::{Df, Host, Link, LinkIndex, Tables, Tos, Ttl};
use crate::offload::vnet::{GsoType, VnetHdr};
use crate::route::{Origin, Target};
use crate::wire::geneve::{Geneve, GeneveError};
use crate::wire::packet::{IpVersion, Packet, PacketError};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const UDP_HEADER: usize = 8;

/// What the outer IP header of a packet shall say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outer {
    /// DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit; `None` is the system's default.
    pub ttl: Option<u8>,
    /// The IPv4 DF bit.
    pub df: bool,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// The host that it is sent to.
    pub host: &'a Arc<Host>,
    /// The Geneve header that goes before each segment, options included.
    pub encap: &'a [u8],
    /// The flow's hash: chooses the source port.
    pub hash: u64,
    /// The outer header.
    pub outer: Outer,
    /// The longest inner packet that reaches the host in one piece, in bytes; a longer one is
    /// too big. `u16::MAX` where the underlay has not said.
    pub limit: u16,
}

/// What becomes of a packet from TUN.
///
/// # Errors
/// The one reason for which it is not forwarded.
#[inline]
pub fn egress<'a>(
    tables: &Tables,
    link: &'a Link,
    packet: &Packet,
) -> Result<Forward<'a>, DropReason> {
    check_own_source(link, packet)?;
    let entry = link.routes.lookup(packet.dst).ok_or(DropReason::NoRoute)?;
    let Target::Hosts(hosts) = &entry.target else {
        return Err(DropReason::NoRoute);
    };
    let hash = tables.hasher.hash(packet);
    let host = match hosts.len() {
        1 => &hosts[0],
        n => &hosts[((u64::from(hash as u32) * n as u64) >> 32) as usize],
    };
    let encap: &[u8] = match packet.version {
        IpVersion::V4 => &link.encap_v4,
        IpVersion::V6 => &link.encap_v6,
    };
    let limit = host
        .path_mtu()
        .map_or(u16::MAX, |outer| inner_limit(link, host.addr, outer));
    Ok(Forward {
        host,
        encap,
        hash,
        outer: outer(link, packet),
        limit,
    })
}

/// A packet whose source is an endpoint of another host was forged: that host would refuse it, too.
fn check_own_source(link: &Link, packet: &Packet) -> Result<(), DropReason> {
    match link.routes.lookup(packet.src) {
        Some(entry) if entry.origin == Origin::Endpoint => match entry.target {
            Target::Local => Ok(()),
            Target::Hosts(_) => Err(DropReason::SourceNotLocal),
        },
        _ => Ok(()),
    }
}

/// RFC 2983 for the DSCP, RFC 6040 for ECN, RFC 8926 section 4.4.2 for the TTL.
fn outer(link: &Link, packet: &Packet) -> Outer {
    let config = &link.config;
    let dscp = match config.tos {
        Tos::Inherit => packet.tos & 0xfc,
        Tos::Fixed(tos) => tos & 0xfc,
    };
    let ttl = match config.ttl {
        Ttl::Auto => None,
        Ttl::Inherit => Some(packet.ttl.max(1)),
        Ttl::Fixed(ttl) => Some(ttl),
    };
    let df = match config.df {
        Df::Set => true,
        Df::Unset => false,
        Df::Inherit => packet.version == IpVersion::V6 || packet.dont_fragment,
    };
    Outer {
        tos: dscp | ecn::encapsulate(packet.tos),
        ttl,
        df,
    }
}

/// The longest inner packet that fits an outer IP packet of `path_mtu` bytes to the underlay address `host`,
/// in bytes (RFC 8926 section 4.4.1).
#[must_use]
pub fn inner_limit(link: &Link, host: IpAddr, path_mtu: u32) -> u16 {
    let ip = if host.is_ipv4() { 20 } else { 40 };
    let inner = (path_mtu as usize).saturating_sub(ip + UDP_HEADER + link.encap_len());
    u16::try_from(inner).unwrap_or(u16::MAX)
}

/// The length of the longest inner packet that a super-packet is cut into, in bytes.
#[must_use]
pub fn longest_segment(vnet: &VnetHdr, packet: &Packet) -> usize {
    match vnet.gso_type {
        GsoType::None => usize::from(packet.total_len),
        _ => usize::from(packet.payload_offset)
            .saturating_add(usize::from(vnet.gso_size))
            .min(usize::from(packet.total_len)),
    }
}

/// How many packets a super-packet is on the wire.
#[must_use]
pub fn wire_packets(vnet: &VnetHdr, packet: &Packet) -> u64 {
    if vnet.gso_type == GsoType::None {
        return 1;
    }
    let payload = packet.total_len.saturating_sub(packet.payload_offset);
    u64::from(payload.div_ceil(vnet.gso_size.max(1))).max(1)
}

/// Inner bytes of all packets that a super-packet is on the wire.
#[must_use]
pub fn wire_bytes(vnet: &VnetHdr, packet: &Packet) -> u64 {
    let repeated = (wire_packets(vnet, packet) - 1) * u64::from(packet.payload_offset);
    u64::from(packet.total_len) + repeated
}

/// The outer side of a datagram that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The UDP port that it was received on.
    pub port: u16,
    /// The outer source address.
    pub src: IpAddr,
    /// The outer destination address, where the kernel told it.
    pub dst: Option<IpAddr>,
    /// The outer DSCP and ECN.
    pub tos: u8,
}

/// A datagram's inner packet, checked.
#[derive(Clone, Copy, Debug)]
pub struct Decap {
    /// The link that it belongs to.
    pub link: LinkIndex,
    /// Where the inner packet begins in the datagram, in bytes.
    pub start: usize,
    /// The inner packet, parsed. Its ECN field is already what RFC 6040 asks for.
    pub packet: Packet,
    /// Equal for datagrams of one link and one outer source whose Geneve headers are equal byte for
    /// byte; only those may be merged (RFC 8926 section 4.6).
    pub lane: u64,
}

/// A datagram that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: DropReason,
    /// The link that counts it; `None` where it did not get as far as a link.
    pub link: Option<LinkIndex>,
}

/// Headers that are remembered: datagrams of a few hosts, or of both families, arrive interleaved.
const MEMORY: usize = 4;

/// Ingress, with the memory of the latest headers: a train's datagrams mostly share theirs.
#[derive(Debug, Default)]
pub struct Ingress {
    memory: [Memo; MEMORY],
    /// The entry that was used last.
    latest: usize,
    lanes: u64,
}

/// What was found out about datagrams with one Geneve header from one outer source.
#[derive(Debug)]
struct Memo {
    lane: u64,
    arrival: Option<Arrival>,
    header: [u8; 260],
    header_len: usize,
    link: LinkIndex,
    source: Option<IpAddr>,
}

impl Default for Memo {
    fn default() -> Self {
        Memo {
            lane: 0,
            arrival: None,
            header: [0; 260],
            header_len: 0,
            link: LinkIndex(0),
            source: None,
        }
    }
}

impl Memo {
    #[inline]
    fn holds(&self, arrival: &Arrival, datagram: &[u8]) -> bool {
        self.arrival.as_ref() == Some(arrival)
            && datagram.get(..self.header_len) == Some(&self.header[..self.header_len])
    }
}

impl Ingress {
    /// Forgets all headers; to be called whenever other tables are used than before.
    pub fn forget(&mut self) {
        for memo in &mut self.memory {
            memo.arrival = None;
        }
    }

    /// What becomes of a datagram from the wire.
    ///
    /// # Errors
    /// The one reason for which it is not forwarded, and the link that counts it.
    #[inline]
    pub fn decide(
        &mut self,
        tables: &Tables,
        arrival: &Arrival,
        datagram: &mut [u8],
    ) -> Result<Decap, Refused> {
        if !self.memory[self.latest].holds(arrival, datagram) {
            match self
                .memory
                .iter()
                .position(|memo| memo.holds(arrival, datagram))
            {
                Some(at) => self.latest = at,
                None => self.outer_checks(tables, arrival, datagram)?,
            }
        }
        let memo = &mut self.memory[self.latest];
        let link = memo.link;
        let refused = |reason| Refused {
            reason,
            link: Some(link),
        };
        let start = memo.header_len;
        let protocol = u16::from_be_bytes([memo.header[2], memo.header[3]]);
        let inner = &mut datagram[start..];
        let mut packet = Packet::parse(inner).map_err(|e| refused(parse_reason(e)))?;
        let expected = match packet.version {
            IpVersion::V4 => ETHERTYPE_IPV4,
            IpVersion::V6 => ETHERTYPE_IPV6,
        };
        if protocol != expected {
            return Err(refused(DropReason::InnerMalformed));
        }
        if memo.source != Some(packet.src) {
            let link = tables
                .link(link)
                .ok_or_else(|| refused(DropReason::LinkGone))?;
            check_source(link, arrival.src, packet.src).map_err(refused)?;
            memo.source = Some(packet.src);
        }
        ecn::decapsulate(arrival.tos, inner, &mut packet).map_err(refused)?;
        Ok(Decap {
            link,
            start,
            packet,
            lane: memo.lane,
        })
    }

    /// Everything that depends on the outer headers alone, done once per run of equal ones.
    fn outer_checks(
        &mut self,
        tables: &Tables,
        arrival: &Arrival,
        datagram: &[u8],
    ) -> Result<(), Refused> {
        let nobodys = |reason| Refused { reason, link: None };
        let geneve = Geneve::parse(datagram).map_err(|e| nobodys(geneve_reason(&e)))?;
        let link = tables
            .by_vni(arrival.port, geneve.vni())
            .ok_or_else(|| nobodys(DropReason::UnknownVni))?;
        let refused = |reason| Refused {
            reason,
            link: Some(link.config.index),
        };
        if let (Some(local), Some(dst)) = (link.config.local, arrival.dst)
            && local != dst
        {
            return Err(refused(DropReason::WrongLocal));
        }
        if link.host(arrival.src).is_none() {
            return Err(refused(DropReason::UnknownHost));
        }
        if geneve.unknown_critical(|_, _| false).is_some() {
            return Err(refused(DropReason::UnknownCriticalOption));
        }
        if geneve.is_control() {
            return Err(refused(DropReason::ControlMessage));
        }
        if !matches!(geneve.protocol(), ETHERTYPE_IPV4 | ETHERTYPE_IPV6) {
            return Err(refused(DropReason::ProtocolType));
        }
        self.latest = (self.latest + 1) % MEMORY;
        self.lanes = self.lanes.wrapping_add(1);
        let memo = &mut self.memory[self.latest];
        let header = geneve.header_bytes();
        memo.header[..header.len()].copy_from_slice(header);
        memo.header_len = header.len();
        memo.link = link.config.index;
        memo.source = None;
        memo.lane = self.lanes;
        memo.arrival = Some(*arrival);
        Ok(())
    }
}

/// The inner source must live on the host that sent the packet.
fn check_source(link: &Link, host: IpAddr, source: IpAddr) -> Result<(), DropReason> {
    match link.routes.lookup(source) {
        Some(entry) if entry.target.includes(host) => Ok(()),
        _ => Err(DropReason::SourceMismatch),
    }
}

/// The reason under which an unreadable inner packet is counted.
#[must_use]
pub fn parse_reason(error: PacketError) -> DropReason {
    match error {
        PacketError::NotIp => DropReason::NotIp,
        _ => DropReason::InnerMalformed,
    }
}

fn geneve_reason(error: &GeneveError) -> DropReason {
    match error {
        GeneveError::Truncated => DropReason::GeneveTruncated,
        GeneveError::Version(_) => DropReason::GeneveVersion,
        GeneveError::OptionLength => DropReason::GeneveOptionLength,
    }
}

#[cfg(test)]
#[path = "datapath_tests/mod.rs"]
mod tests;
