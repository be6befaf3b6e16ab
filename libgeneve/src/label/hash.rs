//! Labels and selectors behind the fabric's secret: what the wire and the rules compare.
//!
//! A tenant chooses the text of labels. The hashes are keyed, so that nobody without the secret can
//! search for two texts that the wire cannot tell apart.

use std::fmt;

use super::{Label, Labels};

/// Separates the keys of label hashes from whatever else is derived from the same secret.
const CONTEXT: &str = "geneved 2026 labels on the wire v1";

/// The key of all label hashes of a fabric: every host of it has the same.
#[derive(Clone, PartialEq, Eq)]
pub struct LabelKey([u8; 32]);

impl LabelKey {
    /// The key that follows from the fabric's secret: BLAKE3 in its key derivation mode, with the
    /// context `geneved 2026 labels on the wire v1` and the bytes of `secret` as they are.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> LabelKey {
        LabelKey(blake3::derive_key(CONTEXT, secret))
    }

    /// The hash of a label's key: the first four bytes, big-endian, of the keyed BLAKE3 of the UTF-8
    /// bytes of `key`, prefix included.
    #[must_use]
    pub fn key_hash(&self, key: &str) -> u32 {
        truncate(&blake3::keyed_hash(&self.0, key.as_bytes()))
    }

    /// The hash of a label: as [`LabelKey::key_hash`], of the bytes of `key`, one `=` (0x3d) and the bytes of
    /// `value`. A key has no `=`, so two labels never share these bytes.
    #[must_use]
    pub fn pair_hash(&self, key: &str, value: &str) -> u32 {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(key.as_bytes());
        hasher.update(b"=");
        hasher.update(value.as_bytes());
        truncate(&hasher.finalize())
    }

    /// Both hashes of the label `key=value`.
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

/// Says nothing of the key.
impl fmt::Debug for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LabelKey(..)")
    }
}

/// A selector whose keys and values are hashed: it matches where each requirement does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HashedSelector {
    /// What labels must fulfil; nothing where every endpoint matches.
    pub requirements: Vec<HashedRequirement>,
}

/// One requirement of a hashed selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HashedRequirement {
    /// The label is there and is one of `pairs`.
    In {
        /// Hash of the key.
        key: u32,
        /// Hashes of key and value, sorted.
        pairs: Box<[u32]>,
    },
    /// The label is not there, or is none of `pairs`.
    NotIn {
        /// Hash of the key.
        key: u32,
        /// Hashes of key and value, sorted.
        pairs: Box<[u32]>,
    },
    /// The label with this hash of a key is there.
    Exists(u32),
    /// The label with this hash of a key is not there.
    NotExists(u32),
}

impl HashedRequirement {
    /// The hash of the key that it asks about.
    #[must_use]
    pub const fn key(&self) -> u32 {
        match self {
            HashedRequirement::In { key, .. }
            | HashedRequirement::NotIn { key, .. }
            | HashedRequirement::Exists(key)
            | HashedRequirement::NotExists(key) => *key,
        }
    }

    /// Whether an endpoint with exactly these labels fulfils it.
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
    /// Whether it matches an endpoint with exactly these labels.
    #[inline]
    #[must_use]
    pub fn matches(&self, labels: &[Label]) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(labels))
    }

    /// Whether it matches, or `None` where nothing is known of the labels and it asks about them.
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
