//! What would become of a packet that somebody describes.

use std::net::IpAddr;

use libgeneve::datapath::{self, Context, Described, Exit, Heading};
use libgeneve::flow::FlowKey;
use libgeneve::link::Link;
use libgeneve::options::{Attach, Schema};
use libgeneve::route::Target;
use libgeneve::wire::encapsulation::Encapsulation;
use libgeneve::wire::ethernet::ethertype;
use libgeneve::wire::header::HeaderBytes;
use libgeneve::wire::option::GeneveOption;

use super::core::Core;
use super::flows::class_name;
use crate::config::state::Refusal;
use crate::config::value::{ClassWord, Direction, KindWord, RawOption};
use crate::config::words::TraceWords;
use crate::control::protocol::{Stage, Trace, TraceReport, Verdict};

/// Echo request, what is meant where an ICMP packet is described without its type (RFC 792, RFC 4443).
const ECHO: [u8; 2] = [8, 128];

impl Core {
    /// What would happen to a packet; nothing is changed.
    pub(super) async fn trace(&self, packet: TraceWords) -> Result<Trace, Refusal> {
        let inner = self.inner().await;
        inner.state.link(&packet.dev)?;
        let lost = || {
            Refusal::new(
                format!("link \"{}\" does not run", packet.dev),
                "\"geneved link show\" says why",
            )
        };
        let running = inner.running.get(&packet.dev).ok_or_else(lost)?;
        let tables = self.engine().tables();
        let link = tables.link(running.index).ok_or_else(lost)?;
        if packet.from.is_ipv4() != packet.to.is_ipv4() {
            return Err(Refusal::new(
                "trace: from and to are of two families",
                "name two addresses of one",
            ));
        }
        let icmp = packet.proto.is_icmp().then(|| match packet.icmp {
            Some(icmp) => (icmp.kind, icmp.code.unwrap_or(0)),
            None => (ECHO[usize::from(packet.from.is_ipv6())], 0),
        });
        let ports = match icmp {
            // The identifier stands for both ports.
            Some(_) => (packet.sport.unwrap_or(1), packet.sport.unwrap_or(1)),
            None => (packet.sport.unwrap_or(40_000), packet.dport.unwrap_or(0)),
        };
        let described = Described {
            key: FlowKey {
                link: running.index,
                src: packet.from,
                dst: packet.to,
                protocol: packet.proto.0,
                sport: ports.0,
                dport: ports.1,
            },
            icmp,
            heading: match packet.direction {
                Direction::Egress => Heading::Egress,
                Direction::Ingress => Heading::Ingress {
                    host: packet
                        .host
                        .or_else(|| owner(link, packet.from))
                        .ok_or_else(|| {
                            Refusal::new(
                                format!("trace: no host of the VPC has {}", packet.from),
                                "name the host that the packet comes from with \"host ADDR\"",
                            )
                        })?,
                    header: Box::new(self.header(
                        &inner.compiler,
                        &tables.schema,
                        link,
                        &packet,
                    )?),
                },
            },
        };
        let cx = Context {
            tables: &tables,
            state: self.engine().flows(),
            now: self.engine().now(),
        };
        let traced = datapath::trace(&cx, link, &described);
        let stages = traced.stages.into_iter().map(|stage| Stage {
            stage: stage.stage.to_owned(),
            result: stage.result,
            detail: String::new(),
        });
        let (verdict, reason, way) = match &traced.outcome {
            Ok(Exit::Wire(way)) => (Verdict::Forward, None, Some(way)),
            Ok(_) => (Verdict::Deliver, None, None),
            Err(reason) if traced.reject => (Verdict::Reject, Some(*reason), None),
            Err(reason) => (Verdict::Drop, Some(*reason), None),
        };
        Ok(Trace {
            report: TraceReport {
                stages: stages.collect(),
                verdict,
                reason: reason.map(|r| r.name().to_owned()),
                host: way.map(|w| w.host.addr),
                class: traced
                    .class
                    .and_then(|id| class_name(&inner, &packet.dev, id)),
                options: way
                    .map_or_else(Vec::new, |w| carried(link.config.encapsulation, &w.encap)),
            },
        })
    }

    /// The header of the packet that is described.
    fn header(
        &self,
        compiler: &super::compile::Compiler,
        schema: &Schema,
        link: &Link,
        packet: &TraceWords,
    ) -> Result<HeaderBytes, Refusal> {
        let labels = packet
            .labels
            .as_ref()
            .map(|labels| compiler.hashed(&labels.0))
            .transpose();
        let labels = labels.map_err(|why| Refusal::new(format!("trace: {why}"), ""))?;
        let attach = Attach {
            labels: labels.map(|set| (set, false)),
            ..Attach::default()
        };
        let given = packet.option.iter().map(|option| GeneveOption {
            class: option.class.0,
            kind: option.kind.0,
            data: &option.data,
        });
        let ether_type = if packet.from.is_ipv4() {
            ethertype::IPV4
        } else {
            ethertype::IPV6
        };
        let config = &link.config;
        if !config.encapsulation.has_options() {
            return Ok(config.encapsulation.header(config.vni, ether_type));
        }
        attach
            .header(schema, config.vni, ether_type, given)
            .map_err(|e| Refusal::new(format!("trace: {e}"), ""))
    }
}

/// The host that an inner address belongs to.
fn owner(link: &Link, addr: IpAddr) -> Option<IpAddr> {
    match &link.routes.lookup(addr)?.target {
        Target::Hosts(hosts) => hosts.first().map(|h| h.addr),
        Target::Local => None,
    }
}

fn carried(encapsulation: Encapsulation, header: &HeaderBytes) -> Vec<RawOption> {
    let Ok(envelope) = encapsulation.parse(header) else {
        return Vec::new();
    };
    let options = envelope.options().map(|option| RawOption {
        class: ClassWord(option.class),
        kind: KindWord(option.kind),
        data: option.data.to_vec(),
    });
    options.collect()
}
