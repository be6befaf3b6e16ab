//! Packet trace: runs a described packet through the datapath's own code and records each stage, without side
//! effects.

use std::net::IpAddr;
use std::sync::Arc;

use super::decision::{FlowDecision, Input, NextHop, PacketContext, Verdict};
use super::first_packet::{self, FirstPacket, PlannedDecision, WireInput};
use super::lookup::{from_memory, holds};
use super::martian::martian_addresses;
use super::output::{Forward, OutputRequest, exit_link};
use super::trace_observer::{TraceObserver, TraceRecorder, TraceStage};
use crate::drop::DropReason;
use crate::flow::{FlowDirection, FlowKey, FoundFlow};
use crate::offload::cut::Cut;
use crate::offload::vnet::VnetHdr;
use crate::options::ReceivedOptions;
use crate::vpc::Link;
use crate::wire::header::HeaderBytes;
use crate::wire::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, protocol};
use crate::wire::packet::{Fragment, IpVersion, Packet, Transport, is_icmp_query};
use crate::wire::transport::{TCP_HEADER_LEN, TcpFlags, UDP_HEADER_LEN};

/// Packet to trace.
#[derive(Clone, Debug)]
pub struct TracePacket {
    /// Addresses, protocol and ports; for ICMP queries both ports are the identifier.
    pub key: FlowKey,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
    /// Direction.
    pub trace_input: TraceInput,
    /// Length of the inner IP packet; `None` skips the MTU check.
    pub length: Option<TraceLength>,
}

/// Length of a described packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceLength {
    /// Length of the whole inner IP packet, in bytes.
    pub bytes: u16,
    /// IPv4 DF bit.
    pub dont_fragment: bool,
}

/// Direction of a described packet.
#[derive(Clone, Debug)]
pub enum TraceInput {
    /// Received from the interface.
    Egress,
    /// Received from this host with this Geneve header.
    Ingress {
        /// Underlay address of the host.
        host: IpAddr,
        /// Geneve header, options included.
        header: Box<HeaderBytes>,
    },
}

/// Result of a trace.
#[derive(Clone, Debug)]
pub struct TraceResult {
    /// Stages it passed.
    pub stages: Vec<TraceStage>,
    /// Where it goes.
    pub outcome: Result<NextHop, DropReason>,
    /// Whether the sender would be sent a rejection.
    pub reject: bool,
    /// QoS class ID.
    pub class: Option<u8>,
    /// Addresses and ports after NAT and services, if it is forwarded.
    pub translated: Option<FlowKey>,
}

/// Traces a described packet of `link`.
#[must_use]
pub fn trace(cx: &PacketContext<'_>, link: &Arc<Link>, trace_packet: &TracePacket) -> TraceResult {
    let mut recorder = TraceRecorder::default();
    let (mut reject, mut class) = (false, None);
    let walked = walk(
        cx,
        link,
        trace_packet,
        &mut recorder,
        &mut reject,
        &mut class,
    );
    let translated = walked.as_ref().ok().map(|(_, key)| *key);
    let outcome = walked.and_then(|(next_hop, _)| {
        if let Some(length) = trace_packet.length {
            measure(cx, link, trace_packet, length, &next_hop, &mut recorder)?;
        }
        Ok(next_hop)
    });
    if let Err(reason) = &outcome {
        recorder.record("drop", || format!("{reason}: {}", reason.explanation()));
    }
    TraceResult {
        stages: recorder.0,
        outcome,
        reject,
        class,
        translated,
    }
}

