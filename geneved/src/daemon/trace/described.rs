//! Builds the packet to trace from its description.

use std::net::IpAddr;

use libgeneve::datapath::{TraceInput, TraceLength, TracePacket, TraceStage};
use libgeneve::flow::FlowKey;
use libgeneve::label::LabelSet;
use libgeneve::options::{OptionSchema, SentOptions};
use libgeneve::route::RouteTarget;
use libgeneve::vpc::{Df, Link};
use libgeneve::wire::ethernet::ethertype;
use libgeneve::wire::header::HeaderBytes;
use libgeneve::wire::option::GeneveOption;

use crate::config::args::TraceArgs;
use crate::config::state::DesiredState;
use crate::config::value::{DfValue, DirectionValue, LabelsValue};
use crate::daemon::compile::Compiler;
use crate::refusal::Refusal;

/// Echo request, the default type of a described ICMP packet (RFC 792, RFC 4443).
const ECHO: [u8; 2] = [8, 128];

/// Refuses impossible packets, and fields that do not apply to this one.
pub(super) fn check(packet: &TraceArgs) -> Result<(), Refusal> {
    let v4 = packet.from.is_ipv4();
    if v4 != packet.to.is_ipv4() {
        return Err(Refusal::new(
            "trace: from and to are of two families",
            "name two addresses of one",
        ));
    }
    let proto = packet.proto;
    let refused = |word: &str, why: String, hint: &str| {
        Err(Refusal::new(format!("trace: \"{word}\": {why}"), hint))
    };
    if proto.is_icmp() {
        if packet.dport.is_some() {
            return refused(
                "dport",
                format!("{proto} has no ports"),
                "\"icmp TYPE\" is its type; \"sport\" is the identifier of an echo",
            );
        }
        if (proto.0 == 1) != v4 {
            return refused(
                "proto",
                format!("{proto} is not in packets from {}", packet.from),
                "\"icmp\" for IPv4, \"icmpv6\" for IPv6",
            );
        }
    } else {
        if packet.icmp.is_some() {
            return refused(
                "icmp",
                format!("{proto} has no ICMP type"),
                "leave it out, or \"proto icmp\"",
            );
        }
        let ports = [("sport", packet.sport), ("dport", packet.dport)];
        let given = ports.iter().find(|(_, port)| port.is_some());
        if let (Some((word, _)), false) = (given, proto.has_ports()) {
            return refused(
                word,
                format!("of protocol {proto} geneved reads no ports"),
                "leave it out, or \"proto tcp\" or \"proto udp\"",
            );
        }
    }
    if packet.direction == DirectionValue::Egress {
        let wire = [
            ("host", packet.host.is_some()),
            ("option", !packet.option.is_empty()),
            ("labels", packet.labels.is_some()),
        ];
        if let Some((word, _)) = wire.iter().find(|(_, given)| *given) {
            return refused(
                word,
                "a packet from the interface comes with none".into(),
                "describe it from the wire with \"ingress\"; labels and options of an endpoint here are those of \"endpoint show\"",
            );
        }
    }
    let header = match (v4, proto.0) {
        (true, _) if proto.0 == 6 => 40,
        (false, _) if proto.0 == 6 => 60,
        (true, _) if proto.has_ports() || proto.is_icmp() => 28,
        (false, _) if proto.has_ports() || proto.is_icmp() => 48,
        (true, _) => 20,
        (false, _) => 40,
    };
    match (packet.len, packet.df) {
        (Some(len), _) if len < header => refused(
            "len",
            format!("{len} bytes are less than the headers of a packet of {proto}, {header}"),
            "name the length of the whole IP packet",
        ),
        (None, Some(_)) => refused(
            "df",
            "without a length it decides nothing".into(),
            "add \"len BYTES\"",
        ),
        (_, Some(DfValue(Df::Inherit))) => refused(
            "df",
            "\"inherit\" is for links".into(),
            "\"set\" or \"unset\"",
        ),
        (_, Some(_)) if !v4 => refused(
            "df",
            "IPv6 has no such bit: nobody on the way may fragment".into(),
            "leave it out",
        ),
        _ => Ok(()),
    }
}

