//! Test content that a receiver can recompute: a pseudo-random stream generated from a seed.

/// A reproducible stream of bytes; equal seeds give equal streams.
///
/// The generator is `SplitMix64`, eight bytes a step: fast, and it reveals any byte that is lost, duplicated or
/// moved. Not cryptographically secure.
#[derive(Clone, Debug)]
pub struct Pattern {
    state: u64,
    /// The last word generated, and how many of its bytes are used.
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    /// The stream of `seed`, from its start.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            state: seed,
            word: [0; 8],
            used: 8,
        }
    }

    /// Fills `out` with the next bytes of the stream.
    pub fn fill(&mut self, mut out: &mut [u8]) {
        if self.used < 8 {
            let n = out.len().min(8 - self.used);
            out[..n].copy_from_slice(&self.word[self.used..self.used + n]);
            self.used += n;
            out = &mut out[n..];
        }
        let mut words = out.chunks_exact_mut(8);
        for chunk in &mut words {
            chunk.copy_from_slice(&self.next_word());
        }
        let rest = words.into_remainder();
        if !rest.is_empty() {
            self.word = self.next_word();
            self.used = rest.len();
            rest.copy_from_slice(&self.word[..self.used]);
        }
    }

    fn next_word(&mut self) -> [u8; 8] {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_does_not_depend_on_how_it_is_cut() {
        let mut whole = vec![0; 1000];
        Pattern::new(7).fill(&mut whole);
        let mut pieces = vec![0; 1000];
        let mut pattern = Pattern::new(7);
        let mut rest = &mut pieces[..];
        for n in (0..).map(|i| 1 + i * 5 % 23) {
            let n = n.min(rest.len());
            let (head, tail) = rest.split_at_mut(n);
            pattern.fill(head);
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        assert_eq!(whole, pieces);
    }

    #[test]
    fn seeds_differ() {
        let (mut a, mut b) = ([0; 32], [0; 32]);
        Pattern::new(1).fill(&mut a);
        Pattern::new(2).fill(&mut b);
        assert_ne!(a, b);
    }
}
