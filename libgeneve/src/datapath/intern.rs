//! Interning of values that many flows have in common.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, PoisonError};

use crate::sync::RwLock;

/// Bounded interning table.
#[derive(Debug)]
pub(super) struct Interner<T> {
    most: usize,
    /// Mostly read: few of the values that flows bring are new.
    inner: RwLock<InternerState<T>>,
}

#[derive(Debug)]
struct InternerState<T> {
    all: HashSet<Arc<T>>,
    /// New values not interned for lack of room since the last clean-up.
    missed: usize,
}

impl<T: Hash + Eq> Interner<T> {
    /// Returns an empty table for at most `most` values; further ones are not shared.
    pub(super) fn new(most: usize) -> Interner<T> {
        let inner = InternerState {
            all: HashSet::new(),
            missed: 0,
        };
        Interner {
            most,
            inner: RwLock::new(inner),
        }
    }

    /// Returns the interned copy of this value.
    pub(super) fn intern(&self, value: T) -> Arc<T> {
        {
            let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(shared) = inner.all.get(&value) {
                return Arc::clone(shared);
            }
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        // Another worker may have inserted it first.
        if let Some(shared) = inner.all.get(&value) {
            return Arc::clone(shared);
        }
        if inner.all.len() >= self.most {
            // Scanning the table on every miss would cost more than sharing saves.
            inner.missed += 1;
            if inner.missed >= self.most {
                inner.tidy();
            }
        }
        let shared = Arc::new(value);
        if inner.all.len() < self.most {
            inner.all.insert(Arc::clone(&shared));
        }
        shared
    }

    /// Removes values that no flow uses any more; call about once a second.
    pub(super) fn tidy(&self) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.tidy();
    }
}

impl<T: Hash + Eq> InternerState<T> {
    fn tidy(&mut self) {
        self.all.retain(|shared| Arc::strong_count(shared) > 1);
        self.missed = 0;
    }
}

#[cfg(all(test, shuttle))]
#[path = "intern_interleavings.rs"]
mod interleavings;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_while_there_is_room() {
        let shared = Interner::new(2);
        let (one, two) = (shared.intern(1), shared.intern(2));
        assert!(Arc::ptr_eq(&one, &shared.intern(1)));
        let three = shared.intern(3);
        assert!(!Arc::ptr_eq(&three, &shared.intern(3)));
        drop(two);
        shared.tidy();
        drop(shared.intern(1));
        assert_eq!(shared.inner.read().unwrap().all.len(), 1);
    }

    #[test]
    fn a_full_set_is_looked_through_once_for_as_many_misses_as_it_holds() {
        let shared = Interner::new(100);
        let held: Vec<_> = (0..100).map(|n| shared.intern(n)).collect();
        drop(held);
        for n in 100..199 {
            drop(shared.intern(n));
            assert_eq!(shared.inner.read().unwrap().all.len(), 100);
        }
        drop(shared.intern(199));
        assert_eq!(shared.inner.read().unwrap().all.len(), 1);
    }

    #[test]
    fn workers_that_bring_equal_values_at_once_get_one() {
        let shared = Interner::new(64);
        let all: Vec<Vec<Arc<u32>>> = std::thread::scope(|scope| {
            let share = || (0..64).map(|n| shared.intern(n)).collect();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(share)).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .collect()
        });
        for others in &all {
            assert!(all[0].iter().zip(others).all(|(a, b)| Arc::ptr_eq(a, b)));
        }
    }
}
