//! Bitmap of the taken ports of one address; chunks are allocated on demand.
//!
//! Finds a free port in a range without testing each one. [`space`](super::space) knows whose port it is.

use std::ops::RangeInclusive;

const CHUNK_WORDS: usize = 16;
const CHUNKS: usize = (1 << 16) / (64 * CHUNK_WORDS);

/// Taken ports of one protocol on one address.
#[derive(Debug)]
pub(super) struct PortSet {
    chunks: [Option<Box<[u64; CHUNK_WORDS]>>; CHUNKS],
    taken: u32,
}

impl Default for PortSet {
    fn default() -> PortSet {
        PortSet {
            chunks: [const { None }; CHUNKS],
            taken: 0,
        }
    }
}

impl PortSet {
    pub(super) fn is_empty(&self) -> bool {
        self.taken == 0
    }

    fn word(&self, at: usize) -> u64 {
        self.chunks[at / CHUNK_WORDS]
            .as_ref()
            .map_or(0, |chunk| chunk[at % CHUNK_WORDS])
    }

    fn word_mut(&mut self, port: u16) -> (&mut u64, u64) {
        let at = usize::from(port) / 64;
        let chunk = self.chunks[at / CHUNK_WORDS].get_or_insert_with(|| Box::new([0; _]));
        (&mut chunk[at % CHUNK_WORDS], 1 << (port % 64))
    }

    pub(super) fn contains(&self, port: u16) -> bool {
        self.word(usize::from(port) / 64) >> (port % 64) & 1 != 0
    }

    pub(super) fn take(&mut self, port: u16) {
        let (word, bit) = self.word_mut(port);
        let new = *word & bit == 0;
        *word |= bit;
        self.taken += u32::from(new);
    }

    pub(super) fn release(&mut self, port: u16) {
        let (word, bit) = self.word_mut(port);
        let was = *word & bit != 0;
        *word &= !bit;
        self.taken -= u32::from(was);
    }

    /// Number of taken ports in the range.
    pub(super) fn count(&self, range: &RangeInclusive<u16>) -> u32 {
        let (low, high) = (usize::from(*range.start()), usize::from(*range.end()));
        (low / 64..=high / 64)
            .map(|at| (self.word(at) & mask(at, low, high)).count_ones())
            .sum()
    }

    /// Returns the first free port in `low..=high`.
    pub(super) fn first_free(&self, low: u16, high: u16) -> Option<u16> {
        first_clear(|at| self.word(at), usize::from(low), usize::from(high)).map(|at| at as u16)
    }
}

/// Returns the first clear bit in `low..=high` of a bitmap of 64-bit words.
pub(super) fn first_clear(word: impl Fn(usize) -> u64, low: usize, high: usize) -> Option<usize> {
    if low > high {
        return None;
    }
    (low / 64..=high / 64).find_map(|at| {
        let free = !word(at) & mask(at, low, high);
        (free != 0).then(|| at * 64 + free.trailing_zeros() as usize)
    })
}

/// Mask of the bits of word `at` that lie in `low..=high`.
fn mask(at: usize, low: usize, high: usize) -> u64 {
    let from = if at == low / 64 { !0 << (low % 64) } else { !0 };
    let to = if at == high / 64 {
        !0 >> (63 - high % 64)
    } else {
        !0
    };
    from & to
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn equals_a_set(
            low in any::<u16>(), span in 0u16..300,
            steps in proptest::collection::vec((0u16..300, any::<bool>()), 0..400),
            (from, to) in (any::<u16>(), any::<u16>()),
        ) {
            let mut ports = PortSet::default();
            let mut model = BTreeSet::new();
            for (at, take) in steps {
                let port = low.saturating_add(at);
                if take {
                    ports.take(port);
                    model.insert(port);
                } else {
                    ports.release(port);
                    model.remove(&port);
                }
                prop_assert_eq!(ports.contains(port), take);
            }
            prop_assert_eq!(ports.is_empty(), model.is_empty());
            let high = low.saturating_add(span);
            prop_assert_eq!(ports.count(&(low..=high)) as usize, model.range(low..=high).count());
            prop_assert_eq!(ports.first_free(low, high), (low..=high).find(|p| !model.contains(p)));
            prop_assert_eq!(ports.first_free(from, to), (from..=to).find(|p| !model.contains(p)));
        }
    }
}
