//! Inverted indexes: for one condition of a block's rules, from a packet's value to the rules that ask for it.
//!
//! Each index also holds the rules without the condition, and those that match even if the packet does not reveal the
//! value. Labels have an index of their own, in a separate file.

use std::hash::Hash;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::{Prefix, PrefixMap};
use rustc_hash::FxHashMap;

use super::rule::PolicyAction;
use super::rule_set::{CandidateRules, RuleSet, RuleSetBuilder};

/// The part of an index that does not depend on the packet's value.
#[derive(Clone, Debug)]
pub(super) struct BaseRules {
    /// Rules without the condition.
    always: Box<[u64]>,
    /// Rules that match if the packet does not reveal the value.
    unknown: Box<[u64]>,
    /// Whether any rule has the condition.
    narrows: bool,
}

/// Builder of a [`BaseRules`].
#[derive(Clone, Debug, Default)]
pub(super) struct BaseRulesBuilder {
    always: RuleSetBuilder,
    unknown: RuleSetBuilder,
}

impl BaseRulesBuilder {
    /// Adds a rule without the condition.
    pub(super) fn always(&mut self, position: u16) {
        self.always.add(position);
        self.unknown.add(position);
    }

    /// Adds a rule with the condition.
    pub(super) fn sometimes(&mut self, position: u16, action: PolicyAction) {
        if action.where_unknown() {
            self.unknown.add(position);
        }
    }

    /// Builds the base of a block of `rules` rules.
    pub(super) fn finish(&self, rules: usize) -> BaseRules {
        BaseRules {
            always: self.always.finish_bits(rules),
            unknown: self.unknown.finish_bits(rules),
            narrows: self.always.len() != rules,
        }
    }
}

impl BaseRules {
    /// Keeps the rules without the condition and those in `sets`. Returns whether any is left.
    #[inline]
    pub(super) fn keep<'s>(
        &self,
        candidates: &mut CandidateRules,
        sets: impl Iterator<Item = &'s RuleSet>,
    ) -> bool {
        !self.narrows || candidates.keep(&self.always, sets)
    }

    /// Keeps the rules that match if the value is unknown. Returns whether any is left.
    #[inline]
    pub(super) fn keep_unknown(&self, candidates: &mut CandidateRules) -> bool {
        !self.narrows || candidates.keep(&self.unknown, std::iter::empty())
    }
}

/// Index by exact value; a rule may ask for one value or any of several.
#[derive(Clone, Debug)]
pub(super) struct ExactIndex<K> {
    pub(super) base: BaseRules,
    sets: FxHashMap<K, RuleSet>,
}

/// Builder of an [`ExactIndex`].
#[derive(Clone, Debug)]
pub(super) struct ExactIndexBuilder<K> {
    base: BaseRulesBuilder,
    sets: FxHashMap<K, RuleSetBuilder>,
}

impl<K> Default for ExactIndexBuilder<K> {
    fn default() -> Self {
        ExactIndexBuilder {
            base: BaseRulesBuilder::default(),
            sets: FxHashMap::default(),
        }
    }
}

impl<K: Copy + Eq + Hash> ExactIndexBuilder<K> {
    /// Adds a rule that asks for any of `values`, or that has no such condition.
    pub(super) fn add(
        &mut self,
        position: u16,
        action: PolicyAction,
        values: Option<impl IntoIterator<Item = K>>,
    ) {
        let Some(values) = values else {
            return self.base.always(position);
        };
        self.base.sometimes(position, action);
        for value in values {
            self.sets.entry(value).or_default().add(position);
        }
    }

    /// Builds the index of a block of `rules` rules.
    pub(super) fn finish(&self, rules: usize) -> ExactIndex<K> {
        let finish = |(&value, set): (&K, &RuleSetBuilder)| (value, set.finish(rules));
        ExactIndex {
            base: self.base.finish(rules),
            sets: self.sets.iter().map(finish).collect(),
        }
    }
}

impl<K: Copy + Eq + Hash> ExactIndex<K> {
    /// Returns the rules that ask for `value`.
    #[inline]
    pub(super) fn get(&self, value: K) -> Option<&RuleSet> {
        self.sets.get(&value)
    }

    /// Keeps the rules that ask for one of the packet's `values`, and those without the condition. Returns whether
    /// any is left.
    #[inline]
    pub(super) fn keep(
        &self,
        candidates: &mut CandidateRules,
        values: impl Iterator<Item = K>,
    ) -> bool {
        self.base
            .keep(candidates, values.filter_map(|value| self.get(value)))
    }
}

/// Index by address prefix.
///
/// Each prefix holds its own rules and a link to the next shorter prefix that covers it, so that memory grows
/// linearly with the rules, not quadratically.
#[derive(Clone, Debug)]
pub(super) struct PrefixIndex {
    base: BaseRules,
    v4: PrefixMap<Ipv4Net, u32>,
    v6: PrefixMap<Ipv6Net, u32>,
    nodes: Box<[PrefixNode]>,
}

#[derive(Clone, Debug)]
struct PrefixNode {
    set: RuleSet,
    covered_by: Option<u32>,
}

/// Builder of a [`PrefixIndex`].
#[derive(Clone, Debug, Default)]
pub(super) struct PrefixIndexBuilder {
    base: BaseRulesBuilder,
    v4: PrefixMap<Ipv4Net, u32>,
    v6: PrefixMap<Ipv6Net, u32>,
    sets: Vec<(IpNet, RuleSetBuilder)>,
}