/// Checks whether a packet of this length fits the path, is cut, or is refused.
fn measure(
    cx: &PacketContext<'_>,
    link: &Link,
    trace_packet: &TracePacket,
    length: TraceLength,
    next_hop: &NextHop,
    recorder: &mut TraceRecorder,
) -> Result<(), DropReason> {
    let mut packet = trace_packet.packet(length);
    let whole = packet.dont_fragment;
    let mtu = link.config.mtu;
    let mut bytes = length.bytes;
    if matches!(trace_packet.trace_input, TraceInput::Egress) && bytes > mtu {
        recorder.record("mtu", || match whole {
            true => format!(
                "{bytes} bytes are too long for the interface, whose MTU is {mtu}: the kernel refuses them and tells the sender"
            ),
            false => format!(
                "{bytes} bytes are cut by the kernel into {} fragments, because the MTU of the interface is {mtu}",
                fragments(bytes, mtu)
            ),
        });
        if whole {
            return Err(DropReason::TooBig);
        }
        bytes = mtu;
        packet.total_len = mtu;
    }
    let NextHop::Wire(tunnel) = next_hop else {
        recorder.record("mtu", || format!("{bytes} bytes fit"));
        return Ok(());
    };
    let request = OutputRequest {
        packet: &packet,
        hash: 0,
        class: None,
        frame: 0,
        relayed: false,
    };
    let mut forward = Forward::new(exit_link(cx, link, tunnel.link)?, tunnel, &request);
    let limit = forward.limit;
    let cut = Cut::to_fit(&VnetHdr::NONE, &packet, limit);
    if let Err(refused) = forward.fit(cut, &packet, link.config.index) {
        recorder.record("mtu", || {
            let told = match refused.answer {
                Some(_) => "its sender is told",
                None => "its sender must not be told",
            };
            format!(
                "{bytes} bytes are too long: the path to {} carries {limit}; {told}",
                tunnel.host.addr
            )
        });
        return Err(refused.reason);
    }
    recorder.record("mtu", || match bytes > limit {
        true => format!(
            "{bytes} bytes are cut into {} fragments: the path to {} carries {limit}",
            fragments(bytes, limit),
            tunnel.host.addr
        ),
        false => format!(
            "{bytes} bytes fit: the MTU of the interface is {mtu}{}",
            match limit {
                u16::MAX => String::new(),
                limit => format!(", the path to {} carries {limit}", tunnel.host.addr),
            }
        ),
    });
    Ok(())
}

/// Returns the number of fragments that an IPv4 packet without options becomes (RFC 791).
fn fragments(bytes: u16, mtu: u16) -> u16 {
    let header = IPV4_HEADER_LEN as u16;
    let payload = (mtu.saturating_sub(header) & !7).max(8);
    bytes.saturating_sub(header).div_ceil(payload)
}

impl TracePacket {
    /// Returns the described packet as the parser would.
    fn packet(&self, length: TraceLength) -> Packet {
        let key = &self.key;
        let version = match key.src {
            IpAddr::V4(_) => IpVersion::V4,
            IpAddr::V6(_) => IpVersion::V6,
        };
        let ip = match version {
            IpVersion::V4 => IPV4_HEADER_LEN,
            IpVersion::V6 => IPV6_HEADER_LEN,
        } as u16;
        let (transport, header) = match (key.protocol, self.icmp) {
            (_, Some((kind, code))) => {
                let id = is_icmp_query(version, kind).then_some(key.sport);
                (Transport::Icmp { kind, code, id }, 8)
            }
            (protocol::TCP, _) => (
                Transport::Tcp {
                    src: key.sport,
                    dst: key.dport,
                    flags: TcpFlags::ACK,
                    seq: 0,
                    ack: 0,
                },
                TCP_HEADER_LEN as u16,
            ),
            (protocol::UDP, _) => (
                Transport::Udp {
                    src: key.sport,
                    dst: key.dport,
                    len: length.bytes.saturating_sub(ip),
                },
                UDP_HEADER_LEN as u16,
            ),
            _ => (Transport::Other, 0),
        };
        Packet {
            version,
            transport_offset: ip,
            payload_offset: ip + header,
            total_len: length.bytes,
            protocol: key.protocol,
            src: key.src,
            dst: key.dst,
            transport,
            fragment: Fragment::Whole,
            fragment_id: 0,
            tos: 0,
            ttl: 64,
            dont_fragment: length.dont_fragment || version == IpVersion::V6,
            source_routed: false,
        }
    }
}

