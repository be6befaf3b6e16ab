//! Which interfaces of the daemon's network namespace belong to the underlay: lookup table for the workers.
//!
//! The daemon classifies the interfaces ([`crate::net::devices`]). An interface that is not in the table is unknown,
//! and nothing received on it is trusted.

use std::sync::Arc;

use arc_swap::ArcSwap;
use libgeneve::vpc::RxInterface;

/// Classification of interfaces by index in the daemon's namespace. Immutable; the daemon publishes a new table for
/// each change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RxInterfaces(Vec<(u32, RxInterface)>);

impl RxInterfaces {
    /// Builds a table.
    #[must_use]
    pub fn new(interfaces: impl IntoIterator<Item = (u32, RxInterface)>) -> Self {
        let mut all: Vec<_> = interfaces.into_iter().collect();
        all.sort_unstable_by_key(|(index, _)| *index);
        RxInterfaces(all)
    }

    /// Looks up an interface by index.
    #[must_use]
    pub fn of(&self, index: u32) -> RxInterface {
        let at = self.0.binary_search_by_key(&index, |(known, _)| *known);
        at.map_or(RxInterface::Unknown, |at| self.0[at].1)
    }
}

/// One worker's copy of the table, with a cache of the last lookup.
#[derive(Debug, Default)]
pub(super) struct RxLookup {
    table: Arc<RxInterfaces>,
    latest: (u32, RxInterface),
}

impl RxLookup {
    /// Switches to the latest published table; call once per turn.
    #[inline]
    pub(super) fn refresh(&mut self, published: &ArcSwap<RxInterfaces>) {
        let now = published.load();
        if !Arc::ptr_eq(&now, &self.table) {
            self.table = Arc::clone(&now);
            self.latest = (0, RxInterface::Unknown);
        }
    }

    /// Looks up an interface by index; 0 means none.
    #[inline]
    pub(super) fn of(&mut self, index: u32) -> RxInterface {
        if self.latest.0 != index {
            self.latest = (index, self.table.of(index));
        }
        self.latest.1
    }

    /// Index of the last lookup.
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