impl PrefixIndexBuilder {
    /// Adds a rule that asks for `prefix`, or that has no such condition.
    pub(super) fn add(&mut self, position: u16, action: PolicyAction, prefix: Option<IpNet>) {
        let Some(prefix) = prefix.map(|prefix| prefix.trunc()) else {
            return self.base.always(position);
        };
        self.base.sometimes(position, action);
        let next = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        let node = match prefix {
            IpNet::V4(net) => *self.v4.entry(net).or_insert(next),
            IpNet::V6(net) => *self.v6.entry(net).or_insert(next),
        };
        if node == next {
            self.sets.push((prefix, RuleSetBuilder::default()));
        }
        if let Some((_, set)) = self.sets.get_mut(node as usize) {
            set.add(position);
        }
    }

    /// Builds the index of a block of `rules` rules.
    pub(super) fn finish(self, rules: usize) -> PrefixIndex {
        let covered_by = |prefix: &IpNet| match prefix {
            IpNet::V4(net) => longest(&self.v4, &net.supernet()?),
            IpNet::V6(net) => longest(&self.v6, &net.supernet()?),
        };
        let finish = |(prefix, set): &(IpNet, RuleSetBuilder)| PrefixNode {
            set: set.finish(rules),
            covered_by: covered_by(prefix),
        };
        PrefixIndex {
            base: self.base.finish(rules),
            nodes: self.sets.iter().map(finish).collect(),
            v4: self.v4,
            v6: self.v6,
        }
    }
}

fn longest<P: Prefix>(map: &PrefixMap<P, u32>, prefix: &P) -> Option<u32> {
    map.get_lpm(prefix).map(|(_, &node)| node)
}

impl PrefixIndex {
    /// Keeps the rules whose prefix covers `addr`, and those without a prefix. Returns whether any is left.
    #[inline]
    pub(super) fn keep(&self, candidates: &mut CandidateRules, addr: IpAddr) -> bool {
        if !self.base.narrows {
            return true;
        }
        let innermost = match addr {
            IpAddr::V4(addr) => longest(&self.v4, &addr.into()),
            IpAddr::V6(addr) => longest(&self.v6, &addr.into()),
        };
        let node = |at: u32| self.nodes.get(at as usize);
        let covering = std::iter::successors(innermost.and_then(node), |inner| {
            inner.covered_by.and_then(node)
        });
        self.base.keep(candidates, covering.map(|node| &node.set))
    }
}

/// Index by port range: a segment tree over the intervals between the ends of all ranges.
///
/// A range is stored in the few nodes that make it up; a port matches the nodes on the path from its interval to the
/// root.
#[derive(Clone, Debug)]
pub(super) struct PortIndex {
    base: BaseRules,
    /// First port of each interval, ascending, from 0.
    starts: Box<[u16]>,
    /// Twice as many as intervals; the root is 1, the children of `n` are `2n` and `2n + 1`.
    nodes: Box<[RuleSet]>,
}

/// Builder of a [`PortIndex`].
#[derive(Clone, Debug, Default)]
pub(super) struct PortIndexBuilder {
    base: BaseRulesBuilder,
    ranges: Vec<(u16, RangeInclusive<u16>)>,
}

impl PortIndexBuilder {
    /// Adds a rule that asks for a port in any of `ranges`; if there are none, the rule has no such condition.
    pub(super) fn add(
        &mut self,
        position: u16,
        action: PolicyAction,
        ranges: &[RangeInclusive<u16>],
    ) {
        if ranges.is_empty() {
            return self.base.always(position);
        }
        self.base.sometimes(position, action);
        let ranges = ranges.iter().map(|range| (position, range.clone()));
        self.ranges.extend(ranges);
    }

    /// Builds the index of a block of `rules` rules.
    pub(super) fn finish(&self, rules: usize) -> PortIndex {
        let ends = self.ranges.iter().flat_map(|(_, range)| {
            let after = range.end().checked_add(1);
            [Some(*range.start()), after].into_iter().flatten()
        });
        let mut starts: Vec<u16> = std::iter::once(0).chain(ends).collect();
        starts.sort_unstable();
        starts.dedup();
        let parts = starts.len();
        let mut nodes = vec![RuleSetBuilder::default(); 2 * parts];
        for (position, range) in &self.ranges {
            let mut low = parts + starts.partition_point(|start| start < range.start());
            let mut high = parts + starts.partition_point(|start| start <= range.end());
            while low < high {
                if low % 2 == 1 {
                    nodes[low].add(*position);
                    low += 1;
                }
                if high % 2 == 1 {
                    high -= 1;
                    nodes[high].add(*position);
                }
                (low, high) = (low / 2, high / 2);
            }
        }
        PortIndex {
            base: self.base.finish(rules),
            starts: starts.into(),
            nodes: nodes.iter().map(|set| set.finish(rules)).collect(),
        }
    }
}

impl PortIndex {
    /// Keeps the rules that ask for `port`, and those without the condition. Returns whether any is left.
    #[inline]
    pub(super) fn keep(&self, candidates: &mut CandidateRules, port: u16) -> bool {
        if !self.base.narrows {
            return true;
        }
        let parts = self.starts.len();
        let part = self.starts.partition_point(|&start| start <= port);
        let leaf = (parts + part).checked_sub(1);
        let above = std::iter::successors(leaf, |&node| (node > 1).then_some(node / 2));
        self.base
            .keep(candidates, above.filter_map(|node| self.nodes.get(node)))
    }

    /// Keeps the rules that match if the ports cannot be read. Returns whether any is left.
    #[inline]
    pub(super) fn keep_unknown(&self, candidates: &mut CandidateRules) -> bool {
        self.base.keep_unknown(candidates)
    }
}
