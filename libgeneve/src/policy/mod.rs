//! Policy: which flows a link lets through.
//!
//! Owns rules, their order, and the compiled form that decides a new flow without walking over them. The
//! first rule that matches decides, else the link's default. What cannot be decided is never allowed: a rule
//! that allows does not match labels, ports or ICMP types that are not known, one that denies or rejects does.
//!
//! That replies of an allowed flow are allowed is the flow table's, which remembers the verdict; what
//! becomes of a packet is [`datapath`](crate::datapath)'s.

mod block;
mod index;
mod labels;
mod mismatch;
mod rule;
mod set;

pub use rule::{Action, Direction, PolicyError, Rule, Who};

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use block::Block;

use crate::label::{LabelKey, Labels};
use crate::options::EndpointType;
use crate::wire::option::{OptionClass, OptionIter, OptionType};

/// What happens to a flow that no rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// From wire to TUN.
    pub ingress: Action,
    /// From TUN to wire.
    pub egress: Action,
}

/// A rule's place in one [`Policy`]: ingress before egress, then by priority. It means nothing in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

/// What is asked about a flow: its first packet, as the rules see it.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// The way of the packet.
    pub direction: Direction,
    /// The inner source.
    pub src: IpAddr,
    /// The inner destination.
    pub dst: IpAddr,
    /// The inner transport protocol.
    pub protocol: u8,
    /// Source and destination port of TCP or UDP; `None` where they cannot be read, as in a later fragment.
    pub ports: Option<(u16, u16)>,
    /// Type and code of ICMP or ICMPv6; `None` where they cannot be read.
    pub icmp: Option<(u8, u8)>,
    /// The labels of the source.
    pub from: Labels<'a>,
    /// The labels of the destination.
    pub to: Labels<'a>,
    /// What the destination is.
    pub dst_type: EndpointType,
    /// The options of the Geneve header; none (the default) on egress.
    pub options: OptionIter<'a>,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What happens to the flow.
    pub action: Action,
    /// The rule that decided; `None` for the default.
    pub rule: Option<RuleId>,
    /// Whether the rule wants the decision reported.
    pub log: bool,
    /// The id of the QoS class that the rule gives the flow.
    pub class: Option<u8>,
}

/// The rules of a link, compiled. It never changes: other rules are another policy.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Box<[Rule]>,
    hits: Box<[Arc<AtomicU64>]>,
    ingress: Side,
    egress: Side,
    uses_labels: bool,
    /// What selectors are hashed with; only for [`Policy::passed_over`].
    key: Option<LabelKey>,
    /// Classes and types of the options that rules ask about, sorted.
    options: Box<[(OptionClass, OptionType)]>,
}

/// The rules of one direction.
#[derive(Clone, Debug)]
struct Side {
    default: Action,
    asks_transport: bool,
    blocks: Box<[(u32, Block)]>,
}

impl Policy {
    /// Compiles `rules`, in any order. `hits` gives the counter of a rule by its name, which lets a counter
    /// outlive a change of other rules. `key` is needed where a rule asks about labels.
    ///
    /// # Errors
    ///
    /// As [`PolicyError`] says: rules that can never match, that share a name, or that need a key which
    /// is not there.
    pub fn compile(
        mut rules: Vec<Rule>,
        defaults: Defaults,
        key: Option<&LabelKey>,
        hits: &mut impl FnMut(&str) -> Arc<AtomicU64>,
    ) -> Result<Policy, PolicyError> {
        if u32::try_from(rules.len()).is_err() {
            return Err(PolicyError::TooMany(rules.len()));
        }
        let mut uses_labels = false;
        let mut names = HashSet::with_capacity(rules.len());
        for rule in &rules {
            rule.check()?;
            if !names.insert(rule.name.as_str()) {
                return Err(PolicyError::DuplicateName(rule.name.clone()));
            }
            if rule.from.selector().is_some() || rule.to.selector().is_some() {
                key.ok_or_else(|| PolicyError::NoLabelKey(rule.name.clone()))?;
                uses_labels = true;
            }
        }
        drop(names);
        rules.sort_by(Rule::cmp_priority);
        let asked = rules.iter().filter_map(|rule| rule.option.as_ref());
        let mut options: Vec<_> = asked.map(|o| (o.class, o.kind)).collect();
        options.sort_unstable();
        options.dedup();
        let split = rules.partition_point(|rule| rule.direction == Direction::Ingress);
        let (ingress, egress) = rules.split_at(split);
        Ok(Policy {
            ingress: Side::compile(ingress, 0, defaults.ingress, key),
            egress: Side::compile(egress, split, defaults.egress, key),
            hits: rules.iter().map(|rule| hits(&rule.name)).collect(),
            rules: rules.into(),
            uses_labels,
            key: key.cloned(),
            options: options.into(),
        })
    }

