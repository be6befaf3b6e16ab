//! Compiled block of up to about ten thousand rules of one direction: finds the first that matches.
//!
//! The index of each condition narrows the candidates; the survivors are then checked in order for what no index
//! covers.

use rustc_hash::FxHashMap;

use super::PolicyQuery;
use super::index::{
    ExactIndex, ExactIndexBuilder, PortIndex, PortIndexBuilder, PrefixIndex, PrefixIndexBuilder,
};
use super::rule::{PolicyRule, RulePeer, has_ports, is_icmp};
use super::rule_set::{BLOCK_RULES, CandidateRules};
use super::selector_index::{SelectorIndex, SelectorIndexBuilder};
use crate::label::{HashedSelector, LabelKey};
use crate::options::{EndpointType, OptionMatch};
use crate::wire::ip::protocol;
use crate::wire::option::GeneveOption;

/// Index key of an option: class, type, and the first 4 or 8 bytes of its data if the rule compares all of their
/// bits.
type OptionKey = (u16, u8, Option<(u8, u64)>);

/// ICMP type, alone or with its code.
type IcmpKey = (u8, Option<u8>);

/// Compiled rules of one block.
#[derive(Clone, Debug)]
pub(super) struct RuleBlock {
    rules: usize,
    from: PrefixIndex,
    to: PrefixIndex,
    protocols: ExactIndex<u8>,
    sports: PortIndex,
    dports: PortIndex,
    icmp: ExactIndex<IcmpKey>,
    types: ExactIndex<EndpointType>,
    from_labels: SelectorIndex,
    to_labels: SelectorIndex,
    options: ExactIndex<OptionKey>,
    option_values: FxHashMap<u16, OptionMatch>,
}

impl RuleBlock {
    /// Most rules in one block.
    pub(super) const MAX: usize = BLOCK_RULES;

    /// Compiles up to [`RuleBlock::MAX`] rules of one direction, in order of priority. Without a key, no rule may have a
    /// selector.
    pub(super) fn compile(rules: &[PolicyRule], key: Option<&LabelKey>) -> RuleBlock {
        let mut from = PrefixIndexBuilder::default();
        let mut to = PrefixIndexBuilder::default();
        let mut protocols = ExactIndexBuilder::default();
        let mut sports = PortIndexBuilder::default();
        let mut dports = PortIndexBuilder::default();
        let mut icmp = ExactIndexBuilder::default();
        let mut types = ExactIndexBuilder::default();
        let mut from_labels = SelectorIndexBuilder::default();
        let mut to_labels = SelectorIndexBuilder::default();
        let mut options = ExactIndexBuilder::default();
        let mut option_values = FxHashMap::default();
        for (rule, position) in rules.iter().zip(0u16..) {
            let action = rule.action;
            from.add(position, action, prefix(&rule.from));
            to.add(position, action, prefix(&rule.to));
            protocols.add(position, action, protocols_of(rule));
            sports.add(position, action, &rule.sports);
            dports.add(position, action, &rule.dports);
            icmp.add(position, action, rule.icmp.map(Some));
            types.add(position, action, rule.endpoint_type.map(Some));
            from_labels.add(position, action, hashed(&rule.from, key));
            to_labels.add(position, action, hashed(&rule.to, key));
            let option = rule.option.as_ref();
            options.add(position, action, option.map(|option| [option_key(option)]));
            if let Some(option) = option.filter(|option| option.value.is_some()) {
                option_values.insert(position, option.clone());
            }
        }
        let count = rules.len();
        RuleBlock {
            rules: count,
            from: from.finish(count),
            to: to.finish(count),
            protocols: protocols.finish(count),
            sports: sports.finish(count),
            dports: dports.finish(count),
            icmp: icmp.finish(count),
            types: types.finish(count),
            from_labels: from_labels.finish(count),
            to_labels: to_labels.finish(count),
            options: options.finish(count),
            option_values,
        }
    }

