//! Quality of service: classes, and what holds links, endpoints and classes to a rate.
//!
//! A [`Bucket`] says whether a packet is within its rate, or when it will be. What is not waits in a [`Shaper`], which says
//! what leaves next and what is dropped. Which buckets a packet meets is the datapath's business; bytes and timers
//! are the caller's. A class's DSCP goes into the outer header in the datapath, too.

mod bucket;
mod codel;
mod flows;
mod shaper;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use self::bucket::{Bucket, take_all};
pub use self::shaper::{Admission, Capacity, Leaving, Outcome, Queueing, Shaper};
use crate::time::Now;

/// A class of service, ready for the packet path.
#[derive(Clone, Debug)]
pub struct Class {
    /// The number that the class option carries.
    pub id: u8,
    /// Its name, unique on the link.
    pub name: String,
    /// What holds it to its rate on the way out; `None` where it has none.
    pub bucket: Option<Arc<Bucket>>,
    /// The same on the way in: the two directions do not share a rate.
    pub ingress: Option<Arc<Bucket>>,
    /// The DSCP of the outer header, 0 to 63; `None` where the link's setting applies.
    pub dscp: Option<u8>,
    /// What passed it, and what did not; shared by those that follow each other under one name.
    pub tally: Arc<Tally>,
}

/// Bytes that met a class; inner IP packets, headers included.
#[derive(Debug, Default)]
pub struct Tally {
    passed: AtomicU64,
    refused: AtomicU64,
    marked: AtomicU64,
    waiting: AtomicU64,
}

/// What a [`Tally`] says, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallied {
    /// What passed.
    pub passed: u64,
    /// What was dropped, because it was over a rate.
    pub refused: u64,
    /// What passed with a mark that it experienced congestion (RFC 3168).
    pub marked: u64,
    /// What waits now.
    pub waiting: u64,
}

impl Tally {
    /// Counts a packet that was within every rate, or over one.
    #[inline]
    pub fn count(&self, bytes: u64, passed: bool) {
        let counter = if passed { &self.passed } else { &self.refused };
        counter.fetch_add(bytes, Relaxed);
    }

    /// What was counted.
    #[must_use]
    pub fn read(&self) -> Tallied {
        Tallied {
            passed: self.passed.load(Relaxed),
            refused: self.refused.load(Relaxed),
            marked: self.marked.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
        }
    }
}

/// The rates and the marks of packets.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// The buckets of link, endpoint and class; each must have room.
    pub buckets: [Option<Arc<Bucket>>; 3],
    /// The outer DSCP, 0 to 63, where the class has one.
    pub dscp: Option<u8>,
    /// Drop precedence, 0 (last to be dropped) to 2.
    pub precedence: u8,
    /// The class that counts its packets.
    pub class: Option<Arc<Class>>,
}

impl Meter {
    /// The meter of packets that only this bucket limits; `None` where there is none.
    pub(crate) fn of(bucket: Option<&Arc<Bucket>>) -> Option<Arc<Meter>> {
        let bucket = Arc::clone(bucket?);
        Some(Arc::new(Meter {
            buckets: [Some(bucket), None, None],
            ..Meter::default()
        }))
    }

    /// Whether there is a rate at all.
    #[inline]
    #[must_use]
    pub fn limits(&self) -> bool {
        self.buckets.iter().any(Option::is_some)
    }

    /// Counts a packet for its class.
    #[inline]
    pub fn count(&self, bytes: u64, passed: bool) {
        if let Some(class) = &self.class {
            class.tally.count(bytes, passed);
        }
    }

    fn buckets(&self) -> impl Iterator<Item = &Bucket> + Clone {
        self.buckets.iter().flatten().map(Arc::as_ref)
    }

    /// What tells apart whose packets wait for each other: it stays the same when tables are published that leave buckets
    /// and class as they are.
    fn identity(&self) -> [usize; 4] {
        let at =
            |bucket: &Option<Arc<Bucket>>| bucket.as_ref().map_or(0, |b| Arc::as_ptr(b).addr());
        let [link, endpoint, class] = self.buckets.each_ref().map(at);
        let tally = |class: &Arc<Class>| Arc::as_ptr(&class.tally).addr();
        let counted = self.class.as_ref().map_or(0, tally);
        [link, endpoint, class, counted]
    }
}