fn walk(
    cx: &PacketContext<'_>,
    link: &Arc<Link>,
    trace_packet: &TracePacket,
    recorder: &mut TraceRecorder,
    reject: &mut bool,
    class: &mut Option<u8>,
) -> Result<(NextHop, FlowKey), DropReason> {
    let initial = FirstPacket {
        key: trace_packet.key,
        icmp: trace_packet.icmp,
    };
    let key = &trace_packet.key;
    martian_addresses(&link.config, key.src, key.dst)?;
    let known = cx.state.flows.peek(&trace_packet.key);
    recorder.record("flow", || match &known {
        None => "no flow: this packet would begin one".to_owned(),
        Some(found) if !is_decided(cx, found) => {
            "a flow that is decided again, because the configuration changed".to_owned()
        }
        Some(found) => match found.side {
            FlowDirection::Original => {
                "a flow is there; its packets follow what is explained here".to_owned()
            }
            FlowDirection::Reply => {
                "a reply of a flow that is there, which no rule is asked about".to_owned()
            }
        },
    });
    if let Some(found) = known.as_ref().filter(|f| f.side == FlowDirection::Reply)
        && (found.decision.verdict == Verdict::Forward || found.decision.cut)
    {
        return answered(cx, link, trace_packet, found, recorder, reject, class);
    }
    let before = known.as_ref().filter(|f| f.side == FlowDirection::Original);
    let before = before.map(|f| &f.reply);
    let planned = match &trace_packet.trace_input {
        TraceInput::Egress => {
            first_packet::decide_original(cx, link, &initial, &Input::Link, before, recorder)?
        }
        TraceInput::Ingress { host, header } => {
            let known = link.host(*host);
            recorder.record("host", || match known {
                Some(_) => format!("{host} is a host of the VPC"),
                None => format!("{host} is not a host of the VPC"),
            });
            let host = known.ok_or(DropReason::UnknownHost)?;
            let received = read(cx, link, header)?;
            let first_input = Input::Host(WireInput {
                host,
                received: &received,
                header,
                digest: 0,
            });
            first_packet::decide_original(cx, link, &initial, &first_input, before, recorder)?
        }
    };
    *class = planned.decision.class;
    refused(planned.decision.verdict, reject)?;
    let next_hop = planned
        .decision
        .direction(FlowDirection::Original)
        .next_hop
        .clone();
    Ok((next_hop, planned.reply.reversed()))
}

/// Whether the cached decision applies, so that the flow is not decided again.
fn is_decided(cx: &PacketContext<'_>, found: &FoundFlow<FlowDecision>) -> bool {
    let keys = (&found.original, &found.reply);
    holds(cx.tables, keys, &found.decision, found.epoch)
}

fn refused(flow_verdict: Verdict, reject: &mut bool) -> Result<(), DropReason> {
    match flow_verdict {
        Verdict::Forward => Ok(()),
        Verdict::Drop(reason) => Err(reason),
        Verdict::Reject => {
            *reject = true;
            Err(DropReason::PolicyRejected)
        }
    }
}

/// Traces a packet in the reply direction of a flow.
fn answered(
    cx: &PacketContext<'_>,
    link: &Arc<Link>,
    trace_packet: &TracePacket,
    found: &FoundFlow<FlowDecision>,
    recorder: &mut TraceRecorder,
    reject: &mut bool,
    class: &mut Option<u8>,
) -> Result<(NextHop, FlowKey), DropReason> {
    let received = match &trace_packet.trace_input {
        TraceInput::Egress => None,
        TraceInput::Ingress { header, .. } => Some(read(cx, link, header)?),
    };
    let from = match &trace_packet.trace_input {
        TraceInput::Egress => Input::Link,
        TraceInput::Ingress { host, .. } => {
            Input::Host(link.host(*host).ok_or(DropReason::UnknownHost)?)
        }
    };
    let source = (trace_packet.key.src, trace_packet.key.sport);
    let keys = (&found.original, &found.reply);
    let direct = first_packet::may_answer_directly(keys, &found.decision, from, cx.now);
    let role = first_packet::PacketRole::Reply { direct };
    first_packet::check_arrival(link, from, role, source, received.as_ref())?;
    let planned = if is_decided(cx, found) {
        PlannedDecision {
            decision: found.decision.clone(),
            reply: found.reply,
        }
    } else {
        let initial = FirstPacket {
            key: found.original,
            icmp: found.decision.icmp,
        };
        let link = cx.tables.link(found.original.link);
        let link = link.ok_or(DropReason::LinkGone)?;
        from_memory(cx, link, &initial, &found.decision, &found.reply, recorder)?
    };
    let PlannedDecision { decision, reply } = planned;
    refused(decision.verdict, reject)?;
    if reply != found.reply {
        return Err(DropReason::NatUntranslatable);
    }
    *class = decision.class;
    let wire = received.as_ref().map(|received| (received, 0));
    let decided =
        first_packet::decide_reply(cx, &found.original, &reply, &decision, from, wire, recorder)?;
    Ok((
        decided.direction_state.next_hop.clone(),
        found.original.reversed(),
    ))
}

fn read(
    cx: &PacketContext<'_>,
    link: &Link,
    header: &HeaderBytes,
) -> Result<ReceivedOptions, DropReason> {
    let envelope = link.config.encapsulation.parse(header);
    let envelope = envelope.map_err(|e| super::envelope_reason(&e))?;
    ReceivedOptions::read(&cx.tables.schema, envelope.options())
}
