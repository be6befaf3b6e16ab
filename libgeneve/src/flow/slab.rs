//! Slab: indexed storage that grows without moving its values and never shrinks.
//!
//! It grows by a chunk at a time, so that an idle table costs no memory and a growing one no pause for copying. Each
//! slot has a generation that changes when its value is removed, so that stale indices are detected.

const SLAB_CHUNK: usize = 128;
const SLAB_END: u32 = u32::MAX;

/// Value that stores its slot's generation, where its own layout has room for it.
pub(super) trait SlabItem {
    fn generation(&mut self) -> &mut u32;
}

#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Vec<SlabSlot<T>>>,
    free: u32,
}

#[derive(Debug)]
enum SlabSlot<T> {
    Vacant { next: u32, generation: u32 },
    Taken(T),
}

impl<T: SlabItem> Slab<T> {
    pub(super) fn new() -> Self {
        Slab {
            chunks: Vec::new(),
            free: SLAB_END,
        }
    }

    /// Returns one more than the highest index used so far.
    pub(super) fn end(&self) -> u32 {
        match self.chunks.last() {
            Some(last) => ((self.chunks.len() - 1) * SLAB_CHUNK + last.len()) as u32,
            None => 0,
        }
    }

    #[inline]
    fn place_mut(&mut self, at: u32) -> Option<&mut SlabSlot<T>> {
        self.chunks
            .get_mut(at as usize / SLAB_CHUNK)?
            .get_mut(at as usize % SLAB_CHUNK)
    }

    #[inline]
    pub(super) fn get(&self, at: u32) -> Option<&T> {
        let chunk = self.chunks.get(at as usize / SLAB_CHUNK)?;
        match chunk.get(at as usize % SLAB_CHUNK)? {
            SlabSlot::Taken(value) => Some(value),
            SlabSlot::Vacant { .. } => None,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        match self.place_mut(at)? {
            SlabSlot::Taken(value) => Some(value),
            SlabSlot::Vacant { .. } => None,
        }
    }

    /// Stores a value; returns its index and the slot's generation.
    pub(super) fn insert(&mut self, mut value: T) -> (u32, u32) {
        let at = self.free;
        if let Some(place) = self.place_mut(at)
            && let &mut SlabSlot::Vacant { next, generation } = place
        {
            *value.generation() = generation;
            *place = SlabSlot::Taken(value);
            self.free = next;
            return (at, generation);
        }
        if self
            .chunks
            .last()
            .is_none_or(|last| last.len() == SLAB_CHUNK)
        {
            self.chunks.push(Vec::with_capacity(SLAB_CHUNK));
        }
        let at = self.end();
        *value.generation() = 0;
        if let Some(last) = self.chunks.last_mut() {
            last.push(SlabSlot::Taken(value));
        }
        (at, 0)
    }

    pub(super) fn remove(&mut self, at: u32) -> Option<T> {
        let next = self.free;
        let place = self.place_mut(at)?;
        let SlabSlot::Taken(value) = place else {
            return None;
        };
        let generation = value.generation().wrapping_add(1);
        match std::mem::replace(place, SlabSlot::Vacant { next, generation }) {
            SlabSlot::Taken(value) => {
                self.free = at;
                Some(value)
            }
            SlabSlot::Vacant { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct TestItem(u32, u32);

    impl SlabItem for TestItem {
        fn generation(&mut self) -> &mut u32 {
            &mut self.1
        }
    }

    #[test]
    fn places_are_used_again_and_known_to_be_others() {
        let mut slab = Slab::new();
        let new = |value| TestItem(value, 99);
        let numbers: Vec<_> = (0..300).map(|i| slab.insert(new(i)).0).collect();
        assert_eq!(numbers, (0..300).collect::<Vec<_>>());
        assert_eq!(slab.end(), 300);
        assert_eq!(slab.remove(7), Some(TestItem(7, 0)));
        assert_eq!(slab.remove(7), None);
        assert_eq!(slab.remove(130), Some(TestItem(130, 0)));
        assert_eq!(slab.get(130), None);
        assert_eq!(slab.insert(new(1000)), (130, 1));
        assert_eq!(slab.insert(new(1001)), (7, 1));
        assert_eq!(slab.insert(new(1002)), (300, 0));
        assert_eq!(slab.get(130), Some(&TestItem(1000, 1)));
        assert_eq!(slab.get(300), Some(&TestItem(1002, 0)));
        assert!(slab.get(4000).is_none() && slab.get_mut(SLAB_END).is_none());
    }
}
