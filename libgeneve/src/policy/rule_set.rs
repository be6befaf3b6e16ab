//! Sets of a block's rules, and the candidates that a lookup narrows down with them.
//!
//! A rule is represented by its position in the block, so the lowest remaining bit is the rule that decides. What a
//! set means is up to the index that holds it.

/// Words of a block's bit set, small enough that two fit comfortably on a worker's stack.
const BLOCK_WORDS: usize = 160;
/// Most rules in one block.
pub(super) const BLOCK_RULES: usize = BLOCK_WORDS * 64;

/// Returns the number of words that a block of this many rules needs.
pub(super) const fn words(rules: usize) -> usize {
    rules.div_ceil(64)
}

/// Set of rules of a block.
///
/// A list has at most half as many positions as the bit set has words: it then takes at most an eighth of the memory,
/// and adding it costs no more.
#[derive(Clone, Debug)]
pub(super) enum RuleSet {
    /// Positions, ascending.
    List(Box<[u16]>),
    /// One bit for each rule of the block.
    Bits(Box<[u64]>),
}

impl RuleSet {
    /// Builds the set of `positions`, which are ascending, in a block of `rules` rules.
    pub(super) fn new(positions: &[u16], rules: usize) -> RuleSet {
        if positions.len() <= words(rules) / 2 {
            return RuleSet::List(positions.into());
        }
        let mut bits = vec![0; words(rules)].into_boxed_slice();
        for &position in positions {
            set_bit(&mut bits, usize::from(position));
        }
        RuleSet::Bits(bits)
    }

    #[inline]
    fn add_to(&self, words: &mut [u64]) {
        match self {
            RuleSet::List(positions) => {
                for &position in positions {
                    set_bit(words, usize::from(position));
                }
            }
            RuleSet::Bits(bits) => {
                for (word, bits) in words.iter_mut().zip(bits) {
                    *word |= bits;
                }
            }
        }
    }

    #[inline]
    fn remove_from(&self, words: &mut [u64]) {
        match self {
            RuleSet::List(positions) => {
                for &position in positions {
                    if let Some(word) = words.get_mut(usize::from(position) / 64) {
                        *word &= !(1 << (position % 64));
                    }
                }
            }
            RuleSet::Bits(bits) => {
                for (word, bits) in words.iter_mut().zip(bits) {
                    *word &= !bits;
                }
            }
        }
    }
}

#[inline]
fn set_bit(words: &mut [u64], position: usize) {
    if let Some(word) = words.get_mut(position / 64) {
        *word |= 1 << (position % 64);
    }
}

/// Builder of a [`RuleSet`]; positions are added in ascending order.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleSetBuilder(Vec<u16>);

impl RuleSetBuilder {
    /// Adds `position`, which must not be lower than the previous one; a repetition has no effect.
    pub(super) fn add(&mut self, position: u16) {
        if self.0.last() != Some(&position) {
            self.0.push(position);
        }
    }

    /// Builds the set.
    pub(super) fn finish(&self, rules: usize) -> RuleSet {
        RuleSet::new(&self.0, rules)
    }

    /// Builds the set as bits, whatever its size.
    pub(super) fn finish_bits(&self, rules: usize) -> Box<[u64]> {
        let mut bits = vec![0; words(rules)].into_boxed_slice();
        for &position in &self.0 {
            set_bit(&mut bits, usize::from(position));
        }
        bits
    }

    /// Number of positions.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Rules of a block that may still match.
pub(super) struct CandidateRules {
    left: [u64; BLOCK_WORDS],
    matching: [u64; BLOCK_WORDS],
    words: usize,
}

impl CandidateRules {
    /// Returns all rules of a block of `rules` rules, at most [`BLOCK_RULES`].
    #[inline]
    pub(super) fn all(rules: usize) -> CandidateRules {
        let mut left = [0; BLOCK_WORDS];
        let full = (rules / 64).min(BLOCK_WORDS);
        left[..full].fill(u64::MAX);
        if let Some(last) = left.get_mut(full) {
            *last = (1 << (rules % 64)) - 1;
        }
        CandidateRules {
            left,
            matching: [0; BLOCK_WORDS],
            words: words(rules).min(BLOCK_WORDS),
        }
    }

    /// Keeps the rules in `always` and in any of `sets`. Returns whether any is left.
    #[inline]
    pub(super) fn keep<'s>(
        &mut self,
        always: &[u64],
        sets: impl Iterator<Item = &'s RuleSet>,
    ) -> bool {
        let matching = &mut self.matching[..self.words];
        for (word, always) in matching.iter_mut().zip(always) {
            *word = *always;
        }
        for set in sets {
            set.add_to(matching);
        }
        let mut any = 0;
        for (left, matching) in self.left[..self.words].iter_mut().zip(matching) {
            *left &= *matching;
            any |= *left;
        }
        any != 0
    }

    /// Removes the rules in `set`.
    #[inline]
    pub(super) fn remove(&mut self, set: &RuleSet) {
        set.remove_from(&mut self.left[..self.words]);
    }

    /// Remaining rules, ascending.
    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let words = self.left[..self.words].iter().enumerate();
        words.flat_map(|(at, &word)| {
            std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)))
                .take_while(|&word| word != 0)
                .map(move |word| at * 64 + word.trailing_zeros() as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn narrowing_is_the_algebra_of_sets(
            rules in 1usize..700,
            sets in proptest::collection::vec(proptest::collection::btree_set(0u16..700, 0..700), 4),
        ) {
            let inside = |set: &BTreeSet<u16>| -> Vec<u16> {
                set.iter().copied().filter(|&p| usize::from(p) < rules).collect()
            };
            let [always, a, b, c] = [0, 1, 2, 3].map(|at| inside(&sets[at]));
            let mut growing = RuleSetBuilder::default();
            always.iter().for_each(|&p| growing.add(p));
            let [a_set, b_set, c_set] = [&a, &b, &c].map(|s| RuleSet::new(s, rules));
            let mut candidates = CandidateRules::all(rules);
            prop_assert_eq!(candidates.iter().count(), rules);
            let any = candidates.keep(&growing.finish_bits(rules), [&a_set, &b_set].into_iter());
            let expected: BTreeSet<u16> = always.iter().chain(&a).chain(&b).copied().collect();
            prop_assert_eq!(any, !expected.is_empty());
            candidates.remove(&c_set);
            let expected: Vec<usize> =
                expected.into_iter().filter(|p| !c.contains(p)).map(usize::from).collect();
            prop_assert_eq!(candidates.iter().collect::<Vec<_>>(), expected);
        }
    }
}
