//! The allocator's bounds, so that the daemon's memory follows what it holds.

/// Bytes from which a block has pages of its own, and free bytes at the end of the heap from which they are given back. By
/// itself glibc raises both up to 32 and 64 MiB once a block of that size was freed (mallopt(3)), and one large call of the
/// control socket or one large list stays resident for ever.
#[cfg(target_env = "gnu")]
const THRESHOLD: libc::c_int = 128 << 10;

/// Sets the bounds; to be called before there is a second thread. One arena is enough: workers do not allocate, and each
/// further one keeps what a short-lived thread left in it.
pub fn bound_heap() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, THRESHOLD),
        (libc::M_TRIM_THRESHOLD, THRESHOLD),
    ] {
        // SAFETY: mallopt(3) takes two integers, keeps no pointer, and refuses what it does not know. No other thread
        // allocates yet.
        unsafe { libc::mallopt(parameter, value) };
    }
}
