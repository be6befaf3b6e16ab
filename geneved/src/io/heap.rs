//! Allocator limits, so that the daemon's memory use follows what it holds.

/// Block size from which an allocation has pages of its own, and free bytes at the top of the heap from which they
/// are returned to the kernel. By default glibc raises both to up to 32 and 64 MiB after a block of that size was
/// freed (mallopt(3)), so one large call on the control socket or one large list would stay resident for ever.
#[cfg(target_env = "gnu")]
const THRESHOLD: libc::c_int = 128 << 10;

/// Sets the limits; must be called before there is a second thread. One arena suffices: workers do not allocate, and
/// each further arena would retain what a short-lived thread left in it.
pub fn bound_heap() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, THRESHOLD),
        (libc::M_TRIM_THRESHOLD, THRESHOLD),
    ] {
        // SAFETY: mallopt(3) takes two integers, keeps no pointer, and rejects unknown parameters. No other thread
        // allocates yet.
        unsafe { libc::mallopt(parameter, value) };
    }
}
