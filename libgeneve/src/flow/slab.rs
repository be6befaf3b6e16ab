//! Storage whose places have numbers, grows without moving what it holds, and never shrinks.
//!
//! It grows by a chunk at a time, so that neither an idle table costs memory nor a growing one a
//! pause to copy. A place counts how often it was given up, so that a number kept elsewhere can be
//! known to be out of date.

const CHUNK: usize = 128;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Vec<Place<T>>>,
    free: u32,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    content: Content<T>,
}

#[derive(Debug)]
enum Content<T> {
    Vacant { next: u32 },
    Taken(T),
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Slab {
            chunks: Vec::new(),
            free: NONE,
        }
    }

    /// One more than the highest number in use so far.
    pub(super) fn end(&self) -> u32 {
        match self.chunks.last() {
            Some(last) => ((self.chunks.len() - 1) * CHUNK + last.len()) as u32,
            None => 0,
        }
    }

    #[inline]
    fn place(&self, at: u32) -> Option<&Place<T>> {
        self.chunks
            .get(at as usize / CHUNK)?
            .get(at as usize % CHUNK)
    }

    #[inline]
    fn place_mut(&mut self, at: u32) -> Option<&mut Place<T>> {
        self.chunks
            .get_mut(at as usize / CHUNK)?
            .get_mut(at as usize % CHUNK)
    }

    #[inline]
    pub(super) fn get(&self, at: u32) -> Option<&T> {
        match &self.place(at)?.content {
            Content::Taken(value) => Some(value),
            Content::Vacant { .. } => None,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        match &mut self.place_mut(at)?.content {
            Content::Taken(value) => Some(value),
            Content::Vacant { .. } => None,
        }
    }

    /// Whether the place still holds what it held when it was of this generation.
    #[inline]
    pub(super) fn is(&self, at: u32, generation: u32) -> bool {
        self.place(at)
            .is_some_and(|p| p.generation == generation && matches!(p.content, Content::Taken(_)))
    }

    /// The place's generation; 0 if it was never used.
    pub(super) fn generation(&self, at: u32) -> u32 {
        self.place(at).map_or(0, |place| place.generation)
    }

    /// Stores a value; gives its number and the place's generation.
    pub(super) fn insert(&mut self, value: T) -> (u32, u32) {
        let at = self.free;
        if let Some(place) = self.place_mut(at)
            && let Content::Vacant { next } = place.content
        {
            place.content = Content::Taken(value);
            let generation = place.generation;
            self.free = next;
            return (at, generation);
        }
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let at = self.end();
        if let Some(last) = self.chunks.last_mut() {
            last.push(Place {
                generation: 0,
                content: Content::Taken(value),
            });
        }
        (at, 0)
    }

    pub(super) fn remove(&mut self, at: u32) -> Option<T> {
        let next = self.free;
        let place = self.place_mut(at)?;
        if matches!(place.content, Content::Vacant { .. }) {
            return None;
        }
        place.generation = place.generation.wrapping_add(1);
        match std::mem::replace(&mut place.content, Content::Vacant { next }) {
            Content::Taken(value) => {
                self.free = at;
                Some(value)
            }
            Content::Vacant { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_known_to_be_others() {
        let mut slab = Slab::new();
        let numbers: Vec<_> = (0..300).map(|i| slab.insert(i).0).collect();
        assert_eq!(numbers, (0..300).collect::<Vec<_>>());
        assert_eq!(slab.end(), 300);
        assert_eq!(slab.remove(7), Some(7));
        assert_eq!(slab.remove(7), None);
        assert_eq!(slab.remove(130), Some(130));
        assert!(!slab.is(130, 0) && slab.get(130).is_none());
        assert_eq!(slab.insert(1000), (130, 1));
        assert_eq!(slab.insert(1001), (7, 1));
        assert_eq!(slab.insert(1002), (300, 0));
        assert!(slab.is(130, 1) && !slab.is(130, 0) && !slab.is(4000, 0));
        assert_eq!(slab.get_mut(130).map(|v| *v), Some(1000));
    }
}
