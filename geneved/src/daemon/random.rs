//! Keys of hash functions.

/// A key that nobody outside can guess; a new one for each start.
pub(in crate::daemon) fn random_key() -> [u64; 2] {
    use std::hash::{BuildHasher, RandomState};
    // The standard library seeds it from the system's random source.
    let draw = || RandomState::new().hash_one(std::time::Instant::now());
    [draw(), draw()]
}
