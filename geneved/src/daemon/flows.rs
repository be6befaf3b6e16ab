//! Listing and flushing of flows, and the log of policy rules.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use futures_util::{StreamExt, stream};
use libgeneve::datapath::{FlowDecision, NextHop, Verdict};
use libgeneve::drop::DropReason;
use libgeneve::flow::{
    FlowCursor, FlowDirection as FlowSide, FlowKey, FlowState as Progress, FlowView,
};
use libgeneve::time::Now;
use libgeneve::vpc::LinkIndex;

use super::core::{Core, CoreState};
use crate::config::args::FlowFilter;
use crate::config::value::{FlowStateValue, IfName, ObjectName, PrefixValue, ProtocolValue};
use crate::control::protocol::{
    CallFailure, DirectionCounts, EventKind, FlowInfo, FlowsReply, FlushReply, LogEvent, Topic,
    TraceVerdict, TranslatedFlow,
};
use crate::control::server::ReplyStream;
use crate::control::yielding::Yielder;
use crate::refusal::Refusal;

/// Maximum number of flows listed if the client takes a single reply.
const MAX_LISTED: u32 = 1_000;
/// Number of flows in one reply of a stream.
const FLOWS_PER_REPLY: usize = 256;

/// Iteration over the flow table in steps that do not block the control side, however many flows there are.
struct FlowWalk {
    filter: FlowFilter,
    names: BTreeMap<LinkIndex, IfName>,
    cursor: FlowCursor,
    /// Number of flows still to be listed.
    left: usize,
    /// Number of flows that matched the filter so far.
    total: u64,
    ended: bool,
}

impl FlowWalk {
    async fn new(core: &Core, filter: FlowFilter, limit: u32) -> Result<Self, Refusal> {
        let inner = core.inner().await;
        super::show::check(&inner, filter.dev.as_ref())?;
        Ok(FlowWalk {
            filter,
            names: names(&inner),
            cursor: FlowCursor::default(),
            left: limit as usize,
            total: 0,
            ended: false,
        })
    }

    /// Returns the next flows, about `most` of them if so many are left, and the number of matches so far.
    async fn next(&mut self, core: &Core, most: usize) -> FlowsReply {
        let now = core.engine().now();
        let mut flows = Vec::new();
        while !self.ended && flows.len() < most {
            {
                let inner = core.inner().await;
                let (filter, names) = (&self.filter, &self.names);
                let (left, total) = (&mut self.left, &mut self.total);
                let table = &core.engine().flows().flows;
                self.ended = !table.for_some(&mut self.cursor, now, |view| {
                    if !admits(filter, names, view) {
                        return;
                    }
                    *total += 1;
                    if *left > 0
                        && let Some(info) = info(&inner, names, view, now)
                    {
                        *left -= 1;
                        flows.push(info);
                    }
                });
            }
            tokio::task::yield_now().await;
        }
        let total = self.total;
        FlowsReply { flows, total }
    }
}

impl Core {
    /// Lists the flows that match a filter: at most `limit`, and at most as many as one reply may hold.
    pub(super) async fn list_flows(
        &self,
        filter: FlowFilter,
        limit: u32,
    ) -> Result<FlowsReply, Refusal> {
        let mut walk = FlowWalk::new(self, filter, limit.min(MAX_LISTED)).await?;
        Ok(walk.next(self, usize::MAX).await)
    }

    /// Streams the flows that match a filter, at most `limit`; each reply has the total so far.
    pub(super) async fn stream_flows(
        self: Rc<Self>,
        filter: FlowFilter,
        limit: u32,
    ) -> Result<ReplyStream, CallFailure> {
        let walk = FlowWalk::new(&self, filter, limit).await?;
        let replies = stream::unfold((self, walk), async |(core, mut walk)| {
            if walk.ended {
                return None;
            }
            let flows = walk.next(&core, FLOWS_PER_REPLY).await;
            let reply = serde_json::to_value(flows).expect("flows have a form in JSON");
            Some((reply, (core, walk)))
        });
        Ok(replies.boxed_local())
    }

