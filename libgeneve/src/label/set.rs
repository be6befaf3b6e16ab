//! Hashed labels of an endpoint, as one option carries them.

use super::{Label, MAX_LABELS};

/// Bytes of one label on the wire: hash of the key, then hash of key and value, both big-endian.
const LABEL_LEN: usize = 8;

/// Hash collision: two keys of an endpoint have the same hash under the fabric's secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("label keys '{0}' and '{1}' have the same hash under this secret; rename one of them")]
pub struct LabelCollision(pub String, pub String);

/// Up to 15 hashed labels, sorted by key, keys unique; not heap-allocated.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LabelSet {
    len: u8,
    /// Zero beyond `len`, so that derived equality is set equality.
    labels: [Label; MAX_LABELS],
}

impl LabelSet {
    /// The empty set: an endpoint known to have no labels.
    pub const EMPTY: LabelSet = LabelSet {
        len: 0,
        labels: [Label { key: 0, pair: 0 }; MAX_LABELS],
    };

    /// Builds a set from labels in any order; `None` if there are more than 15 or a key occurs twice.
    #[must_use]
    pub fn from_labels(labels: &[Label]) -> Option<LabelSet> {
        let mut set = LabelSet::EMPTY;
        set.labels.get_mut(..labels.len())?.copy_from_slice(labels);
        set.len = labels.len() as u8;
        set.labels[..labels.len()].sort_unstable();
        set.is_strictly_sorted().then_some(set)
    }

    /// Parses the data of a labels option: 0 to 15 labels of 8 bytes. `None` if the length is invalid or the keys are
    /// not strictly increasing: each set has exactly one encoding.
    #[must_use]
    pub fn from_wire(data: &[u8]) -> Option<LabelSet> {
        let (labels, []) = data.as_chunks::<LABEL_LEN>() else {
            return None;
        };
        let mut set = LabelSet::EMPTY;
        for (slot, bytes) in set.labels.get_mut(..labels.len())?.iter_mut().zip(labels) {
            let [a, b, c, d, e, f, g, h] = *bytes;
            slot.key = u32::from_be_bytes([a, b, c, d]);
            slot.pair = u32::from_be_bytes([e, f, g, h]);
        }
        set.len = labels.len() as u8;
        set.is_strictly_sorted().then_some(set)
    }

    /// Writes the data of a labels option, 8 bytes a label, to the start of `buffer` and returns it.
    pub fn write<'b>(&self, buffer: &'b mut [u8; MAX_LABELS * LABEL_LEN]) -> &'b [u8] {
        for (bytes, label) in buffer.as_chunks_mut::<LABEL_LEN>().0.iter_mut().zip(self) {
            bytes[..4].copy_from_slice(&label.key.to_be_bytes());
            bytes[4..].copy_from_slice(&label.pair.to_be_bytes());
        }
        &buffer[..self.wire_len()]
    }

    /// Length of the option's data in bytes, 0 to 120.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        usize::from(self.len) * LABEL_LEN
    }

    /// The labels, sorted by key.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[Label] {
        &self.labels[..usize::from(self.len)]
    }

    fn is_strictly_sorted(&self) -> bool {
        self.as_slice().is_sorted_by(|a, b| a.key < b.key)
    }

    /// Appends a label with a higher key than all others; ignored if the set is full.
    pub(super) fn push(&mut self, label: Label) {
        if let Some(slot) = self.labels.get_mut(usize::from(self.len)) {
            *slot = label;
            self.len += 1;
        }
    }
}

impl Default for LabelSet {
    fn default() -> Self {
        LabelSet::EMPTY
    }
}

impl std::ops::Deref for LabelSet {
    type Target = [Label];
    #[inline]
    fn deref(&self) -> &[Label] {
        self.as_slice()
    }
}

impl<'a> IntoIterator for &'a LabelSet {
    type Item = &'a Label;
    type IntoIter = std::slice::Iter<'a, Label>;
    fn into_iter(self) -> Self::IntoIter {
        self.as_slice().iter()
    }
}

impl std::fmt::Debug for LabelSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn label(key: u32, pair: u32) -> Label {
        Label { key, pair }
    }

    #[test]
    fn labels_lie_big_endian_and_sorted() {
        let set = LabelSet::from_labels(&[label(2, 0x0506_0708), label(1, 3)]).unwrap();
        let mut buffer = [0xee; 120];
        let wire = [0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 2, 5, 6, 7, 8];
        assert_eq!(set.write(&mut buffer), wire);
        assert_eq!(LabelSet::from_wire(&wire), Some(set));
        assert_eq!(LabelSet::from_wire(&[]), Some(LabelSet::EMPTY));
    }

    #[test]
    fn a_set_has_one_encoding() {
        let bytes = |keys: &[u32]| -> Vec<u8> {
            let labels = keys
                .iter()
                .flat_map(|&key| [key.to_be_bytes(), 7u32.to_be_bytes()]);
            labels.flatten().collect()
        };
        assert!(LabelSet::from_wire(&bytes(&[1, 2])).is_some());
        assert!(LabelSet::from_wire(&bytes(&[2, 1])).is_none());
        assert!(LabelSet::from_wire(&bytes(&[1, 1])).is_none());
        assert!(LabelSet::from_wire(&bytes(&[1])[..4]).is_none());
        let many: Vec<u32> = (0..16).collect();
        assert!(LabelSet::from_wire(&bytes(&many)).is_none());
        assert!(LabelSet::from_wire(&bytes(&many[..15])).is_some());
        assert!(LabelSet::from_labels(&[label(1, 2), label(1, 3)]).is_none());
        assert!(LabelSet::from_labels(&[label(0, 0); 16]).is_none());
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(
            data in proptest::collection::vec(any::<u8>(), 0..130), sort in any::<bool>()
        ) {
            let mut data = data;
            if sort {
                data.truncate(data.len() / 8 * 8);
                data.as_chunks_mut::<8>().0.sort_unstable();
            }
            if let Some(set) = LabelSet::from_wire(&data) {
                let mut buffer = [0; 120];
                prop_assert_eq!(set.write(&mut buffer), &data[..]);
                prop_assert_eq!(LabelSet::from_labels(&set), Some(set));
            }
        }
    }
}
