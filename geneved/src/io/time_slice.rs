//! Scheduling parameters of a worker thread.

use std::time::Duration;

/// Approximately Linux's default time slice, which grows with the number of CPUs.
const NORMAL_SLICE: Duration = Duration::from_millis(3);
/// Time slice of a worker while packets are small. With the default slice, a worker that shares its core hands its
/// neighbours more packets than their sockets hold; with a short one it runs sooner and for a shorter time, at the
/// same share of the core.
const SHORT_SLICE: Duration = Duration::from_micros(150);

/// First version of `struct sched_attr` (sched_setattr(2)).
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Gives the calling thread a short time slice, or the default one in `bulk`, where preemption costs throughput and
/// few packets fill a socket anyway. Kernels before 6.12 ignore it. If the kernel or a sandbox refuses, the thread
/// keeps its slice: the worker still works, only less evenly.
pub(super) fn set_slice(bulk: bool) {
    let attributes = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        runtime: if bulk { NORMAL_SLICE } else { SHORT_SLICE }.as_nanos() as u64,
        ..SchedAttr::default()
    };
    // SAFETY: the kernel reads `size` bytes from the structure, which lives until the call returns.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}
