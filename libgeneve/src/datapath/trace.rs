//! What would become of a packet, told stage by stage by the same code that packets take; nothing is changed.

use std::net::IpAddr;
use std::sync::Arc;

use super::first_packet::{self, WireInput, PlannedDecision, FirstPacket};
use super::trace_observer::{TraceRecorder, TraceObserver, TraceStage};
use super::lookup::{from_memory, holds};
use super::martian::martian_addresses;
use super::output::{Forward, OutputRequest, exit_link};
use super::decision::{PacketContext, FlowDecision, NextHop, Verdict, Input};
use crate::drop::DropReason;
use crate::flow::{FlowKey, FoundFlow, FlowDirection};
use crate::vpc::Link;
use crate::offload::cut::Cut;
use crate::offload::vnet::VnetHdr;
use crate::options::ReceivedOptions;
use crate::wire::header::HeaderBytes;
use crate::wire::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, protocol};
use crate::wire::packet::{Fragment, IpVersion, Packet, Transport, is_icmp_query};
use crate::wire::transport::{TCP_HEADER_LEN, TcpFlags, UDP_HEADER_LEN};

/// A packet that somebody describes.
#[derive(Clone, Debug)]
pub struct TracePacket {
    /// Addresses, protocol and ports; for ICMP queries the identifier as both ports.
    pub key: FlowKey,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
    /// Which way it goes.
    pub trace_input: TraceInput,
    /// How long it is, in bytes of inner IP packet, where that is to be looked at.
    pub length: Option<TraceLength>,
}

/// How long a described packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceLength {
    /// Bytes of the whole inner IP packet.
    pub bytes: u16,
    /// The DF bit of IPv4.
    pub dont_fragment: bool,
}

