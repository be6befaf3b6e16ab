//! Drop events for watching clients: per link, direction and reason, a count every second and one sample packet.
//!
//! Counts are exact, because they are the workers' own; packets are samples, of which each worker provides a few.
//! Without watchers nothing is read.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use libgeneve::drop::DropReason;
use libgeneve::vpc::LinkIndex;

use super::core::Core;
use super::flows::names;
use crate::config::value::{DirectionValue as Way, ProtocolValue};
use crate::control::protocol::{DropEvent, DropSample, EventKind, Topic};
use crate::io::{LinkCounters, TapConfig, TapReader, TapRecord, TrafficDirection};

/// Minimum time between two samples of the same reason from one worker.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(200);
/// Bytes of samples buffered per worker; they are headers only.
const SAMPLE_RING: usize = 64 << 10;
/// Maximum number of events a second; the excess is reported a second later.
const MAX_EVENTS: usize = 256;

type DropKey = (Option<LinkIndex>, u8, DropReason);

/// What was reported so far.
#[derive(Debug)]
pub(super) struct DropReporter {
    /// `None` if too many clients have taps already.
    tap: Option<TapReader>,
    told: HashMap<Option<LinkIndex>, LinkCounters>,
    samples: BTreeMap<DropKey, DropSample>,
}

impl Core {
    /// Starts counting for a watcher; earlier drops are not reported.
    pub(super) async fn begin_drops(&self) {
        if self.drops.borrow().is_some() || !self.hub().wants(Topic::Drop) {
            return;
        }
        let tap = self.engine().tap(TapConfig {
            dropped: true,
            snaplen: 0,
            room: SAMPLE_RING,
            pause: SAMPLE_INTERVAL,
            ..TapConfig::default()
        });
        let told = self.drop_counts().await;
        *self.drops.borrow_mut() = Some(DropReporter {
            tap,
            told,
            samples: BTreeMap::new(),
        });
    }

    async fn drop_counts(&self) -> HashMap<Option<LinkIndex>, LinkCounters> {
        let inner = self.inner().await;
        let links = inner.running.values().map(|r| Some(r.index));
        let count = |link: Option<LinkIndex>| match link {
            Some(link) => self.engine().link_counters(link),
            None => self.engine().host_counters(),
        };
        links
            .chain([None])
            .map(|link| (link, count(link)))
            .collect()
    }

    /// Reports what was dropped since the last call; call about once a second.
    pub(super) async fn tell_drops(&self) {
        if !self.hub().wants(Topic::Drop) {
            self.drops.borrow_mut().take();
            return;
        }
        self.begin_drops().await;
        let counts = self.drop_counts().await;
        let names = names(&*self.inner().await);
        let mut drops = self.drops.borrow_mut();
        let Some(watch) = drops.as_mut() else { return };
        let mut events = 0;
        watch.collect();
        for (link, now) in counts {
            // A link added since then started at zero, and so did one that reuses an index.
            let before = watch.told.entry(link).or_default();
            let mut all = true;
            for (direction, way) in [
                (TrafficDirection::Ingress, Way::Ingress),
                (TrafficDirection::Egress, Way::Egress),
            ] {
                for (reason, count) in now.drops(direction) {
                    let told = before.drops_of(direction, reason);
                    let count = if count >= told { count - told } else { count };
                    if count == 0 {
                        continue;
                    }
                    if events == MAX_EVENTS {
                        all = false;
                        break;
                    }
                    events += 1;
                    self.hub().announce(EventKind::Drop(DropEvent {
                        dev: link.and_then(|link| names.get(&link).cloned()),
                        direction: way,
                        reason: reason.name().into(),
                        count,
                        vni: (reason == DropReason::UnknownVni)
                            .then(|| self.engine().unknown_vnis().first().map(|one| one.vni))
                            .flatten(),
                        sample: watch.samples.remove(&(link, direction as u8, reason)),
                    }));
                }
            }
            if all {
                *before = now;
            }
        }
        watch.samples.clear();
    }
}

impl DropReporter {
    /// Reads the samples taken since the last call; the latest of each kind is kept.
    fn collect(&mut self) {
        let samples = &mut self.samples;
        let Some(tap) = &mut self.tap else { return };
        tap.read(|record| {
            if let (Some(reason), Some(sample)) = (record.reason, sample(record)) {
                samples.insert((record.link, record.direction as u8, reason), sample);
            }
            true
        });
    }
}

fn sample(record: &TapRecord<'_>) -> Option<DropSample> {
    let tuple = record.tuple?;
    Some(DropSample {
        src: tuple.src,
        dst: tuple.dst,
        proto: ProtocolValue(tuple.protocol),
        sport: tuple.sport,
        dport: tuple.dport,
        length: record.length,
        host: record
            .outer
            .filter(|_| record.direction == TrafficDirection::Ingress)
            .map(|e| e.src.ip()),
    })
}
