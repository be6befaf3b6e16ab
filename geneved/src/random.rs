//! Unpredictable numbers from the system's random source.

use std::io;

use crate::refusal::Refusal;

/// Returns `N` random bytes.
///
/// # Errors
/// If the system's random source fails.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Returns a random number.
///
/// # Errors
/// If the system's random source fails.
pub(crate) fn number() -> io::Result<u64> {
    bytes().map(u64::from_ne_bytes)
}

/// Master key from which the keys of all hash functions are derived. Drawn once at start, so that no later draw can
/// fail.
#[derive(Clone)]
pub(crate) struct HashKeys([u8; 32]);

impl HashKeys {
    /// Draws a new master key.
    ///
    /// # Errors
    /// If the system's random source fails.
    pub(crate) fn draw() -> Result<HashKeys, Refusal> {
        bytes().map(HashKeys).map_err(|error| {
            Refusal::new(
                format!("the system's random source gives no keys: {error}"),
                "getrandom(2) must be there and allowed: see the filter of system calls that the daemon runs under",
            )
        })
    }

    /// Derives the key for `purpose`. Keys for different purposes reveal nothing about each other.
    pub(crate) fn of(&self, purpose: &str) -> [u64; 2] {
        let hash = blake3::keyed_hash(&self.0, purpose.as_bytes());
        let half = |at: usize| {
            let mut half = [0; 8];
            half.copy_from_slice(&hash.as_bytes()[at..at + 8]);
            u64::from_ne_bytes(half)
        };
        [half(0), half(8)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_and_each_use_has_a_key_of_its_own() {
        let (one, other) = (HashKeys::draw().unwrap(), HashKeys::draw().unwrap());
        assert_eq!(one.of("flows"), one.clone().of("flows"));
        assert_ne!(one.of("flows"), one.of("neighbors"));
        assert_ne!(one.of("flows"), other.of("flows"));
        let [first, second] = one.of("flows");
        assert_ne!(first, second);
    }
}
