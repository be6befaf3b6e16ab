//! Trace of a described packet: what would happen to it.
//!
//! libgeneve reports the decisions; [`described`] builds the packet, and [`kernel`] adds what the kernel does with it
//! before and after.

mod described;
mod kernel;

use std::net::IpAddr;

use libgeneve::datapath::{self, NextHop, PacketContext, TraceInput, TraceResult, TunnelNextHop};
use libgeneve::drop::DropReason;
use libgeneve::route::RouteTarget;
use libgeneve::vpc;
use libgeneve::wire::encapsulation::Encapsulation;
use libgeneve::wire::header::HeaderBytes;

use self::kernel::UnderlayRoute;
use super::core::{Core, LinkRuntime};
use super::flows::class_name;
use crate::config::args::TraceArgs;
use crate::config::state::LinkSpec;
use crate::config::value::{ModeValue, OptionClassValue, OptionTypeValue, RawOption};
use crate::control::protocol::{StageInfo, TraceReply, TraceReport, TraceVerdict};
use crate::net::interface::{self, InterfaceStatus};
use crate::refusal::Refusal;

/// Why a link's interface passes no packets.
struct KernelDrop {
    stage: datapath::TraceStage,
    /// Reason that the drop is counted under; `None` if geneved does not get the packet.
    reason: Option<DropReason>,
}

/// The problem with a link's interface, if there is one.
async fn interface(
    link: &LinkSpec,
    running: &LinkRuntime,
    heading: &TraceInput,
) -> Option<KernelDrop> {
    let name = &link.name;
    let stopped = |result, reason| {
        let stage = "interface";
        let stage = datapath::TraceStage { stage, result };
        Some(KernelDrop { stage, reason })
    };
    if let Some(obstacle) = &running.obstacle {
        let state = obstacle.state();
        let reason = match running.has_interface() {
            true => DropReason::UnderlayUnreachable,
            false => DropReason::LinkGone,
        };
        return stopped(
            format!("{name} is {state}: {}", obstacle.cause()),
            Some(reason),
        );
    }
    let seen = interface::observe(link.netns.clone(), vec![name.to_string()]).await;
    let up = |seen: &InterfaceStatus| seen.flags.iter().any(|flag| flag == "UP");
    match seen.ok()?.first() {
        Some(seen) if up(seen) => None,
        Some(_) => stopped(
            format!("{name} is down; \"geneved link set {name} up\" brings it up"),
            match heading {
                TraceInput::Ingress { .. } => Some(DropReason::TunRefused),
                TraceInput::Egress => None,
            },
        ),
        None => None,
    }
}

fn is_forwarded(verdict: TraceVerdict) -> bool {
    matches!(verdict, TraceVerdict::Forward | TraceVerdict::Deliver)
}

