//! Quality of service: classes, and rate limits of links, endpoints and classes.
//!
//! A [`Bucket`] says whether a packet is within its rate, or when it will be. Packets that are not wait in a
//! [`Shaper`], which decides what leaves next and what is dropped. The datapath chooses the buckets for a packet and
//! writes a class's DSCP to the outer header; the caller keeps bytes and timers.

mod bucket;
mod codel;
mod flow_queues;
mod shaper;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use self::bucket::{Bucket, take_all};
pub use self::shaper::{
    DequeueAction, Dequeued, EnqueueRequest, QueueAdmission, QueueCapacity, Shaper,
};
use crate::time::Now;

/// QoS class as the packet path uses it.
#[derive(Clone, Debug)]
pub struct QosClass {
    /// Number carried in the class option.
    pub id: u8,
    /// Name, unique on the link.
    pub name: String,
    /// Egress rate limit, if any.
    pub bucket: Option<Arc<Bucket>>,
    /// Ingress rate limit, if any; the two directions do not share a rate.
    pub ingress: Option<Arc<Bucket>>,
    /// Outer DSCP, 0 to 63; `None` to use the link's setting.
    pub dscp: Option<u8>,
    /// Counters; kept when the class is reconfigured under the same name.
    pub tally: Arc<ClassCounters>,
}

/// Byte counters of a class, over inner IP packets with their headers.
#[derive(Debug, Default)]
pub struct ClassCounters {
    passed: AtomicU64,
    refused: AtomicU64,
    marked: AtomicU64,
    waiting: AtomicU64,
}

/// Snapshot of a [`ClassCounters`], in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassStats {
    /// Passed.
    pub passed: u64,
    /// Dropped because a rate was exceeded.
    pub refused: u64,
    /// Passed with a congestion mark (RFC 3168).
    pub marked: u64,
    /// Queued now.
    pub waiting: u64,
}

impl ClassCounters {
    /// Counts a packet that was within all rates, or was over one.
    #[inline]
    pub fn count(&self, bytes: u64, passed: bool) {
        let counter = if passed { &self.passed } else { &self.refused };
        counter.fetch_add(bytes, Relaxed);
    }

    /// Returns a snapshot.
    #[must_use]
    pub fn read(&self) -> ClassStats {
        ClassStats {
            passed: self.passed.load(Relaxed),
            refused: self.refused.load(Relaxed),
            marked: self.marked.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
        }
    }
}

/// Rates that apply to a packet, and its markings.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// Buckets of link, endpoint and class; all must have room.
    pub buckets: [Option<Arc<Bucket>>; 3],
    /// Outer DSCP, 0 to 63, if the class has one.
    pub dscp: Option<u8>,
    /// Drop precedence, 0 (dropped last) to 2.
    pub precedence: u8,
    /// The class that counts its packets.
    pub class: Option<Arc<QosClass>>,
}

impl Meter {
    /// Returns a meter with this bucket only; `None` without a bucket.
    pub(crate) fn of(bucket: Option<&Arc<Bucket>>) -> Option<Arc<Meter>> {
        let bucket = Arc::clone(bucket?);
        Some(Arc::new(Meter {
            buckets: [Some(bucket), None, None],
            ..Meter::default()
        }))
    }

    /// Whether any rate applies.
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

    /// Identity of a queue: stays the same when new tables are published that leave buckets and class unchanged.
    fn identity(&self) -> [usize; 4] {
        let at =
            |bucket: &Option<Arc<Bucket>>| bucket.as_ref().map_or(0, |b| Arc::as_ptr(b).addr());
        let [link, endpoint, class] = self.buckets.each_ref().map(at);
        let tally = |class: &Arc<QosClass>| Arc::as_ptr(&class.tally).addr();
        let counted = self.class.as_ref().map_or(0, tally);
        [link, endpoint, class, counted]
    }
}

/// Packet to be checked against its rates.
#[derive(Clone, Debug)]
pub struct Metered {
    /// Rates that apply.
    pub meter: Arc<Meter>,
    /// Flow hash.
    pub flow: u32,
    /// Bytes charged: those of all inner packets that it becomes on the wire. 0 for another copy of a packet that was
    /// charged already.
    pub bytes: u64,
}

impl Metered {
    /// Whether it is within all rates now; if so, charges and counts it.
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

/// What a bucket limits within one link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BucketKey {
    /// The link as a whole, egress.
    Link,
    /// The link as a whole, ingress.
    LinkIngress,
    /// The class of this name, egress.
    Class(String),
    /// The class of this name, ingress.
    ClassIngress(String),
    /// The endpoint at this address.
    Endpoint(IpAddr),
}

/// Registry of buckets. A bucket whose rate and burst do not change keeps its level when the configuration changes,
/// so that a reload does not grant another burst.
#[derive(Debug, Default)]
pub struct BucketRegistry {
    /// By link name.
    known: HashMap<String, HashMap<BucketKey, RetainedBucket>>,
}

#[derive(Debug)]
struct RetainedBucket {
    bucket: Arc<Bucket>,
    /// Whether it was asked for since the last [`BucketRegistry::prune`].
    wanted: bool,
}

impl BucketRegistry {
    /// Returns the bucket of `limited` on this link: the existing one if `rate` (bytes a second) and `burst` (bytes)
    /// are the same, otherwise a full one.
    pub fn bucket(&mut self, link: &str, limited: BucketKey, rate: u64, burst: u64) -> Arc<Bucket> {
        let fresh = || Arc::new(Bucket::new(rate, burst));
        let kept = self
            .known
            .entry(link.to_owned())
            .or_default()
            .entry(limited)
            .or_insert_with(|| RetainedBucket {
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

    /// Drops the buckets of a link that nothing else holds. Buckets that were not asked for since the last call are no
    /// longer configured; packets that wait for one are released.
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
        let mut buckets = BucketRegistry::default();
        let bulk = || BucketKey::Class("bulk".into());
        let before = buckets.bucket("gnv0", bulk(), 1000, 100);
        assert!(before.take(100, Now(0)));
        let after = buckets.bucket("gnv0", bulk(), 1000, 100);
        assert!(Arc::ptr_eq(&before, &after));
        let limited = [("gnv1", bulk()), ("gnv0", BucketKey::Link)];
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