/// A packet that must be within rates before it goes on.
#[derive(Clone, Debug)]
pub struct Metered {
    /// Which rates.
    pub meter: Arc<Meter>,
    /// Tells its flow from others.
    pub flow: u32,
    /// Bytes that it is charged for: those of all inner packets that it is on the wire. 0 for another copy of a packet
    /// that was paid for.
    pub bytes: u64,
}

impl Metered {
    /// Whether it is within every rate now; if so, it is paid for and counted.
    #[inline]
    #[must_use]
    pub fn passes(&self, now: Now) -> bool {
        let passes = take_all(self.meter.buckets(), self.bytes, now, self.meter.precedence);
        if passes {
            self.meter.count(self.bytes, true);
        }
        passes
    }
}

/// Whom a bucket limits, within one link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    /// The link as a whole, on the way out.
    Link,
    /// The link as a whole, on the way in.
    LinkIngress,
    /// The class of this name, on the way out.
    Class(String),
    /// The class of this name, on the way in.
    ClassIngress(String),
    /// The endpoint at this address.
    Endpoint(IpAddr),
}

/// Hands out buckets, so that one whose rate and burst stay as they are keeps its level across a change of
/// configuration, and a reload gives nobody another burst.
#[derive(Debug, Default)]
pub struct Buckets {
    /// By link.
    known: HashMap<String, HashMap<Limited, Kept>>,
}

#[derive(Debug)]
struct Kept {
    bucket: Arc<Bucket>,
    /// Asked for since the last [`Buckets::prune`].
    wanted: bool,
}

impl Buckets {
    /// The bucket of this link and of whom it limits there: the one that was handed out before where `rate`
    /// (bytes a second) and `burst` (bytes) are the same, else a full one.
    pub fn bucket(&mut self, link: &str, limited: Limited, rate: u64, burst: u64) -> Arc<Bucket> {
        let fresh = || Arc::new(Bucket::new(rate, burst));
        let kept = self
            .known
            .entry(link.to_owned())
            .or_default()
            .entry(limited)
            .or_insert_with(|| Kept {
                bucket: fresh(),
                wanted: true,
            });
        kept.wanted = true;
        if (kept.bucket.rate(), kept.bucket.burst()) != (rate, burst) {
            kept.bucket.retire(true);
            kept.bucket = fresh();
        }
        kept.bucket.retire(false);
        Arc::clone(&kept.bucket)
    }

    /// Forgets the buckets of a link that nobody else holds. What waits for one that was not asked for since the last call
    /// waits no longer: its limit is not configured any more.
    pub fn prune(&mut self, link: &str) {
        let Some(of_link) = self.known.get_mut(link) else {
            return;
        };
        of_link.retain(|_, kept| {
            if !std::mem::take(&mut kept.wanted) {
                kept.bucket.retire(true);
            }
            Arc::strong_count(&kept.bucket) > 1
        });
        if of_link.is_empty() {
            self.known.remove(link);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_survives_a_change_of_configuration_that_leaves_it_alone() {
        let mut buckets = Buckets::default();
        let bulk = || Limited::Class("bulk".into());
        let before = buckets.bucket("gnv0", bulk(), 1000, 100);
        assert!(before.take(100, Now(0)));
        let after = buckets.bucket("gnv0", bulk(), 1000, 100);
        assert!(Arc::ptr_eq(&before, &after));
        let limited = [("gnv1", bulk()), ("gnv0", Limited::Link)];
        for (link, limited) in limited {
            assert!(!Arc::ptr_eq(
                &before,
                &buckets.bucket(link, limited, 1000, 100)
            ));
        }
        let faster = buckets.bucket("gnv0", bulk(), 2000, 100);
        assert!(faster.take(100, Now(0)));
        drop((before, after));
        buckets.prune("gnv1");
        buckets.prune("gnv0");
        assert_eq!(buckets.known.len(), 1);
        assert_eq!(buckets.known["gnv0"].len(), 1);
    }
}