    /// Flushes the flows that match a filter; their next packets are decided anew.
    pub(super) async fn flush_flows(&self, filter: FlowFilter) -> Result<FlushReply, Refusal> {
        let inner = self.inner().await;
        super::show::check(&inner, filter.dev.as_ref())?;
        let names = names(&inner);
        drop(inner);
        let (mut count, mut cursor) = (0, FlowCursor::default());
        let mut steps = Yielder::default();
        let flows = &self.engine().flows().flows;
        while let Some(ended) = flows.flush_some(&mut cursor, |view| admits(&filter, &names, view))
        {
            count += ended;
            steps.yield_if_due().await;
        }
        Ok(FlushReply { count })
    }

    /// Expires flows, and writes the log entries of policy rules.
    pub(super) async fn expire_flows(&self) {
        self.engine().flows().expire(self.engine().now());
        self.expire_learned();
        let (logged, suppressed) = self.engine().flows().log.take();
        if logged.is_empty() {
            return;
        }
        let inner = self.inner().await;
        let names = names(&inner);
        let tables = self.engine().tables();
        // Suppressed entries are reported with the first one that is logged.
        let mut left_out = suppressed;
        for entry in logged {
            let link = tables
                .link(entry.key.link)
                // Rule numbers are valid only as long as no rule has changed.
                .filter(|_| tables.is_current(entry.key.link, entry.epoch, |_| false));
            let policy = link.and_then(|l| l.config.functions.policy.as_ref());
            let rule = policy
                .and_then(|p| p.rule(entry.rule))
                .map_or("(changed)", |r| r.name.as_str());
            let FlowKey {
                src,
                dst,
                sport,
                dport,
                protocol,
                ..
            } = entry.key;
            let verdict = match entry.verdict {
                Verdict::Forward => "allow",
                Verdict::Drop(_) => "deny",
                Verdict::Reject => "reject",
            };
            if let (Some(dev), true) = (names.get(&entry.key.link), self.hub().wants(Topic::Log)) {
                self.hub().announce(EventKind::Log(LogEvent {
                    dev: dev.clone(),
                    rule: rule.parse().ok(),
                    verdict: verdict.into(),
                    src,
                    dst,
                    proto: ProtocolValue(protocol),
                    sport,
                    dport,
                    suppressed: std::mem::take(&mut left_out),
                }));
            }
            let link = names.get(&entry.key.link).map_or("-", |n| n.as_str());
            tracing::info!(target: "geneved::policy", link, rule, verdict, %src, sport, %dst, dport, protocol, "link \"{link}\": rule \"{rule}\" says {verdict} to {}", described(&entry.key));
        }
        if suppressed > 0 {
            tracing::info!(target: "geneved::policy", suppressed, "{suppressed} further flows were not logged");
        }
    }
}

/// Human-readable form of a flow: `TCP from 10.0.0.1:50000 to 10.0.0.2:80`, or `ICMP from 10.0.0.1 to 10.0.0.2`.
fn described(key: &FlowKey) -> String {
    let proto = ProtocolValue(key.protocol);
    let name = match proto.to_string() {
        number if number.starts_with(|c: char| c.is_ascii_digit()) => format!("protocol {number}"),
        name => name.to_uppercase(),
    };
    let (from, to) = (proto.at(key.src, key.sport), proto.at(key.dst, key.dport));
    format!("{name} from {from} to {to}")
}

pub(super) fn names(inner: &CoreState) -> BTreeMap<LinkIndex, IfName> {
    let running = inner.running.iter();
    running.map(|(name, r)| (r.index, name.clone())).collect()
}

fn admits(
    filter: &FlowFilter,
    names: &BTreeMap<LinkIndex, IfName>,
    view: &FlowView<'_, FlowDecision>,
) -> bool {
    let key = view.original;
    let within = |prefix: &Option<PrefixValue>, addr: IpAddr| {
        prefix.as_ref().is_none_or(|p| p.0.contains(&addr))
    };
    let dev = filter.dev.as_ref();
    dev.is_none_or(|dev| {
        names.get(&key.link) == Some(dev) || names.get(&view.reply.link) == Some(dev)
    }) && within(&filter.from, key.src)
        && within(&filter.to, key.dst)
        && filter.proto.is_none_or(|p| p.0 == key.protocol)
        && filter.sport.is_none_or(|p| p == key.sport)
        && filter.dport.is_none_or(|p| p == key.dport)
        && filter.state.is_none_or(|s| s == state(view))
}