    /// Decides a flow, and counts a hit of the rule that does. Allocates nothing.
    #[inline]
    #[must_use]
    pub fn decide(&self, query: &Query<'_>) -> Verdict {
        let verdict = self.explain(query);
        if let Some(hits) = verdict.rule.and_then(|id| self.hits.get(id.0 as usize)) {
            hits.fetch_add(1, Ordering::Relaxed);
        }
        verdict
    }

    /// The decision of [`Policy::decide`], without counting it.
    #[must_use]
    pub fn explain(&self, query: &Query<'_>) -> Verdict {
        let side = self.side(query.direction);
        let matched = side.blocks.iter().find_map(|(base, block)| {
            let id = RuleId(base + block.first(query)? as u32);
            Some((id, self.rule(id)?))
        });
        match matched {
            Some((id, rule)) => Verdict {
                action: rule.action,
                rule: Some(id),
                log: rule.log,
                class: rule.class,
            },
            None => Verdict {
                action: side.default,
                rule: None,
                log: false,
                class: None,
            },
        }
    }

    /// The rules that are asked before the one that decides, or all of the direction where none does, in their order:
    /// each with the first of its conditions that the packet does not fulfil, in words.
    pub fn passed_over(&self, query: &Query<'_>) -> impl Iterator<Item = (&Rule, String)> {
        let of_direction = |rule: &&Rule| rule.direction == query.direction;
        let rules = self.rules.iter().filter(of_direction);
        rules.map_while(move |rule| {
            let why = mismatch::mismatch(rule, query, self.key.as_ref())?;
            Some((rule, why))
        })
    }

    /// The rule of a verdict of this policy; `None` for an id of another one that has no such rule here.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> Option<&Rule> {
        self.rules.get(id.0 as usize)
    }

    /// All rules in the order of their ids, with the hits counted for each.
    pub fn rules(&self) -> impl Iterator<Item = (&Rule, u64)> {
        let hits = self.hits.iter().map(|hits| hits.load(Ordering::Relaxed));
        self.rules.iter().zip(hits)
    }

    /// Whether any rule asks about labels.
    #[must_use]
    pub fn uses_labels(&self) -> bool {
        self.uses_labels
    }

    /// Whether any rule asks about this option.
    #[inline]
    #[must_use]
    pub fn asks_about(&self, class: OptionClass, kind: OptionType) -> bool {
        self.options.binary_search(&(class, kind)).is_ok()
    }

    /// Whether a rule of the direction asks for what only a packet's first fragment has: ports, or an ICMP type.
    #[inline]
    #[must_use]
    pub fn asks_transport(&self, direction: Direction) -> bool {
        self.side(direction).asks_transport
    }

    /// Whether a direction has no rule, so that its default decides everything.
    #[must_use]
    pub fn is_trivial(&self, direction: Direction) -> bool {
        self.side(direction).blocks.is_empty()
    }

    #[inline]
    fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl Side {
    fn compile(rules: &[Rule], base: usize, default: Action, key: Option<&LabelKey>) -> Side {
        let blocks = rules.chunks(Block::MAX).enumerate().map(|(at, rules)| {
            let base = base + at * Block::MAX;
            (base as u32, Block::compile(rules, key))
        });
        Side {
            default,
            asks_transport: rules.iter().any(Rule::asks_transport),
            blocks: blocks.collect(),
        }
    }
}

#[cfg(test)]
mod tests;
