//! Daemon's end of a tap.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libgeneve::drop::DropReason;
use libgeneve::time::Now;
use rtrb::{Consumer, RingBuffer};
use zerocopy::FromBytes;

use super::record::{HEAD, RecordHeader, TapRecord};
use super::{Tap, TapConfig};

/// Reader of a tap, over all workers. The tap ends when it is dropped.
#[derive(Debug)]
pub struct TapReader {
    rings: Vec<Consumer<u8>>,
    lost: Vec<Arc<AtomicU64>>,
    told: u64,
    scratch: Vec<u8>,
    // Reference-counted to limit the number of taps.
    _place: Arc<()>,
}

impl TapReader {
    /// Creates a tap for each worker.
    pub(in crate::io) fn new(
        config: TapConfig,
        workers: usize,
        place: Arc<()>,
    ) -> (Self, Vec<Tap>) {
        let config = Arc::new(config);
        let mut reader = TapReader {
            rings: Vec::with_capacity(workers),
            lost: Vec::with_capacity(workers),
            told: 0,
            scratch: Vec::new(),
            _place: place,
        };
        let taps = (0..workers).map(|_| {
            let (ring, other) = RingBuffer::new(config.room);
            let lost = Arc::new(AtomicU64::new(0));
            reader.rings.push(other);
            reader.lost.push(Arc::clone(&lost));
            Tap {
                config: Arc::clone(&config),
                ring,
                lost,
                next: [Now(0); DropReason::COUNT],
            }
        });
        let taps = taps.collect();
        (reader, taps)
    }

    /// Passes the waiting records to `each`, worker by worker, until it returns `false`.
    pub fn read(&mut self, mut each: impl FnMut(&TapRecord<'_>) -> bool) {
        for ring in &mut self.rings {
            while ring.slots() >= HEAD {
                let mut head = [0; HEAD];
                {
                    // Only peeked at: the head is consumed together with its bytes.
                    let Ok(chunk) = ring.read_chunk(HEAD) else {
                        break;
                    };
                    let (a, b) = chunk.as_slices();
                    head[..a.len()].copy_from_slice(a);
                    head[a.len()..].copy_from_slice(b);
                }
                let Ok(head) = RecordHeader::read_from_bytes(&head) else {
                    break;
                };
                let stored = head.stored as usize;
                // The bytes are written a moment after the head.
                let Ok(chunk) = ring.read_chunk(HEAD + stored) else {
                    break;
                };
                let (a, b) = chunk.as_slices();
                self.scratch.clear();
                self.scratch.extend(a.iter().chain(b).skip(HEAD));
                chunk.commit_all();
                if !each(&head.record(&self.scratch)) {
                    return;
                }
            }
        }
    }

    /// Number of packets that did not fit since the last call.
    pub fn lost(&mut self) -> u64 {
        let all: u64 = self.lost.iter().map(|n| n.load(Relaxed)).sum();
        all - std::mem::replace(&mut self.told, all)
    }
}
