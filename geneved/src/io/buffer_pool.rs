//! Packet buffers: one anonymous mapping divided into equal pieces, each with a reference count.
//!
//! A buffer belongs to the backend while it waits for a packet, and to the worker from the completion that filled it
//! until the last train or TUN write that points into it is done. The stride is an odd number of cache lines, so that
//! packet headers do not all map to the same cache sets.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

const HUGE_PAGE: usize = 2 << 20;
/// Memory is not reserved before it is touched. Miri does not know the flag.
const NO_RESERVE: MapFlags = match cfg!(miri) {
    true => MapFlags::empty(),
    false => MapFlags::MAP_NORESERVE,
};

/// Buffer ID: the buffer's number within its pool.
pub(super) type BufferId = u16;

/// Buffer pool.
pub(super) struct BufferPool {
    mapping: NonNull<u8>,
    base: NonNull<u8>,
    mapped: NonZeroUsize,
    len: usize,
    stride: usize,
    refs: Box<[u16]>,
    held: u16,
}

impl BufferPool {
    /// Maps `count` buffers of `len` bytes; memory is touched only as packets arrive.
    pub(super) fn new(count: u16, len: usize) -> io::Result<Self> {
        let lines = len.div_ceil(64) | 1;
        let stride = lines * 64;
        // Slack for aligning to a huge page: with small pages, TLB misses cost more than a tenth of the throughput.
        let mapped = (stride * usize::from(count)).next_multiple_of(HUGE_PAGE) + HUGE_PAGE;
        let mapped = NonZeroUsize::new(mapped).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: an anonymous private mapping at an address chosen by the kernel aliases nothing.
        let mapping = unsafe {
            mmap_anonymous(
                None,
                mapped,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE | NO_RESERVE,
            )
        }?
        .cast::<u8>();
        let skip = mapping.as_ptr().align_offset(HUGE_PAGE);
        // SAFETY: `skip` is less than a huge page, and the mapping is longer than the buffers by that much.
        let base = unsafe { mapping.add(skip) };
        // Miri does not emulate pages.
        if !cfg!(miri) {
            // SAFETY: the range lies inside the mapping; the advice changes no content. A kernel without huge pages
            // refuses it, which is harmless.
            let _ = unsafe {
                madvise(
                    base.cast(),
                    mapped.get() - HUGE_PAGE,
                    MmapAdvise::MADV_HUGEPAGE,
                )
            };
        }
        let refs = vec![0; usize::from(count)].into_boxed_slice();
        Ok(BufferPool {
            mapping,
            base,
            mapped,
            len,
            stride,
            refs,
            held: 0,
        })
    }

    /// Number of buffers.
    pub(super) fn count(&self) -> u16 {
        self.refs.len() as u16
    }

    /// Number of buffers that are in use.
    pub(super) fn held(&self) -> u16 {
        self.held
    }

    /// Length of each buffer in bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Address of a buffer's first byte.
    pub(super) fn addr(&self, buffer_id: BufferId) -> *mut u8 {
        self.map().addr(buffer_id)
    }

    /// Layout of the pool, for code that needs addresses only.
    pub(super) fn map(&self) -> PoolLayout {
        PoolLayout {
            base: self.base,
            stride: self.stride,
            count: self.refs.len(),
        }
    }

    /// Returns the bytes of a buffer that the worker holds.
    pub(super) fn bytes_mut(&mut self, buffer_id: BufferId) -> &mut [u8] {
        // SAFETY: the `len` bytes lie inside the mapping, which self owns, are initialised because anonymous memory
        // is zero, and overlap no other buffer; `&mut self` excludes other references made here. As for holders of
        // plain addresses:
        // - The kernel writes into a buffer only while the backend owns it, which ended with the completion that gave
        //   this bid to the worker.
        // - Open or queued trains and TUN writes are read, by the kernel and by taps, while the buffer may be
        //   borrowed again: for another datagram of the same received train, whose bytes are disjoint; or for the
        //   same packet on its way to one more host, which only reads it, except that an MSS that may be too large
        //   for this host, too, is lowered further. In that case the checksum is updated as well before the kernel
        //   sees it, because the kernel reads trains within the worker's own calls (`MSG_DONTWAIT`). Within one
        //   borrow, a packet is written before the first piece of it is queued.
        unsafe { std::slice::from_raw_parts_mut(self.addr(buffer_id), self.len) }
    }

    /// Adds a reference to the buffer.
    pub(super) fn hold(&mut self, buffer_id: BufferId) {
        let refs = &mut self.refs[usize::from(buffer_id)];
        self.held += u16::from(*refs == 0);
        *refs += 1;
    }

    /// Drops a reference; returns true if it was the last, and the buffer may go back to the backend.
    #[must_use]
    pub(super) fn release(&mut self, buffer_id: BufferId) -> bool {
        let refs = &mut self.refs[usize::from(buffer_id)];
        *refs -= 1;
        self.held -= u16::from(*refs == 0);
        *refs == 0
    }
}

/// Layout of a pool: maps buffer IDs to addresses without access to the bytes.
#[derive(Clone, Copy)]
pub(super) struct PoolLayout {
    base: NonNull<u8>,
    stride: usize,
    count: usize,
}

impl PoolLayout {
    /// Address of a buffer's first byte.
    pub(super) fn addr(self, buffer_id: BufferId) -> *mut u8 {
        assert!(usize::from(buffer_id) < self.count);
        // SAFETY: bid is below count, so the offset lies inside the mapping of count * stride bytes.
        unsafe { self.base.as_ptr().add(usize::from(buffer_id) * self.stride) }
    }

    /// Returns the iovec for `len` bytes of a buffer from `start`.
    pub(super) fn iovec(self, buffer_id: BufferId, start: usize, len: usize) -> libc::iovec {
        assert!(start <= self.stride && len <= self.stride - start);
        // SAFETY: `start` is at most the buffer's `stride`, and all of that lies inside the mapping.
        let base = unsafe { self.addr(buffer_id).add(start) };
        libc::iovec {
            iov_base: base.cast(),
            iov_len: len,
        }
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        // SAFETY: `mapping` and `mapped` come from the call in `new`, and no reference into it can outlive self. The
        // backend, which knows the addresses, is dropped before its buffers.
        let _ = unsafe { munmap(self.mapping.cast(), self.mapped.get()) };
    }
}
