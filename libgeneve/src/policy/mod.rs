//! Policy: which flows a link lets through.
//!
//! Owns rules, their order, and the compiled form that decides a new flow without walking over them. The first rule
//! that matches decides, otherwise the link's default. Policy fails closed: if labels, ports or ICMP types are
//! unknown, rules that allow do not match, rules that deny or reject do.
//!
//! The flow table remembers verdicts and allows the replies of allowed flows; [`datapath`](crate::datapath) decides
//! what happens to a packet.

mod block;
mod index;
mod mismatch;
mod rule;
mod rule_set;
mod selector_index;

pub use rule::{Direction, PolicyAction, PolicyError, PolicyRule, RulePeer};

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use block::RuleBlock;

use crate::label::{LabelKey, Labels};
use crate::options::EndpointType;
use crate::wire::option::{OptionClass, OptionIter, OptionType};

/// Actions for flows that no rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyDefaults {
    /// From wire to TUN.
    pub ingress: PolicyAction,
    /// From TUN to wire.
    pub egress: PolicyAction,
}

/// Position of a rule in one [`Policy`]: ingress before egress, then by priority. Not valid in another policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

/// Policy lookup key: the first packet of a flow, as rules see it.
#[derive(Clone, Debug)]
pub struct PolicyQuery<'a> {
    /// Direction of the packet.
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
    /// Endpoint type of the destination.
    pub dst_type: EndpointType,
    /// Options of the Geneve header; none (the default) on egress.
    pub options: OptionIter<'a>,
}

/// Result of a policy lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyVerdict {
    /// What happens to the flow.
    pub action: PolicyAction,
    /// The rule that decided; `None` if it was the default.
    pub rule: Option<RuleId>,
    /// Whether the rule asks for the decision to be logged.
    pub log: bool,
    /// Id of the QoS class that the rule assigns to the flow.
    pub class: Option<u8>,
}

/// Compiled rules of a link. Immutable; a change of rules builds another policy.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Box<[PolicyRule]>,
    hits: Box<[Arc<AtomicU64>]>,
    ingress: DirectionRules,
    egress: DirectionRules,
    uses_labels: bool,
    /// Key of selector hashes; only for [`Policy::mismatches`].
    key: Option<LabelKey>,
    /// Classes and types of the options that rules match on, sorted.
    options: Box<[(OptionClass, OptionType)]>,
}

/// The rules of one direction.
#[derive(Clone, Debug)]
struct DirectionRules {
    default: PolicyAction,
    asks_transport: bool,
    blocks: Box<[(u32, RuleBlock)]>,
}

impl Policy {
    /// Compiles `rules`, given in any order. `hits` returns the hit counter for a rule's name, so that a counter can
    /// outlive a change of other rules. `key` is needed if a rule matches on labels.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] if a rule can never match, shares its name with another, or needs a label key and there is
    /// none.
    pub fn compile(
        mut rules: Vec<PolicyRule>,
        defaults: PolicyDefaults,
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
        rules.sort_by(PolicyRule::cmp_priority);
        let asked = rules.iter().filter_map(|rule| rule.option.as_ref());
        let mut options: Vec<_> = asked.map(|o| (o.class, o.kind)).collect();
        options.sort_unstable();
        options.dedup();
        let split = rules.partition_point(|rule| rule.direction == Direction::Ingress);
        let (ingress, egress) = rules.split_at(split);
        Ok(Policy {
            ingress: DirectionRules::compile(ingress, 0, defaults.ingress, key),
            egress: DirectionRules::compile(egress, split, defaults.egress, key),
            hits: rules.iter().map(|rule| hits(&rule.name)).collect(),
            rules: rules.into(),
            uses_labels,
            key: key.cloned(),
            options: options.into(),
        })
    }

    /// Decides a flow and counts a hit of the rule that decides. Does not allocate.
    #[inline]
    #[must_use]
    pub fn decide(&self, query: &PolicyQuery<'_>) -> PolicyVerdict {
        let verdict = self.explain(query);
        if let Some(hits) = verdict.rule.and_then(|id| self.hits.get(id.0 as usize)) {
            hits.fetch_add(1, Ordering::Relaxed);
        }
        verdict
    }

    /// Decides like [`Policy::decide`], without counting a hit.
    #[must_use]
    pub fn explain(&self, query: &PolicyQuery<'_>) -> PolicyVerdict {
        let side = self.side(query.direction);
        let matched = side.blocks.iter().find_map(|(base, block)| {
            let id = RuleId(base + block.first(query)? as u32);
            Some((id, self.rule(id)?))
        });
        match matched {
            Some((id, rule)) => PolicyVerdict {
                action: rule.action,
                rule: Some(id),
                log: rule.log,
                class: rule.class,
            },
            None => PolicyVerdict {
                action: side.default,
                rule: None,
                log: false,
                class: None,
            },
        }
    }

    /// The rules that are tried before the one that decides (all of the direction if none does), in order, each with
    /// the first condition that the packet does not meet, in words.
    pub fn mismatches(
        &self,
        query: &PolicyQuery<'_>,
    ) -> impl Iterator<Item = (&PolicyRule, String)> {
        let of_direction = |rule: &&PolicyRule| rule.direction == query.direction;
        let rules = self.rules.iter().filter(of_direction);
        rules.map_while(move |rule| {
            let why = mismatch::mismatch(rule, query, self.key.as_ref())?;
            Some((rule, why))
        })
    }

    /// Returns the rule of a verdict of this policy; `None` if the id is out of range, as one of another policy may
    /// be.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> Option<&PolicyRule> {
        self.rules.get(id.0 as usize)
    }

    /// All rules in the order of their ids, with their hit counts.
    pub fn rules(&self) -> impl Iterator<Item = (&PolicyRule, u64)> {
        let hits = self.hits.iter().map(|hits| hits.load(Ordering::Relaxed));
        self.rules.iter().zip(hits)
    }

    /// Whether any rule matches on labels.
    #[must_use]
    pub fn uses_labels(&self) -> bool {
        self.uses_labels
    }

    /// Whether any rule matches on this option.
    #[inline]
    #[must_use]
    pub fn asks_about(&self, class: OptionClass, kind: OptionType) -> bool {
        self.options.binary_search(&(class, kind)).is_ok()
    }

    /// Whether a rule of the direction matches on fields that only the first fragment has: ports, or the ICMP type.
    #[inline]
    #[must_use]
    pub fn asks_transport(&self, direction: Direction) -> bool {
        self.side(direction).asks_transport
    }

    /// Whether a direction has no rules, so that its default decides everything.
    #[must_use]
    pub fn is_trivial(&self, direction: Direction) -> bool {
        self.side(direction).blocks.is_empty()
    }

    #[inline]
    fn side(&self, direction: Direction) -> &DirectionRules {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl DirectionRules {
    fn compile(
        rules: &[PolicyRule],
        base: usize,
        default: PolicyAction,
        key: Option<&LabelKey>,
    ) -> DirectionRules {
        let blocks = rules.chunks(RuleBlock::MAX).enumerate().map(|(at, rules)| {
            let base = base + at * RuleBlock::MAX;
            (base as u32, RuleBlock::compile(rules, key))
        });
        DirectionRules {
            default,
            asks_transport: rules.iter().any(PolicyRule::asks_transport),
            blocks: blocks.collect(),
        }
    }
}

#[cfg(test)]
mod tests;
