//! The selectors of one side of all rules of a block, turned around: from labels to rules.
//!
//! A requirement that wants something is found by the label that fulfils it; one that forbids something, by
//! the label that breaks it. A rule's wanting requirements are spread over layers, one in each, so that the
//! rules left after all layers have all of theirs fulfilled.

use rustc_hash::FxHashMap;

use super::index::{Base, Exact, GrowingBase, GrowingExact};
use super::rule::Action;
use super::set::{Candidates, Growing, RuleSet};
use crate::label::{HashedRequirement, HashedSelector, Label, Labels, MAX_LABELS};

/// Wanting requirements of a rule that have a layer. A selector with more names a label twice or cannot
/// match: its rest is compared with the labels where the rule is left.
const LAYERS: usize = MAX_LABELS;

/// What a requirement asks about: the hash of a key, alone or with that of the pair.
type Asked = (u32, Option<u32>);

/// The index.
#[derive(Clone, Debug)]
pub(super) struct Selectors {
    base: Base,
    wanted: Box<[Exact<Asked>]>,
    forbidden: FxHashMap<Asked, RuleSet>,
    rest: FxHashMap<u16, HashedSelector>,
}

/// A [`Selectors`] that grows.
#[derive(Clone, Debug, Default)]
pub(super) struct GrowingSelectors {
    base: GrowingBase,
    wanted: [GrowingExact<Asked>; LAYERS],
    forbidden: FxHashMap<Asked, Growing>,
    rest: FxHashMap<u16, HashedSelector>,
    layers: usize,
}

impl GrowingSelectors {
    /// Adds a rule with a selector that is not empty, or without one.
    pub(super) fn add(&mut self, position: u16, action: Action, selector: Option<HashedSelector>) {
        let requirements = match selector {
            Some(selector) => {
                self.base.sometimes(position, action);
                selector.requirements
            }
            None => {
                self.base.always(position);
                Vec::new()
            }
        };
        let mut wanting = Vec::new();
        for requirement in requirements {
            match requirement {
                HashedRequirement::In { .. } | HashedRequirement::Exists(_) => {
                    wanting.push(requirement);
                }
                HashedRequirement::NotIn { key, pairs } => {
                    for &pair in &pairs {
                        self.forbid((key, Some(pair)), position);
                    }
                }
                HashedRequirement::NotExists(key) => self.forbid((key, None), position),
            }
        }
        let rest = wanting.split_off(wanting.len().min(LAYERS));
        if !rest.is_empty() {
            let requirements = HashedSelector { requirements: rest };
            self.rest.insert(position, requirements);
        }
        self.layers = self.layers.max(wanting.len());
        for (at, layer) in self.wanted.iter_mut().enumerate() {
            layer.add(position, action, wanting.get(at).map(asked));
        }
    }

    fn forbid(&mut self, asked: Asked, position: u16) {
        self.forbidden.entry(asked).or_default().add(position);
    }

    /// The index of a block of `rules`.
    pub(super) fn finish(self, rules: usize) -> Selectors {
        let layers = self.wanted.iter().take(self.layers);
        let forbidden = self.forbidden.iter();
        Selectors {
            base: self.base.finish(rules),
            wanted: layers.map(|layer| layer.finish(rules)).collect(),
            forbidden: forbidden
                .map(|(&asked, set)| (asked, set.finish(rules)))
                .collect(),
            rest: self.rest,
        }
    }
}

/// What a wanting requirement asks about.
fn asked(requirement: &HashedRequirement) -> Vec<Asked> {
    match requirement {
        HashedRequirement::In { key, pairs } => {
            pairs.iter().map(|&pair| (*key, Some(pair))).collect()
        }
        other => vec![(other.key(), None)],
    }
}

/// What these labels answer.
#[inline]
fn answers(labels: &[Label]) -> impl Iterator<Item = Asked> + '_ {
    labels
        .iter()
        .flat_map(|label| [(label.key, Some(label.pair)), (label.key, None)])
}

impl Selectors {
    /// Keeps the rules whose selector matches, but for what [`Selectors::rest_matches`] compares. Returns
    /// whether any is left.
    #[inline]
    pub(super) fn keep(&self, candidates: &mut Candidates, labels: Labels<'_>) -> bool {
        let Labels::Known(labels) = labels else {
            return self.base.keep_unknown(candidates);
        };
        if !self.forbidden.is_empty() {
            for set in answers(labels).filter_map(|asked| self.forbidden.get(&asked)) {
                candidates.remove(set);
            }
        }
        self.wanted
            .iter()
            .all(|layer| layer.keep(candidates, answers(labels)))
    }

    /// Whether a rule that [`Selectors::keep`] kept really matches.
    #[inline]
    pub(super) fn rest_matches(&self, position: u16, labels: Labels<'_>) -> bool {
        match labels {
            Labels::Known(labels) if !self.rest.is_empty() => {
                let rest = self.rest.get(&position);
                rest.is_none_or(|rest| rest.matches(labels))
            }
            _ => true,
        }
    }
}
