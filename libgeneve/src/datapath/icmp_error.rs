//! Validation of underlay ICMP errors about datagrams that this host supposedly sent.
//!
//! Anybody can forge one and send it from anywhere. What to do about a valid error, and for how long, is up to the
//! caller; path MTUs are kept in [`PathMtu`](crate::link::PathMtu).

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

/// ICMP error with the datagram that it quotes.
#[derive(Clone, Copy, Debug)]
pub struct OuterError<'a> {
    /// Destination of the quoted datagram.
    pub host: IpAddr,
    /// Destination UDP port of the quoted datagram.
    pub port: u16,
    /// Source UDP port of the quoted datagram.
    pub source_port: u16,
    /// Reported path MTU in bytes of outer IP packet, if the error says that the datagram was too big.
    pub mtu: Option<u32>,
    /// Quoted beginning of the UDP payload; may be empty.
    pub quoted: &'a [u8],
}

/// Why an error is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorRejection {
    /// Nothing was sent to that host from that source port recently.
    NotSent,
    /// The quoted payload does not start like a datagram of a link on that port.
    NotOurs,
    /// What was sent fits the reported MTU.
    Fits,
}

/// Validates an error; returns the evidence for it.
///
/// # Errors
/// Why the error is not believed.
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

/// Returns the length of the quoted datagram, outer IP header included, if the packet inside belongs to a known flow.
/// `None` if too little is quoted to tell, or the flow is not known (relayed packets, for example).
fn flow_of(cx: &PacketContext<'_>, error: &OuterError<'_>) -> Result<Option<u32>, ErrorRejection> {
    let encapsulation = cx
        .tables
        .encapsulation(error.port)
        .ok_or(ErrorRejection::NotOurs)?;
    // Both encapsulations have the VNI at the same offset, and routers quote at least this much or nothing.
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

/// Returns the quoted inner packet and the length of its Ethernet header.
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

/// Whether the quoted packet belongs to a known flow. A reply is quoted with the reverse of a known key; the reply
/// key of a translated flow is in the table too.
fn is_of_flow(cx: &PacketContext<'_>, link: &Link, quote: &Quote) -> bool {
    let key = FlowKey::of_quote(link.config.index, quote);
    cx.state.flows.contains(&key) || cx.state.flows.contains(&key.reversed())
}
