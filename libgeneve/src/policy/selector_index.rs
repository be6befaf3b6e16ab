//! Inverted index of the selectors of one side of a block's rules: from labels to rules.
//!
//! A positive requirement (`In`, `Exists`) is found by a label that meets it, a negative one (`NotIn`, `NotExists`)
//! by a label that violates it. The positive requirements of a rule are spread over layers, one in each, so that a
//! rule that survives all layers has all of them met.

use rustc_hash::FxHashMap;

use super::index::{BaseRules, BaseRulesBuilder, ExactIndex, ExactIndexBuilder};
use super::rule::PolicyAction;
use super::rule_set::{CandidateRules, RuleSet, RuleSetBuilder};
use crate::label::{HashedRequirement, HashedSelector, Label, Labels, MAX_LABELS};

/// Positive requirements of a rule that get a layer. A selector with more of them repeats a key or cannot match; the
/// remaining ones are compared with the labels if the rule survives.
const LABEL_LAYERS: usize = MAX_LABELS;

/// Index key of a requirement: hash of the label's key, alone or with that of the pair.
type LabelQuery = (u32, Option<u32>);

/// Selector index of one side.
#[derive(Clone, Debug)]
pub(super) struct SelectorIndex {
    base: BaseRules,
    wanted: Box<[ExactIndex<LabelQuery>]>,
    forbidden: FxHashMap<LabelQuery, RuleSet>,
    rest: FxHashMap<u16, HashedSelector>,
}

/// Builder of a [`SelectorIndex`].
#[derive(Clone, Debug, Default)]
pub(super) struct SelectorIndexBuilder {
    base: BaseRulesBuilder,
    wanted: [ExactIndexBuilder<LabelQuery>; LABEL_LAYERS],
    forbidden: FxHashMap<LabelQuery, RuleSetBuilder>,
    rest: FxHashMap<u16, HashedSelector>,
    layers: usize,
}

impl SelectorIndexBuilder {
    /// Adds a rule with a non-empty selector, or without one.
    pub(super) fn add(
        &mut self,
        position: u16,
        action: PolicyAction,
        selector: Option<HashedSelector>,
    ) {
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
        let rest = wanting.split_off(wanting.len().min(LABEL_LAYERS));
        if !rest.is_empty() {
            let requirements = HashedSelector { requirements: rest };
            self.rest.insert(position, requirements);
        }
        self.layers = self.layers.max(wanting.len());
        for (at, layer) in self.wanted.iter_mut().enumerate() {
            layer.add(position, action, wanting.get(at).map(asked));
        }
    }

    fn forbid(&mut self, asked: LabelQuery, position: u16) {
        self.forbidden.entry(asked).or_default().add(position);
    }

    /// Builds the index of a block of `rules` rules.
    pub(super) fn finish(self, rules: usize) -> SelectorIndex {
        let layers = self.wanted.iter().take(self.layers);
        let forbidden = self.forbidden.iter();
        SelectorIndex {
            base: self.base.finish(rules),
            wanted: layers.map(|layer| layer.finish(rules)).collect(),
            forbidden: forbidden
                .map(|(&asked, set)| (asked, set.finish(rules)))
                .collect(),
            rest: self.rest,
        }
    }
}

/// Returns the index keys of a positive requirement.
fn asked(requirement: &HashedRequirement) -> Vec<LabelQuery> {
    match requirement {
        HashedRequirement::In { key, pairs } => {
            pairs.iter().map(|&pair| (*key, Some(pair))).collect()
        }
        other => vec![(other.key(), None)],
    }
}

/// Returns the index keys that these labels meet.
#[inline]
fn answers(labels: &[Label]) -> impl Iterator<Item = LabelQuery> + '_ {
    labels
        .iter()
        .flat_map(|label| [(label.key, Some(label.pair)), (label.key, None)])
}

impl SelectorIndex {
    /// Keeps the rules whose selector matches, except for what [`SelectorIndex::rest_matches`] compares. Returns whether
    /// any is left.
    #[inline]
    pub(super) fn keep(&self, candidates: &mut CandidateRules, labels: Labels<'_>) -> bool {
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

    /// Whether a rule that survived [`SelectorIndex::keep`] also matches in its remaining requirements.
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
