//! Provided buffer rings of io_uring: which buffers are offered to which sockets.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::buffer_pool::{BufferId, BufferPool, PoolLayout};
use super::pool_sizes::{CROWD_BUFFERS, STRAY_BUFFERS};

/// Buffer groups for received trains: for any socket; for sockets with much to read while others have some, too; and
/// for datagrams of no VPC.
const USUAL_GROUP: u16 = 1;
const CROWD_GROUP: u16 = 2;
const STRAY_GROUP: u16 = 3;
/// Buffers in the ring while packets come in bulk. The ring is first in, first out, so with more of them each would
/// be out of the cache again by its next use.
const BULK_SUPPLY: u16 = 32;

/// Buffer rings for received trains.
pub(super) struct UdpBufferRings {
    pub(super) usual: BufferRing,
    crowd: BufferRing,
    stray: BufferRing,
}

impl UdpBufferRings {
    pub(super) fn new(ring: &IoUring, buffers: &BufferPool) -> io::Result<Self> {
        // The capability probe has only a few buffers.
        let part = buffers.count() / 3;
        let stray = buffers.count() - STRAY_BUFFERS.min(part);
        let crowd = stray - CROWD_BUFFERS.min(part);
        Ok(UdpBufferRings {
            usual: BufferRing::new(ring, USUAL_GROUP, buffers, 0..crowd)?,
            crowd: BufferRing::new(ring, CROWD_GROUP, buffers, crowd..stray)?,
            stray: BufferRing::new(ring, STRAY_GROUP, buffers, stray..buffers.count())?,
        })
    }

    /// Returns the ring that a buffer belongs to.
    pub(super) fn of(&mut self, buffer_id: BufferId) -> &mut BufferRing {
        match buffer_id {
            buffer_id if buffer_id >= self.stray.range.start => &mut self.stray,
            buffer_id if buffer_id >= self.crowd.range.start => &mut self.crowd,
            _ => &mut self.usual,
        }
    }

    pub(super) fn supply(&mut self) {
        for pool in [&mut self.usual, &mut self.crowd, &mut self.stray] {
            pool.supply();
        }
    }

    /// Chooses the group for the next receive of a socket; `much` says whether it has much to read.
    pub(super) fn group_for(&self, stray: bool, much: bool) -> Option<u16> {
        let has = |pool: &BufferRing| pool.available > 0;
        match (stray, much) {
            (true, _) => has(&self.stray).then_some(STRAY_GROUP),
            (false, false) if has(&self.usual) => Some(USUAL_GROUP),
            (false, _) => has(&self.crowd).then_some(CROWD_GROUP),
        }
    }
}

/// A ring of provided buffers (io_uring_register_buf_ring(3)), and the buffers that are not in it at the moment.
pub(super) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    layout: std::alloc::Layout,
    mask: u16,
    tail: u16,
    available: u16,
    /// IDs of the buffers that belong to this ring.
    range: Range<BufferId>,
    spare: Vec<BufferId>,
    /// Whether packets come in bulk.
    pub(super) bulk: bool,
    pub(super) map: PoolLayout,
    len: u32,
}

impl BufferRing {
    pub(super) fn new(
        ring: &IoUring,
        group: u16,
        buffers: &BufferPool,
        range: Range<BufferId>,
    ) -> io::Result<Self> {
        let count = (range.len() as u16).next_power_of_two();
        let layout = std::alloc::Layout::from_size_align(
            size_of::<BufRingEntry>() * usize::from(count),
            4096,
        )
        .map_err(io::Error::other)?;
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        let entries = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut pool = BufferRing {
            entries,
            layout,
            mask: count - 1,
            tail: 0,
            available: 0,
            spare: range.clone().rev().collect(),
            range,
            bulk: false,
            map: buffers.map(),
            len: buffers.len() as u32,
        };
        // SAFETY: the memory holds `count` entries, is page-aligned, and lives as long as self, which is dropped
        // after the io_uring instance.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(entries.as_ptr() as u64, count, group, 0)
        }?;
        pool.supply();
        Ok(pool)
    }

    /// Records that the kernel used a buffer.
    pub(super) fn taken(&mut self) {
        self.available -= 1;
    }

    /// Takes a buffer back.
    pub(super) fn give(&mut self, buffer_id: BufferId) {
        self.spare.push(buffer_id);
    }

    /// Adds buffers up to the target for the current pace; returns whether the ring has any.
    pub(super) fn supply(&mut self) -> bool {
        let target = if self.bulk {
            BULK_SUPPLY
        } else {
            self.mask + 1
        };
        // Buffers in use count, too: what matters is how many are in rotation.
        while self.range.len() - self.spare.len() < usize::from(target) {
            let Some(buffer_id) = self.spare.pop() else {
                break;
            };
            self.publish(buffer_id);
        }
        self.available > 0
    }

    fn publish(&mut self, buffer_id: BufferId) {
        let at = usize::from(self.tail & self.mask);
        // SAFETY: `at` is below the number of entries; the kernel reads entries only up to the tail, which is
        // published below.
        let entry = unsafe { self.entries.add(at).as_mut() };
        entry.set_addr(self.map.addr(buffer_id) as u64);
        entry.set_len(self.len);
        entry.set_bid(buffer_id);
        self.tail = self.tail.wrapping_add(1);
        self.available += 1;
        // SAFETY: `entries` is the ring's first entry, where the kernel expects the tail; the tail is aligned for a
        // u16 and shared with the kernel, hence the atomic store with release ordering.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout. The io_uring instance, the only other user, has been closed by
        // now.
        unsafe { std::alloc::dealloc(self.entries.as_ptr().cast(), self.layout) };
    }
}