fn state(view: &FlowView<'_, FlowDecision>) -> FlowStateValue {
    if view.refused {
        return FlowStateValue::Refused;
    }
    match view.state {
        Progress::SynSent | Progress::SynReceived | Progress::PickedUp => FlowStateValue::HalfOpen,
        Progress::Established => FlowStateValue::Established,
        Progress::FinWait | Progress::Closed => FlowStateValue::Closed,
        Progress::Udp | Progress::UdpReplied | Progress::Icmp | Progress::Other => {
            FlowStateValue::Datagram
        }
    }
}

pub(super) fn info(
    inner: &CoreState,
    names: &BTreeMap<LinkIndex, IfName>,
    view: &FlowView<'_, FlowDecision>,
    now: Now,
) -> Option<FlowInfo> {
    let (key, reply, decision) = (view.original, view.reply, view.decision);
    let dev = names.get(&key.link)?;
    let half = decision.direction(FlowSide::Original);
    let host = [half, decision.direction(FlowSide::Reply)]
        .into_iter()
        .find_map(|half| match &half.next_hop {
            NextHop::Wire(way) => Some(way.host.addr),
            _ => None,
        });
    let came = match &half.expected_input {
        libgeneve::datapath::ExpectedInput::Wire(host) => Some(host.addr),
        _ => None,
    };
    let (verdict, reason) = match decision.verdict {
        Verdict::Forward if matches!(half.next_hop, NextHop::Tun(_)) => {
            (TraceVerdict::Deliver, None)
        }
        Verdict::Forward => (TraceVerdict::Forward, None),
        Verdict::Drop(reason) => (TraceVerdict::Drop, Some(reason)),
        Verdict::Reject => (TraceVerdict::Reject, Some(DropReason::PolicyRejected)),
    };
    let rewritten = *reply != key.reversed();
    let translated = rewritten.then(|| TranslatedFlow {
        dev: names.get(&reply.link).unwrap_or(dev).clone(),
        src: reply.dst,
        dst: reply.src,
        sport: reply.dport,
        dport: reply.sport,
    });
    let idle = now.since(view.seen);
    let side = |at: usize| DirectionCounts {
        packets: view.packets[at],
        bytes: view.bytes[at],
    };
    Some(FlowInfo {
        dev: dev.clone(),
        src: key.src,
        dst: key.dst,
        proto: ProtocolValue(key.protocol),
        sport: key.sport,
        dport: key.dport,
        translated,
        state: state(view),
        verdict,
        reason: reason.map(|r| r.name().to_owned()),
        host: host.or(came),
        class: decision.class.and_then(|id| class_name(inner, dev, id)),
        original: side(0),
        reply: side(1),
        age_s: now.since(view.created).as_secs(),
        idle_s: idle.as_secs(),
        expires_s: view.timeout.saturating_sub(idle).as_secs(),
    })
}

/// Name of the class with this ID on a link.
pub(super) fn class_name(inner: &CoreState, dev: &IfName, id: u8) -> Option<ObjectName> {
    let mut classes = inner.state.classes_of(dev);
    let found = classes.find(|(_, class)| class.id == id);
    found.map(|(name, _)| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_described_by_the_names_of_their_protocols() {
        let key = |protocol| FlowKey {
            link: LinkIndex(0),
            src: "10.0.0.1".parse().unwrap(),
            dst: "fd00::2".parse().unwrap(),
            protocol,
            sport: 50_000,
            dport: 80,
        };
        assert_eq!(
            described(&key(6)),
            "TCP from 10.0.0.1:50000 to [fd00::2]:80"
        );
        assert_eq!(described(&key(1)), "ICMP from 10.0.0.1 to fd00::2");
        assert_eq!(described(&key(99)), "protocol 99 from 10.0.0.1 to fd00::2");
    }
}
