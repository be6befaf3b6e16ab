//! Sorted map with cheap, copy-on-write clones.
//!
//! Cloning is free, a change copies one chunk, and two maps that differ little are compared by their chunks. A change
//! of a large state is therefore as fast as that of a small one.

use std::collections::HashSet;
use std::fmt;
use std::ops::{Index, RangeFrom};
use std::sync::Arc;

/// Maximum number of entries in a chunk.
const CHUNK: usize = 64;

/// Run of entries, sorted by key.
type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// Entries sorted by key, in chunks that are never empty.
pub struct SharedMap<K, V> {
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

impl<K, V> SharedMap<K, V> {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the map is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        entries(&self.chunks)
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// All values, sorted by key.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }

    /// Entries of the chunks that are not shared with `other`: all entries that differ, and some that do not.
    pub fn beside<'a>(
        &'a self,
        other: &Self,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V> {
        let theirs: HashSet<_> = match Arc::ptr_eq(&self.chunks, &other.chunks) {
            true => HashSet::new(),
            false => other.chunks.iter().map(Arc::as_ptr).collect(),
        };
        let same = Arc::ptr_eq(&self.chunks, &other.chunks);
        let chunks = self.chunks.iter().filter(move |_| !same);
        let chunks = chunks.filter(move |chunk| !theirs.contains(&Arc::as_ptr(chunk)));
        chunks
            .flat_map(|chunk| chunk.iter())
            .map(|(key, value)| (key, value))
    }
}

fn entries<K, V>(chunks: &[Chunk<K, V>]) -> impl Iterator<Item = (&K, &V)> + Clone {
    let all = chunks.iter().flat_map(|chunk| chunk.iter());
    all.map(|(key, value)| (key, value))
}

impl<K: Ord, V> SharedMap<K, V> {
    /// Index of the chunk that would hold `key`.
    fn chunk_of(&self, key: &K) -> usize {
        let later = self.chunks.partition_point(|chunk| chunk[0].0 <= *key);
        later.saturating_sub(1)
    }

    /// Looks up a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let at = chunk.binary_search_by(|(known, _)| known.cmp(key)).ok()?;
        Some(&chunk[at].1)
    }

    /// Whether the map contains `key`.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }
}

impl<K: Ord + Clone, V> SharedMap<K, V> {
    /// Entries from this key on.
    pub fn range(
        &self,
        RangeFrom { start }: RangeFrom<K>,
    ) -> impl Iterator<Item = (&K, &V)> + Clone {
        let chunks = &self.chunks[self.chunk_of(&start)..];
        entries(chunks).skip_while(move |(key, _)| **key < start)
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Inserts an entry. Returns the value that it replaced.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.chunk_of(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(at) else {
            chunks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        let chunk = Arc::make_mut(chunk);
        match chunk.binary_search_by(|(known, _)| known.cmp(&key)) {
            Ok(there) => return Some(std::mem::replace(&mut chunk[there].1, value)),
            Err(free) => chunk.insert(free, (key, value)),
        }
        self.len += 1;
        if chunk.len() > CHUNK {
            let rest = chunk.split_off(CHUNK / 2);
            chunks.insert(at + 1, Arc::new(rest));
        }
        None
    }

    /// Removes an entry and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        if !self.contains_key(key) {
            return None;
        }
        let at = self.chunk_of(key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[at]);
        let there = chunk.binary_search_by(|(known, _)| known.cmp(key)).ok()?;
        let (_, value) = chunk.remove(there);
        self.len -= 1;
        let left = chunk.len();
        // Without this, many removals would leave many small chunks.
        let joins = chunks
            .get(at + 1)
            .is_some_and(|next| left + next.len() <= CHUNK / 2);
        if joins {
            let next = chunks.remove(at + 1);
            Arc::make_mut(&mut chunks[at]).extend(next.iter().cloned());
        }
        if chunks[at].is_empty() {
            chunks.remove(at);
        }
        Some(value)
    }

    /// Keeps only the entries for which `wanted` returns true.
    pub fn retain(&mut self, mut wanted: impl FnMut(&K, &V) -> bool) {
        let gone = self.iter().filter(|(key, value)| !wanted(key, value));
        let gone: Vec<K> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.remove(&key);
        }
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        SharedMap {
            chunks: Arc::clone(&self.chunks),
            len: self.len,
        }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        SharedMap {
            chunks: Arc::default(),
            len: 0,
        }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks)
            || self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Eq, V: Eq> Eq for SharedMap<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord, V> Index<&K> for SharedMap<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("the key is there")
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(all: T) -> Self {
        let mut map = SharedMap::default();
        for (key, value) in all {
            map.insert(key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_and_knows_in_what_it_differs(
            first in prop::collection::vec((0..500u16, any::<Option<u8>>()), 0..400),
            second in prop::collection::vec((0..500u16, any::<Option<u8>>()), 0..20),
        ) {
            let mut map = SharedMap::default();
            let mut model = BTreeMap::new();
            let mut change = |map: &mut SharedMap<u16, u8>, steps: &[(u16, Option<u8>)]| {
                for (key, value) in steps {
                    let (is, was) = match value {
                        Some(value) => (map.insert(*key, *value), model.insert(*key, *value)),
                        None => (map.remove(key), model.remove(key)),
                    };
                    assert_eq!(is, was);
                }
                model.clone()
            };
            let old_model = change(&mut map, &first);
            let old = map.clone();
            let new_model = change(&mut map, &second);
            prop_assert!(old.iter().eq(&old_model) && map.iter().eq(&new_model));
            prop_assert_eq!(map.len(), new_model.len());
            prop_assert_eq!(old == map, old_model == new_model);
            prop_assert!(map.range(250..).eq(new_model.range(250..)));
            let chunks = map.chunks.iter();
            prop_assert!(chunks.clone().all(|chunk| (1..=CHUNK).contains(&chunk.len())));
            let beside: BTreeMap<_, _> = map.beside(&old).collect();
            for (key, value) in &new_model {
                prop_assert_eq!(map.get(key), Some(value));
                prop_assert!(old_model.get(key) == Some(value) || beside.contains_key(key));
            }
            prop_assert!(beside.len() <= second.len() * 2 * CHUNK);
        }
    }

    #[test]
    fn a_change_copies_a_chunk() {
        let old: SharedMap<u32, u32> = (0..10_000).map(|n| (n, n)).collect();
        let mut new = old.clone();
        assert_eq!(new.beside(&old).count(), 0);
        new.insert(5000, 1);
        let beside: Vec<_> = new.beside(&old).collect();
        assert!(beside.len() <= CHUNK && beside.contains(&(&5000, &1)));
        new.retain(|key, _| *key < 100);
        assert!(new.keys().copied().eq(0..100) && new.len() == 100);
    }
}