/// Which way a described packet goes.
#[derive(Clone, Debug)]
pub enum TraceInput {
    /// From TUN.
    Egress,
    /// From this host, with this Geneve header.
    Ingress {
        /// The host's underlay address.
        host: IpAddr,
        /// The header, options included.
        header: Box<HeaderBytes>,
    },
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct TraceResult {
    /// The stages that it came through.
    pub stages: Vec<TraceStage>,
    /// Where it goes.
    pub outcome: Result<NextHop, DropReason>,
    /// Whether its sender would be told that it was rejected.
    pub reject: bool,
    /// The id of its QoS class.
    pub class: Option<u8>,
    /// Its addresses and ports behind NAT and services, where it is forwarded.
    pub translated: Option<FlowKey>,
}

/// Explains what would become of a packet of `link`.
#[must_use]
pub fn trace(cx: &PacketContext<'_>, link: &Arc<Link>, described: &TracePacket) -> TraceResult {
    let mut account = TraceRecorder::default();
    let (mut reject, mut class) = (false, None);
    let walked = walk(cx, link, described, &mut account, &mut reject, &mut class);
    let translated = walked.as_ref().ok().map(|(_, key)| *key);
    let outcome = walked.and_then(|(exit, _)| {
        if let Some(length) = described.length {
            measure(cx, link, described, length, &exit, &mut account)?;
        }
        Ok(exit)
    });
    if let Err(reason) = &outcome {
        account.record("drop", || format!("{reason}: {}", reason.explanation()));
    }
    TraceResult {
        stages: account.0,
        outcome,
        reject,
        class,
        translated,
    }
}

/// Whether a packet of this length fits its way, is cut or is refused.
fn measure(
    cx: &PacketContext<'_>,
    link: &Link,
    described: &TracePacket,
    length: TraceLength,
    exit: &NextHop,
    account: &mut TraceRecorder,
) -> Result<(), DropReason> {
    let mut packet = described.packet(length);
    let whole = packet.dont_fragment;
    let mtu = link.config.mtu;
    let mut bytes = length.bytes;
    if matches!(described.trace_input, TraceInput::Egress) && bytes > mtu {
        account.record("mtu", || match whole {
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
    let NextHop::Wire(way) = exit else {
        account.record("mtu", || format!("{bytes} bytes fit"));
        return Ok(());
    };
    let request = OutputRequest {
        packet: &packet,
        hash: 0,
        class: None,
        frame: 0,
        relayed: false,
    };
    let mut forward = Forward::new(exit_link(cx, link, way.link)?, way, &request);
    let limit = forward.limit;
    let cut = Cut::to_fit(&VnetHdr::NONE, &packet, limit);
    if let Err(refused) = forward.fit(cut, &packet, link.config.index) {
        account.record("mtu", || {
            let told = match refused.answer {
                Some(_) => "its sender is told",
                None => "its sender must not be told",
            };
            format!(
                "{bytes} bytes are too long: the path to {} carries {limit}; {told}",
                way.host.addr
            )
        });
        return Err(refused.reason);
    }
    account.record("mtu", || match bytes > limit {
        true => format!(
            "{bytes} bytes are cut into {} fragments: the path to {} carries {limit}",
            fragments(bytes, limit),
            way.host.addr
        ),
        false => format!(
            "{bytes} bytes fit: the MTU of the interface is {mtu}{}",
            match limit {
                u16::MAX => String::new(),
                limit => format!(", the path to {} carries {limit}", way.host.addr),
            }
        ),
    });
    Ok(())
}

/// How many fragments an IPv4 packet without options becomes (RFC 791).
fn fragments(bytes: u16, mtu: u16) -> u16 {
    let header = IPV4_HEADER_LEN as u16;
    let payload = (mtu.saturating_sub(header) & !7).max(8);
    bytes.saturating_sub(header).div_ceil(payload)
}

impl TracePacket {
    /// The packet that is described, as it would be parsed.
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
    described: &TracePacket,
    account: &mut TraceRecorder,
    reject: &mut bool,
    class: &mut Option<u8>,
) -> Result<(NextHop, FlowKey), DropReason> {
    let subject = FirstPacket {
        key: described.key,
        icmp: described.icmp,
    };
    let key = &described.key;
    martian_addresses(&link.config, key.src, key.dst)?;
    let known = cx.state.flows.peek(&described.key);
    account.record("flow", || match &known {
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
        return answered(cx, link, described, found, account, reject, class);
    }
    let before = known.as_ref().filter(|f| f.side == FlowDirection::Original);
    let before = before.map(|f| &f.reply);
    let planned = match &described.trace_input {
        TraceInput::Egress => first_packet::decide_original(cx, link, &subject, &Input::Link, before, account)?,
        TraceInput::Ingress { host, header } => {
            let known = link.host(*host);
            account.record("host", || match known {
                Some(_) => format!("{host} is a host of the VPC"),
                None => format!("{host} is not a host of the VPC"),
            });
            let host = known.ok_or(DropReason::UnknownHost)?;
            let received = read(cx, link, header)?;
            let entrance = Input::Host(WireInput {
                host,
                received: &received,
                header,
                digest: 0,
            });
            first_packet::decide_original(cx, link, &subject, &entrance, before, account)?
        }
    };
    *class = planned.decision.class;
    refused(planned.decision.verdict, reject)?;
    let exit = planned.decision.direction(FlowDirection::Original).next_hop.clone();
    Ok((exit, planned.reply.reversed()))
}

/// Whether the flow is not decided again.
fn is_decided(cx: &PacketContext<'_>, found: &FoundFlow<FlowDecision>) -> bool {
    let keys = (&found.original, &found.reply);
    holds(cx.tables, keys, &found.decision, found.epoch)
}

fn refused(fate: Verdict, reject: &mut bool) -> Result<(), DropReason> {
    match fate {
        Verdict::Forward => Ok(()),
        Verdict::Drop(reason) => Err(reason),
        Verdict::Reject => {
            *reject = true;
            Err(DropReason::PolicyRejected)
        }
    }
}

/// A packet of the reply side of a flow.
fn answered(
    cx: &PacketContext<'_>,
    link: &Arc<Link>,
    described: &TracePacket,
    found: &FoundFlow<FlowDecision>,
    account: &mut TraceRecorder,
    reject: &mut bool,
    class: &mut Option<u8>,
) -> Result<(NextHop, FlowKey), DropReason> {
    let received = match &described.trace_input {
        TraceInput::Egress => None,
        TraceInput::Ingress { header, .. } => Some(read(cx, link, header)?),
    };
    let from = match &described.trace_input {
        TraceInput::Egress => Input::Link,
        TraceInput::Ingress { host, .. } => {
            Input::Host(link.host(*host).ok_or(DropReason::UnknownHost)?)
        }
    };
    let source = (described.key.src, described.key.sport);
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
        let subject = FirstPacket {
            key: found.original,
            icmp: found.decision.icmp,
        };
        let link = cx.tables.link(found.original.link);
        let link = link.ok_or(DropReason::LinkGone)?;
        from_memory(cx, link, &subject, &found.decision, &found.reply, account)?
    };
    let PlannedDecision { decision, reply } = planned;
    refused(decision.verdict, reject)?;
    if reply != found.reply {
        return Err(DropReason::NatUntranslatable);
    }
    *class = decision.class;
    let wire = received.as_ref().map(|received| (received, 0));
    let decided = first_packet::decide_reply(cx, &found.original, &reply, &decision, from, wire, account)?;
    Ok((decided.direction_state.next_hop.clone(), found.original.reversed()))
}

fn read(cx: &PacketContext<'_>, link: &Link, header: &HeaderBytes) -> Result<ReceivedOptions, DropReason> {
    let envelope = link.config.encapsulation.parse(header);
    let envelope = envelope.map_err(|e| super::envelope_reason(&e))?;
    ReceivedOptions::read(&cx.tables.schema, envelope.options())
}
