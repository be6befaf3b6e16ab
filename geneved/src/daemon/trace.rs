//! What would become of a packet that somebody describes.
//!
//! libgeneve says what is decided; [`described`] has the packet, and [`kernel`] what the kernel does with it before and
//! after.

mod described;
mod kernel;

use std::net::IpAddr;

use libgeneve::datapath::{self, Context, Exit, Heading, Traced, Way};
use libgeneve::drop::DropReason;
use libgeneve::link;
use libgeneve::route::Target;
use libgeneve::wire::encapsulation::Encapsulation;
use libgeneve::wire::header::HeaderBytes;

use self::kernel::Underlay;
use super::core::{Core, Running};
use super::flows::class_name;
use crate::config::state::Link;
use crate::config::value::{ClassWord, KindWord, Mode, RawOption};
use crate::config::words::TraceWords;
use crate::control::protocol::{Stage, Trace, TraceReport, Verdict};
use crate::net::interface::{self, Seen};
use crate::refusal::Refusal;

/// Why no packet passes a link's interface.
struct Stopped {
    stage: datapath::Stage,
    /// What geneved counts a packet under; `None` where it gets none.
    reason: Option<DropReason>,
}

/// What is wrong with the interface of a link, if anything is.
async fn interface(link: &Link, running: &Running, heading: &Heading) -> Option<Stopped> {
    let name = &link.name;
    let stopped = |result, reason| {
        let stage = "interface";
        let stage = datapath::Stage { stage, result };
        Some(Stopped { stage, reason })
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
    let up = |seen: &Seen| seen.flags.iter().any(|flag| flag == "UP");
    match seen.ok()?.first() {
        Some(seen) if up(seen) => None,
        Some(_) => stopped(
            format!("{name} is down; \"geneved link set {name} up\" brings it up"),
            match heading {
                Heading::Ingress { .. } => Some(DropReason::TunRefused),
                Heading::Egress => None,
            },
        ),
        None => None,
    }
}

fn carries(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Forward | Verdict::Deliver)
}

impl Core {
    /// What would happen to a packet; nothing is changed.
    pub(super) async fn trace(&self, packet: TraceWords) -> Result<Trace, Refusal> {
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
        let cx = Context {
            tables: &tables,
            state: self.engine().flows(),
            now: self.engine().now(),
        };
        let traced = datapath::trace(&cx, link, &described);
        let stopped = interface(configured, running, &described.heading).await;
        match &stopped {
            Some(stopped) => stages.push(stopped.stage.clone()),
            None => {
                let stays = stays(link, &traced, described.key.dst);
                stages.extend(kernel::before(configured, &described, stays).await);
            }
        }
        let way = way(&traced);
        let encapsulation = link.config.encapsulation;
        let options = way.map_or_else(Vec::new, |way| carried(encapsulation, &way.encap));
        let class = traced
            .class
            .and_then(|id| class_name(&inner, &packet.dev, id));
        let (mut verdict, mut reason) = verdict(&traced);
        let host = way.map(|way| way.host.addr);
        if matches!(described.heading, Heading::Egress) && carries(verdict) {
            stages.extend(self.unanswered(configured, link, &traced, described.key.src));
        }
        stages.extend(traced.stages);
        if let (Some(stopped), true) = (&stopped, carries(verdict)) {
            stages.push(datapath::Stage {
                stage: "drop",
                result: match stopped.reason {
                    Some(why) => format!("{why}: {}", why.explanation()),
                    None => "the kernel drops it; geneved does not see it".to_owned(),
                },
            });
            (verdict, reason) = (Verdict::Drop, stopped.reason);
        }
        if let (Verdict::Forward, Some(host)) = (verdict, host) {
            match self.underlay(&inner, configured, host, &mut stages).await {
                Underlay::Routed => {}
                Underlay::Unreachable => verdict = Verdict::Unreachable,
                refused @ (Underlay::NoRoute | Underlay::Loop) => {
                    let why = match refused {
                        Underlay::Loop => DropReason::UnderlayLoop,
                        _ => DropReason::UnderlayUnreachable,
                    };
                    stages.push(datapath::Stage {
                        stage: "drop",
                        result: format!("{why}: {}", why.explanation()),
                    });
                    (verdict, reason) = (Verdict::Drop, Some(why));
                }
            }
        }
        let here = matches!(traced.outcome, Ok(Exit::Tun(index)) if index == running.index)
            && stopped.is_none();
        if let (Heading::Ingress { .. }, Some(key), true) =
            (&described.heading, traced.translated, here)
        {
            kernel::after(configured, &key, link.delivers(key.dst), &mut stages).await;
        }
        let stages = stages.into_iter().map(|stage| Stage {
            stage: stage.stage.to_owned(),
            result: stage.result,
            detail: String::new(),
        });
        Ok(Trace {
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

    /// That answers to a packet for another host would not be delivered, if they would not.
    fn unanswered(
        &self,
        configured: &Link,
        link: &link::Link,
        traced: &Traced,
        src: IpAddr,
    ) -> Option<datapath::Stage> {
        let left = way(traced)?;
        let translated = traced.translated.is_some_and(|key| key.src != src);
        if configured.mode != Mode::Ip || translated || link.delivers(src).is_some() {
            return None;
        }
        let remedy = self.allowing(configured, [src.into()]);
        Some(datapath::Stage {
            stage: "delivery",
            result: format!(
                "answers of {} to {src} will be dropped, because it is not behind {}; {remedy}",
                left.host.addr, configured.name
            ),
        })
    }
}

/// Whether a destination that gets nothing is behind this host, so that packets to it must not come into the link.
fn stays(link: &link::Link, traced: &Traced, dst: IpAddr) -> bool {
    let entry = link.routes.lookup(dst);
    traced.outcome.is_err() && entry.is_some_and(|e| matches!(e.target, Target::Local))
}

fn way(traced: &Traced) -> Option<&Way> {
    match &traced.outcome {
        Ok(Exit::Wire(way)) => Some(way),
        _ => None,
    }
}

fn verdict(traced: &Traced) -> (Verdict, Option<DropReason>) {
    match &traced.outcome {
        Ok(Exit::Wire(_) | Exit::Bridge(_)) => (Verdict::Forward, None),
        Ok(_) => (Verdict::Deliver, None),
        Err(reason) if traced.reject => (Verdict::Reject, Some(*reason)),
        Err(reason) => (Verdict::Drop, Some(*reason)),
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
