//! Progress of a worker: statistics that it publishes after each turn, and a watchdog that detects a stuck one.
//!
//! The worker writes with plain stores; the reader asks the kernel for the thread's CPU time.

use std::sync::atomic::{AtomicI32, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::pool_sizes::{TRAINS, TUN_BUFFERS, UDP_BUFFERS, WRITES};

/// A worker that was woken and took no turn for this long is stuck.
const STUCK: Duration = Duration::from_secs(3);

/// Usage of a worker's fixed resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUsage {
    /// Buffers for packets from TUN.
    pub tun_buffers: u16,
    /// Buffers for trains from the wire.
    pub udp_buffers: u16,
    /// Trains that are being filled or in flight.
    pub trains: u16,
    /// TUN writes in flight.
    pub writes: u16,
}

impl PoolUsage {
    /// Capacity of a worker.
    pub const LIMIT: PoolUsage = PoolUsage {
        tun_buffers: TUN_BUFFERS,
        udp_buffers: UDP_BUFFERS,
        trains: TRAINS as u16,
        writes: WRITES as u16,
    };
}

/// Published progress of one worker.
#[derive(Debug, Default)]
pub(super) struct WorkerProgress {
    thread: AtomicI32,
    turns: AtomicU64,
    tun_buffers: AtomicU16,
    udp_buffers: AtomicU16,
    trains: AtomicU16,
    writes: AtomicU16,
}

impl WorkerProgress {
    /// Records the calling thread as the worker's.
    pub(super) fn set_thread(&self) {
        self.thread.store(nix::unistd::gettid().as_raw(), Relaxed);
    }

    /// Ends a turn. Only the worker calls this, so a load and a store suffice.
    #[inline]
    pub(super) fn end_turn(&self, in_use: &PoolUsage) {
        self.turns
            .store(self.turns.load(Relaxed).wrapping_add(1), Relaxed);
        self.tun_buffers.store(in_use.tun_buffers, Relaxed);
        self.udp_buffers.store(in_use.udp_buffers, Relaxed);
        self.trains.store(in_use.trains, Relaxed);
        self.writes.store(in_use.writes, Relaxed);
    }

    pub(super) fn report(&self, liveness: &WorkerLiveness, now: Instant) -> WorkerReport {
        WorkerReport {
            turns: self.turns.load(Relaxed),
            cpu: cpu_time(self.thread.load(Relaxed)),
            stalled: liveness.stalled(now),
            in_use: PoolUsage {
                tun_buffers: self.tun_buffers.load(Relaxed),
                udp_buffers: self.udp_buffers.load(Relaxed),
                trains: self.trains.load(Relaxed),
                writes: self.writes.load(Relaxed),
            },
        }
    }
}

/// CPU time of a thread of this process; `None` if the kernel does not provide it.
fn cpu_time(thread: i32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    let nanoseconds = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

/// Status report of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerReport {
    /// Turns of its loop since it started.
    pub turns: u64,
    /// CPU time of its thread; `None` if the kernel does not provide it, or the thread is gone.
    pub cpu: Option<Duration>,
    /// How long it has taken no turn although it was woken; zero if it is not stuck.
    pub stalled: Duration,
    /// What is in use of what [`PoolUsage::LIMIT`] says that it has.
    pub in_use: PoolUsage,
}

/// Watchdog state for one worker.
#[derive(Debug, Default)]
pub(super) struct WorkerLiveness {
    turns: u64,
    /// When it was first seen without progress, and woken.
    woken: Option<Instant>,
}

impl WorkerLiveness {
    /// Whether the worker took no turn since the last call.
    pub(super) fn is_idle(&mut self, progress: &WorkerProgress, now: Instant) -> bool {
        let turns = progress.turns.load(Relaxed);
        if turns != self.turns {
            *self = WorkerLiveness { turns, woken: None };
            return false;
        }
        self.woken.get_or_insert(now);
        true
    }

    fn stalled(&self, now: Instant) -> Duration {
        let woken = self.woken.map(|woken| now.saturating_duration_since(woken));
        woken.filter(|&since| since >= STUCK).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_does_not_turn_when_it_is_woken_is_stalled() {
        let (progress, mut liveness, start) = (
            WorkerProgress::default(),
            WorkerLiveness::default(),
            Instant::now(),
        );
        let after = |seconds| start + Duration::from_secs(seconds);
        progress.end_turn(&PoolUsage::default());
        assert!(!liveness.is_idle(&progress, after(0)));
        assert!(liveness.is_idle(&progress, after(1)));
        assert_eq!(progress.report(&liveness, after(2)).stalled, Duration::ZERO);
        assert!(liveness.is_idle(&progress, after(9)));
        assert_eq!(
            progress.report(&liveness, after(9)).stalled,
            Duration::from_secs(8)
        );
        progress.end_turn(&PoolUsage::default());
        assert!(!liveness.is_idle(&progress, after(10)));
        assert_eq!(
            progress.report(&liveness, after(99)).stalled,
            Duration::ZERO
        );
    }

    #[test]
    fn a_thread_has_cpu_time() {
        let progress = WorkerProgress::default();
        assert_eq!(
            progress
                .report(&WorkerLiveness::default(), Instant::now())
                .cpu,
            None
        );
        progress.set_thread();
        // The kernel updates it only from tick to tick.
        let cpu = || {
            progress
                .report(&WorkerLiveness::default(), Instant::now())
                .cpu
        };
        while cpu().expect("the kernel tells") == Duration::ZERO {}
    }
}
