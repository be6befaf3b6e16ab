//! Which interfaces of the daemon's network namespace belong to the underlay, as workers look them up.
//!
//! What each interface is, the daemon finds out ([`crate::net::devices`]). An interface that is not in the table is not
//! known, and nothing that it received is believed.

use std::sync::Arc;

use arc_swap::ArcSwap;
use libgeneve::vpc::RxInterface;

/// What each interface is, by its index in the daemon's namespace. Immutable; the daemon publishes another one for each
/// change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RxInterfaces(Vec<(u32, RxInterface)>);

impl RxInterfaces {
    /// A table of these.
    #[must_use]
    pub fn new(interfaces: impl IntoIterator<Item = (u32, RxInterface)>) -> Self {
        let mut all: Vec<_> = interfaces.into_iter().collect();
        all.sort_unstable_by_key(|(index, _)| *index);
        RxInterfaces(all)
    }

    /// What the interface with this index is.
    #[must_use]
    pub fn of(&self, index: u32) -> RxInterface {
        let at = self.0.binary_search_by_key(&index, |(known, _)| *known);
        at.map_or(RxInterface::Unknown, |at| self.0[at].1)
    }
}

/// The table as one worker has it, and the interface that it looked up last.
#[derive(Debug, Default)]
pub(super) struct RxLookup {
    table: Arc<RxInterfaces>,
    latest: (u32, RxInterface),
}

impl RxLookup {
    /// Uses what was published last; to be called once a turn.
    #[inline]
    pub(super) fn refresh(&mut self, published: &ArcSwap<RxInterfaces>) {
        let now = published.load();
        if !Arc::ptr_eq(&now, &self.table) {
            self.table = Arc::clone(&now);
            self.latest = (0, RxInterface::Unknown);
        }
    }

    /// What the interface with this index is; 0 is none.
    #[inline]
    pub(super) fn of(&mut self, index: u32) -> RxInterface {
        if self.latest.0 != index {
            self.latest = (index, self.table.of(index));
        }
        self.latest.1
    }

    /// The index that was looked up last.
    pub(super) fn index(&self) -> u32 {
        self.latest.0
    }
}

#[cfg(test)]
mod tests {
    use libgeneve::vpc::LinkIndex;

    use super::*;

    #[test]
    fn what_is_not_in_the_table_is_not_known() {
        let link = RxInterface::Link(LinkIndex(3));
        let published = ArcSwap::from_pointee(RxInterfaces::new([
            (9, link),
            (2, RxInterface::Underlay),
            (1, RxInterface::Loopback),
        ]));
        let mut lookup = RxLookup::default();
        assert_eq!(
            lookup.of(2),
            RxInterface::Unknown,
            "before anything is published"
        );
        lookup.refresh(&published);
        for (index, expected) in [
            (2, RxInterface::Underlay),
            (2, RxInterface::Underlay),
            (9, link),
            (1, RxInterface::Loopback),
            (0, RxInterface::Unknown),
            (3, RxInterface::Unknown),
            (u32::MAX, RxInterface::Unknown),
        ] {
            assert_eq!(lookup.of(index), expected, "{index}");
        }
        lookup.of(2);
        published.store(Arc::new(RxInterfaces::new([(2, link)])));
        lookup.refresh(&published);
        assert_eq!(lookup.of(2), link);
    }
}