    /// Returns the position of the first rule that matches.
    #[inline]
    pub(super) fn first(&self, query: &PolicyQuery<'_>) -> Option<usize> {
        let left = &mut CandidateRules::all(self.rules);
        let some = self.protocols.keep(left, std::iter::once(query.protocol))
            && self.to.keep(left, query.dst)
            && self.from.keep(left, query.src)
            && self.keep_transport(left, query)
            && self.types.keep(left, std::iter::once(query.dst_type))
            && self
                .options
                .keep(left, query.options.clone().flat_map(option_keys))
            && self.from_labels.keep(left, query.from)
            && self.to_labels.keep(left, query.to);
        if !some {
            return None;
        }
        left.iter().find(|&position| {
            let position = position as u16;
            self.from_labels.rest_matches(position, query.from)
                && self.to_labels.rest_matches(position, query.to)
                && self.option_matches(position, query)
        })
    }

    #[inline]
    fn keep_transport(&self, left: &mut CandidateRules, query: &PolicyQuery<'_>) -> bool {
        let ports = match query.ports {
            _ if !has_ports(query.protocol) => true,
            Some((sport, dport)) => self.dports.keep(left, dport) && self.sports.keep(left, sport),
            None => self.dports.keep_unknown(left) && self.sports.keep_unknown(left),
        };
        ports
            && match query.icmp {
                _ if !is_icmp(query.protocol) => true,
                _ if !own_icmp(query) => self.icmp.keep(left, std::iter::empty()),
                Some((kind, code)) => {
                    let keys = [(kind, None), (kind, Some(code))];
                    self.icmp.keep(left, keys.into_iter())
                }
                None => self.icmp.base.keep_unknown(left),
            }
    }

    #[inline]
    fn option_matches(&self, position: u16, query: &PolicyQuery<'_>) -> bool {
        self.option_values.is_empty()
            || self
                .option_values
                .get(&position)
                .is_none_or(|option| option.matches(query.options.clone()))
    }
}

/// Whether the protocol is the ICMP version that belongs to the packet's IP version.
#[inline]
fn own_icmp(query: &PolicyQuery<'_>) -> bool {
    (query.protocol == protocol::ICMP) == query.dst.is_ipv4()
}

fn prefix(who: &RulePeer) -> Option<ipnet::IpNet> {
    match who {
        RulePeer::Prefix(prefix) => Some(*prefix),
        RulePeer::Any | RulePeer::Selector(_) => None,
    }
}

fn hashed(who: &RulePeer, key: Option<&LabelKey>) -> Option<HashedSelector> {
    Some(who.selector()?.hashed(key?))
}

/// Returns the protocols that a rule can match; `None` for any.
fn protocols_of(rule: &PolicyRule) -> Option<Vec<u8>> {
    match rule.protocol {
        Some(protocol) => Some(vec![protocol]),
        None if !rule.sports.is_empty() || !rule.dports.is_empty() => {
            Some(vec![protocol::TCP, protocol::UDP])
        }
        None if rule.icmp.is_some() => Some(vec![protocol::ICMP, protocol::ICMPV6]),
        None => None,
    }
}

/// Returns the most specific key under which every option that matches `wanted` is found.
fn option_key(wanted: &OptionMatch) -> OptionKey {
    let value = wanted.value.as_ref().and_then(|(value, mask)| {
        let whole = |len: usize| mask.get(..len)?.iter().all(|&b| b == 0xff).then_some(len);
        let len = whole(8).or_else(|| whole(4))?;
        start(value, len)
    });
    (wanted.class.0, wanted.kind.0, value)
}

/// Returns every key under which a rule may ask for `option`.
#[inline]
fn option_keys(option: GeneveOption<'_>) -> impl Iterator<Item = OptionKey> {
    let starts = [None, start(option.data, 4), start(option.data, 8)];
    let (class, kind) = (option.class.0, option.kind.0);
    starts
        .into_iter()
        .enumerate()
        .filter(|(at, start)| *at == 0 || start.is_some())
        .map(move |(_, start)| (class, kind, start))
}

/// Returns the first `len` bytes (at most 8) and their number; `None` if there are fewer.
#[inline]
fn start(data: &[u8], len: usize) -> Option<(u8, u64)> {
    let bytes = data.get(..len)?;
    let value = bytes
        .iter()
        .fold(0, |value, &byte| value << 8 | u64::from(byte));
    Some((len as u8, value))
}
