//! Keyed hashes of labels and selectors, which the wire carries and rules compare.
//!
//! Tenants choose the text of labels. The hashes are keyed with the fabric's secret, so that nobody without it can
//! search for two labels that collide.

use std::fmt;

use super::{Label, Labels};

/// Separates these keys from others derived from the same secret.
const CONTEXT: &str = "geneved 2026 labels on the wire v1";

/// Key of a fabric's label hashes; the same on all of its hosts.
#[derive(Clone, PartialEq, Eq)]
pub struct LabelKey([u8; 32]);

impl LabelKey {
    /// Derives the key from the fabric's secret: BLAKE3 in key derivation mode, with the context `geneved 2026 labels
    /// on the wire v1` and the bytes of `secret` unchanged.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> LabelKey {
        LabelKey(blake3::derive_key(CONTEXT, secret))
    }

    /// Returns the hash of a label's key: the first four bytes, big-endian, of the keyed BLAKE3 of the UTF-8 bytes of
    /// `key`, prefix included.
    #[must_use]
    pub fn key_hash(&self, key: &str) -> u32 {
        truncate(&blake3::keyed_hash(&self.0, key.as_bytes()))
    }

    /// Returns the hash of a label: as [`LabelKey::key_hash`], over the bytes of `key`, one `=` (0x3d) and the bytes
    /// of `value`. A key cannot contain `=`, so different labels never hash the same bytes.
    #[must_use]
    pub fn pair_hash(&self, key: &str, value: &str) -> u32 {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(key.as_bytes());
        hasher.update(b"=");
        hasher.update(value.as_bytes());
        truncate(&hasher.finalize())
    }

    /// Returns both hashes of the label `key=value`.
    #[must_use]
    pub fn label(&self, key: &str, value: &str) -> Label {
        Label {
            key: self.key_hash(key),
            pair: self.pair_hash(key, value),
        }
    }
}

fn truncate(hash: &blake3::Hash) -> u32 {
    let [a, b, c, d, ..] = *hash.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// Redacts the key.
impl fmt::Debug for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LabelKey(..)")
    }
}

/// Selector with hashed keys and values; matches if all of its requirements do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HashedSelector {
    /// Requirements; empty if every endpoint matches.
    pub requirements: Vec<HashedRequirement>,
}

/// One requirement of a hashed selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HashedRequirement {
    /// The label exists and is one of `pairs`.
    In {
        /// Hash of the key.
        key: u32,
        /// Hashes of key and value, sorted.
        pairs: Box<[u32]>,
    },
    /// The label does not exist, or is none of `pairs`.
    NotIn {
        /// Hash of the key.
        key: u32,
        /// Hashes of key and value, sorted.
        pairs: Box<[u32]>,
    },
    /// A label whose key has this hash exists.
    Exists(u32),
    /// No label has a key with this hash.
    NotExists(u32),
}

impl HashedRequirement {
    /// Returns the hash of the key that the requirement is about.
    #[must_use]
    pub const fn key(&self) -> u32 {
        match self {
            HashedRequirement::In { key, .. }
            | HashedRequirement::NotIn { key, .. }
            | HashedRequirement::Exists(key)
            | HashedRequirement::NotExists(key) => *key,
        }
    }

    /// Whether an endpoint with exactly these labels meets the requirement.
    #[inline]
    #[must_use]
    pub fn matches(&self, labels: &[Label]) -> bool {
        let found = labels.iter().find(|label| label.key == self.key());
        let is_one_of = |label: &Label, pairs: &[u32]| pairs.binary_search(&label.pair).is_ok();
        match self {
            HashedRequirement::In { pairs, .. } => found.is_some_and(|l| is_one_of(l, pairs)),
            HashedRequirement::NotIn { pairs, .. } => found.is_none_or(|l| !is_one_of(l, pairs)),
            HashedRequirement::Exists(_) => found.is_some(),
            HashedRequirement::NotExists(_) => found.is_none(),
        }
    }
}

impl HashedSelector {
    /// Whether the selector matches an endpoint with exactly these labels.
    #[inline]
    #[must_use]
    pub fn matches(&self, labels: &[Label]) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(labels))
    }

    /// Whether the selector matches; `None` if it has requirements but the labels are unknown.
    #[inline]
    #[must_use]
    pub fn decide(&self, labels: Labels<'_>) -> Option<bool> {
        match labels {
            Labels::Known(labels) => Some(self.matches(labels)),
            Labels::Unknown if self.requirements.is_empty() => Some(true),
            Labels::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_are_these_on_every_host() {
        let key = LabelKey::from_secret(b"sixteen bytes or more");
        let derived = blake3::Hasher::new_derive_key("geneved 2026 labels on the wire v1")
            .update(b"sixteen bytes or more")
            .finalize();
        let hash = blake3::keyed_hash(derived.as_bytes(), b"example.com/app=web");
        let [a, b, c, d, ..] = *hash.as_bytes();
        let pair = u32::from_be_bytes([a, b, c, d]);
        assert_eq!(key.pair_hash("example.com/app", "web"), pair);
        assert_eq!(key.key_hash("example.com/app=web"), pair);
        assert_eq!(
            key.label("app", "web"),
            Label {
                key: 0x16df_f6e0,
                pair: 0xa602_ad8e
            }
        );
    }

    #[test]
    fn another_secret_gives_other_hashes_and_no_secret_is_shown() {
        let (one, two) = (LabelKey::from_secret(b"1"), LabelKey::from_secret(b"2"));
        assert_ne!(one.key_hash("app"), two.key_hash("app"));
        assert_eq!(format!("{one:?}"), "LabelKey(..)");
    }

    #[test]
    fn unknown_labels_decide_nothing_but_the_empty_selector() {
        let all = HashedSelector::default();
        let none = HashedSelector {
            requirements: vec![HashedRequirement::NotExists(1)],
        };
        assert_eq!(all.decide(Labels::Unknown), Some(true));
        assert_eq!(all.decide(Labels::Known(&[])), Some(true));
        assert_eq!(none.decide(Labels::Unknown), None);
        assert_eq!(none.decide(Labels::Known(&[])), Some(true));
        let label = Label { key: 1, pair: 2 };
        assert_eq!(none.decide(Labels::Known(&[label])), Some(false));
    }
}
