//! ICMP errors of the underlay, about datagrams that this host is said to have sent: whether they can be true.
//!
//! Anybody can write one and send it from anywhere. What follows from one that is believed, and for how long, is the
//! caller's business; a path MTU is kept in [`PathMtu`](crate::link::PathMtu).

use std::net::IpAddr;

use super::decision::PacketContext;
use crate::flow::FlowKey;
use crate::vpc::{Link, PathMtuEvidence};
use crate::wire::encapsulation::InnerProtocol;
use crate::wire::ethernet::Ethernet;
use crate::wire::geneve::Vni;
use crate::wire::icmp::Quote;
use crate::wire::ip::IpVersion;
use crate::wire::transport::UDP_HEADER_LEN;

/// An error, and what it quotes.
#[derive(Clone, Copy, Debug)]
pub struct OuterError<'a> {
    /// Whom the quoted datagram was for.
    pub host: IpAddr,
    /// The UDP port that it was for.
    pub port: u16,
    /// The UDP port that it was from.
    pub source_port: u16,
    /// The MTU of the path, where the error says that the datagram was too big; bytes of outer IP packet.
    pub mtu: Option<u32>,
    /// What is quoted of the UDP payload: its beginning, or nothing.
    pub quoted: &'a [u8],
}

/// Why an error cannot be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorRejection {
    /// Nothing left for that host from that port lately.
    NotSent,
    /// What it quotes is not how a link of that port begins its datagrams.
    NotOurs,
    /// What left fits the MTU that it reports.
    Fits,
}

/// Whether an error can be true, and by what.
///
/// # Errors
/// Why it cannot.
pub fn validate_icmp_error(
    cx: &PacketContext<'_>,
    error: &OuterError<'_>,
) -> Result<PathMtuEvidence, ErrorRejection> {
    let longest = cx
        .state
        .sent
        .longest(error.host, error.source_port, cx.now)
        .ok_or(ErrorRejection::NotSent)?;
    let flow = flow_of(cx, error)?;
    let (evidence, len) = match flow {
        Some(len) => (PathMtuEvidence::Flow, len),
        None => (PathMtuEvidence::Length, longest.into()),
    };
    match error.mtu {
        Some(mtu) if len <= mtu => Err(ErrorRejection::Fits),
        _ => Ok(evidence),
    }
}

/// The length of the quoted datagram, its outer IP header included, where a packet of a flow that is there is inside;
/// `None` where too little is quoted to know, or no flow is known for it, as for what is relayed.
fn flow_of(cx: &PacketContext<'_>, error: &OuterError<'_>) -> Result<Option<u32>, ErrorRejection> {
    let encapsulation = cx
        .tables
        .encapsulation(error.port)
        .ok_or(ErrorRejection::NotOurs)?;
    // Both encapsulations have the VNI at the same place, and routers quote no less than this, or nothing.
    let Some([_, _, _, _, a, b, c, _]) = error.quoted.first_chunk::<8>() else {
        return Ok(None);
    };
    let vni = Vni::from_wire([*a, *b, *c]);
    let link = cx
        .tables
        .by_vni(error.port, vni)
        .ok_or(ErrorRejection::NotOurs)?;
    // The quote may end within the options.
    let Ok(envelope) = encapsulation.parse(error.quoted) else {
        return Ok(None);
    };
    let inner = envelope.inner().ok_or(ErrorRejection::NotOurs)?;
    let quoted = &error.quoted[envelope.header_len..];
    let Some((quote, frame_len)) = packet_in(inner, quoted) else {
        return Ok(None);
    };
    let outer_ip = if error.host.is_ipv4() { 20 } else { 40 };
    let before = outer_ip + UDP_HEADER_LEN + envelope.header_len + frame_len;
    let known = is_of_flow(cx, link, &quote);
    Ok(known.then(|| quote.packet_len + before as u32))
}

/// The beginning of the packet inside, and how long its Ethernet header is.
fn packet_in(inner: InnerProtocol, quoted: &[u8]) -> Option<(Quote, usize)> {
    let frame_len = match inner {
        InnerProtocol::Ip => 0,
        InnerProtocol::Ethernet => Ethernet::parse(quoted).ok()?.header_len(),
    };
    let packet = quoted.get(frame_len..)?;
    let version = match packet.first()? >> 4 {
        4 => IpVersion::V4,
        6 => IpVersion::V6,
        _ => return None,
    };
    Some((Quote::read(version, packet, 0)?, frame_len))
}

/// Replies come with the key of what was sent, reversed; that of a translated flow is an alias of it.
fn is_of_flow(cx: &PacketContext<'_>, link: &Link, quote: &Quote) -> bool {
    let key = FlowKey::of_quote(link.config.index, quote);
    cx.state.flows.contains(&key) || cx.state.flows.contains(&key.reversed())
}