impl Core {
    /// Traces a packet; changes nothing.
    pub(super) async fn trace(&self, packet: TraceArgs) -> Result<TraceReply, Refusal> {
        let inner = self.inner().await;
        let configured = inner.state.link(&packet.dev)?;
        described::check(&packet)?;
        let lost = || {
            Refusal::new(
                format!("link \"{}\" does not run", packet.dev),
                "\"geneved link show\" says why",
            )
        };
        let running = inner.running.get(&packet.dev).ok_or_else(lost)?;
        let tables = self.engine().tables();
        let link = tables.link(running.index).ok_or_else(lost)?;
        let compiled = (&*inner.state, &inner.builder.compiler, &*tables.schema);
        let (described, mut stages) = described::described(compiled, link, &packet)?;
        let cx = PacketContext {
            tables: &tables,
            state: self.engine().flows(),
            now: self.engine().now(),
        };
        let traced = datapath::trace(&cx, link, &described);
        let stopped = interface(configured, running, &described.trace_input).await;
        match &stopped {
            Some(stopped) => stages.push(stopped.stage.clone()),
            None => {
                let stays = is_behind_host(link, &traced, described.key.dst);
                stages.extend(kernel::before(configured, &described, stays).await);
            }
        }
        let tunnel = next_hop(&traced);
        let encapsulation = link.config.encapsulation;
        let options = tunnel.map_or_else(Vec::new, |tunnel| carried(encapsulation, &tunnel.encap));
        let class = traced
            .class
            .and_then(|id| class_name(&inner, &packet.dev, id));
        let (mut verdict, mut reason) = verdict(&traced);
        let host = tunnel.map(|tunnel| tunnel.host.addr);
        if matches!(described.trace_input, TraceInput::Egress) && is_forwarded(verdict) {
            stages.extend(self.unanswered(configured, link, &traced, described.key.src));
        }
        stages.extend(traced.stages);
        if let (Some(stopped), true) = (&stopped, is_forwarded(verdict)) {
            stages.push(datapath::TraceStage {
                stage: "drop",
                result: match stopped.reason {
                    Some(why) => format!("{why}: {}", why.explanation()),
                    None => "the kernel drops it; geneved does not see it".to_owned(),
                },
            });
            (verdict, reason) = (TraceVerdict::Drop, stopped.reason);
        }
        if let (TraceVerdict::Forward, Some(host)) = (verdict, host) {
            match self.underlay(&inner, configured, host, &mut stages).await {
                UnderlayRoute::Routed => {}
                UnderlayRoute::Unreachable => verdict = TraceVerdict::Unreachable,
                refused @ (UnderlayRoute::NoRoute | UnderlayRoute::Loop) => {
                    let why = match refused {
                        UnderlayRoute::Loop => DropReason::UnderlayLoop,
                        _ => DropReason::UnderlayUnreachable,
                    };
                    stages.push(datapath::TraceStage {
                        stage: "drop",
                        result: format!("{why}: {}", why.explanation()),
                    });
                    (verdict, reason) = (TraceVerdict::Drop, Some(why));
                }
            }
        }
        let here = matches!(traced.outcome, Ok(NextHop::Tun(index)) if index == running.index)
            && stopped.is_none();
        if let (TraceInput::Ingress { .. }, Some(key), true) =
            (&described.trace_input, traced.translated, here)
        {
            kernel::after(configured, &key, link.delivers(key.dst), &mut stages).await;
        }
        let stages = stages.into_iter().map(|stage| StageInfo {
            stage: stage.stage.to_owned(),
            result: stage.result,
            detail: String::new(),
        });
        Ok(TraceReply {
            report: TraceReport {
                stages: stages.collect(),
                verdict,
                reason: reason.map(|r| r.name().to_owned()),
                host,
                class,
                options,
            },
        })
    }

    /// Warns if answers to a packet for another host would not be delivered.
    fn unanswered(
        &self,
        configured: &LinkSpec,
        link: &vpc::Link,
        traced: &TraceResult,
        src: IpAddr,
    ) -> Option<datapath::TraceStage> {
        let left = next_hop(traced)?;
        let translated = traced.translated.is_some_and(|key| key.src != src);
        if configured.mode != ModeValue::Ip || translated || link.delivers(src).is_some() {
            return None;
        }
        let remedy = self.allowing(configured, [src.into()]);
        Some(datapath::TraceStage {
            stage: "delivery",
            result: format!(
                "answers of {} to {src} will be dropped, because it is not behind {}; {remedy}",
                left.host.addr, configured.name
            ),
        })
    }
}

/// Whether a destination without a next hop is behind this host, so that packets to it must not enter the link.
fn is_behind_host(link: &vpc::Link, traced: &TraceResult, dst: IpAddr) -> bool {
    let entry = link.routes.lookup(dst);
    traced.outcome.is_err() && entry.is_some_and(|e| matches!(e.target, RouteTarget::Local))
}

fn next_hop(traced: &TraceResult) -> Option<&TunnelNextHop> {
    match &traced.outcome {
        Ok(NextHop::Wire(tunnel)) => Some(tunnel),
        _ => None,
    }
}

fn verdict(traced: &TraceResult) -> (TraceVerdict, Option<DropReason>) {
    match &traced.outcome {
        Ok(NextHop::Wire(_) | NextHop::Bridge(_)) => (TraceVerdict::Forward, None),
        Ok(_) => (TraceVerdict::Deliver, None),
        Err(reason) if traced.reject => (TraceVerdict::Reject, Some(*reason)),
        Err(reason) => (TraceVerdict::Drop, Some(*reason)),
    }
}

fn carried(encapsulation: Encapsulation, header: &HeaderBytes) -> Vec<RawOption> {
    let Ok(envelope) = encapsulation.parse(header) else {
        return Vec::new();
    };
    let options = envelope.options().map(|option| RawOption {
        class: OptionClassValue(option.class),
        kind: OptionTypeValue(option.kind),
        data: option.data.to_vec(),
    });
    options.collect()
}