/// Builds the packet as the packet path sees it, and lists what had to be assumed.
pub(super) fn described(
    (state, compiler, schema): (&DesiredState, &Compiler, &OptionSchema),
    link: &Link,
    packet: &TraceArgs,
) -> Result<(TracePacket, Vec<TraceStage>), Refusal> {
    let mut assumed = Vec::new();
    let mut or = |given: Option<u16>, word: &str, usual: u16| {
        given.unwrap_or_else(|| {
            assumed.push(format!("{word} {usual}"));
            usual
        })
    };
    let (icmp, ports) = if packet.proto.is_icmp() {
        let kind = packet.icmp.map(|icmp| icmp.kind).unwrap_or_else(|| {
            let echo = ECHO[usize::from(packet.from.is_ipv6())];
            assumed.push(format!("icmp {echo}"));
            echo
        });
        let code = packet.icmp.and_then(|icmp| icmp.code).unwrap_or(0);
        // The identifier stands for both ports.
        let id = packet.sport.unwrap_or(1);
        (Some((kind, code)), (id, id))
    } else if packet.proto.has_ports() {
        let sport = or(packet.sport, "sport", 40_000);
        (None, (sport, or(packet.dport, "dport", 0)))
    } else {
        (None, (0, 0))
    };
    let mut stages = Vec::new();
    let heading = match packet.direction {
        DirectionValue::Egress => TraceInput::Egress,
        DirectionValue::Ingress => {
            let host = match packet.host {
                Some(host) => host,
                None => {
                    let host = owner(link, packet.from).ok_or_else(|| {
                        Refusal::new(
                            format!("trace: no host of the VPC has {}", packet.from),
                            "name the host that the packet comes from with \"host ADDR\"",
                        )
                    })?;
                    assumed.push(format!("host {host}"));
                    host
                }
            };
            let (labels, stage) = labels(state, compiler, link, packet)?;
            stages.extend(stage);
            let header = Box::new(header(schema, link, packet, labels)?);
            TraceInput::Ingress { host, header }
        }
    };
    if !assumed.is_empty() {
        let result = format!("assumed: {}", assumed.join(", "));
        stages.insert(
            0,
            TraceStage {
                stage: "packet",
                result,
            },
        );
    }
    let described = TracePacket {
        key: FlowKey {
            link: link.config.index,
            src: packet.from,
            dst: packet.to,
            protocol: packet.proto.0,
            sport: ports.0,
            dport: ports.1,
        },
        icmp,
        trace_input: heading,
        length: packet.len.map(|bytes| TraceLength {
            bytes,
            dont_fragment: packet.df != Some(DfValue(Df::Unset)),
        }),
    };
    Ok((described, stages))
}

/// Labels of an incoming packet: the given ones, or those known here for the endpoint; and which of the two, if the
/// link looks at labels.
fn labels(
    state: &DesiredState,
    compiler: &Compiler,
    link: &Link,
    packet: &TraceArgs,
) -> Result<(Option<LabelSet>, Option<TraceStage>), Refusal> {
    let hashed = |labels| {
        let set = compiler.hashed(labels);
        set.map_err(|why| Refusal::new(format!("trace: {why}"), ""))
    };
    let addr = packet.from;
    let tell = |result| TraceStage {
        stage: "labels",
        result,
    };
    if !link.config.encapsulation.has_options() {
        return match &packet.labels {
            Some(_) => Err(Refusal::new(
                "trace: \"labels\": packets of this link carry no options, and so no labels",
                "leave it out; the rules go by \"labels\" of \"endpoint\"",
            )),
            None => Ok((None, None)),
        };
    }
    if let Some(LabelsValue(named)) = &packet.labels {
        return Ok((Some(hashed(named)?), None));
    }
    if !state.uses_labels(&packet.dev) {
        return Ok((None, None));
    }
    let endpoint = state.endpoints.get(&(packet.dev.clone(), addr));
    match endpoint.and_then(|endpoint| endpoint.labels.as_ref()) {
        Some(known) => {
            let words = format!(
                "assumed: {addr} has those that its endpoint has here, {known}; \"labels K=V,...\" names others"
            );
            Ok((Some(hashed(known)?), Some(tell(words))))
        }
        None => Ok((
            None,
            Some(tell(format!(
                "assumed: the packet carries none, and no endpoint here says which {addr} has, so no rule that asks for them allows it; \"labels K=V,...\" names them"
            ))),
        )),
    }
}

/// Geneve header of the described packet.
fn header(
    schema: &OptionSchema,
    link: &Link,
    packet: &TraceArgs,
    labels: Option<LabelSet>,
) -> Result<HeaderBytes, Refusal> {
    let attach = SentOptions {
        labels: labels.map(|set| (set, false)),
        ..SentOptions::default()
    };
    let given = packet.option.iter().map(|option| GeneveOption {
        class: option.class.0,
        kind: option.kind.0,
        data: &option.data,
    });
    let ether_type = match packet.from {
        IpAddr::V4(_) => ethertype::IPV4,
        IpAddr::V6(_) => ethertype::IPV6,
    };
    let config = &link.config;
    if !config.encapsulation.has_options() {
        return match packet.option.is_empty() {
            true => Ok(config.encapsulation.header(config.vni, ether_type)),
            false => Err(Refusal::new(
                "trace: \"option\": packets of this link carry no options",
                "leave it out",
            )),
        };
    }
    attach
        .header(schema, config.vni, ether_type, given)
        .map_err(|e| Refusal::new(format!("trace: {e}"), ""))
}

/// The host that an inner address belongs to.
fn owner(link: &Link, addr: IpAddr) -> Option<IpAddr> {
    match &link.routes.lookup(addr)?.target {
        RouteTarget::Hosts(hosts) => hosts.first().map(|h| h.addr),
        RouteTarget::Local => None,
    }
}

#[cfg(test)]
#[path = "described_tests.rs"]
mod tests;
