//! Tests of buffers, trains and writes in isolation, small enough for Miri to follow each pointer.

use std::sync::Arc;

use libgeneve::datapath::OuterTx;
use libgeneve::vpc::{Host, LinkIndex};

use super::*;
use crate::io::backend::PoolKind;
use crate::io::buffer_pool::BufferPool;
use crate::io::simulation::{REMOTE_HOSTS, simulated_pool};
use crate::io::train::{Train, TrainKey, TunWrite, TunWriteKind};
use crate::io::udp::AddressFamily;

const TRAIN_HEADER: &[u8] = b"header";

/// Returns an open train without datagrams.
fn train() -> Train {
    let (pool, host) = (simulated_pool(), Arc::new(Host::new(1, REMOTE_HOSTS[0])));
    let outer = OuterTx {
        df: true,
        ..OuterTx::default()
    };
    let source = pool.pick(AddressFamily::V4, &outer, 0, false).unwrap();
    let key = TrainKey {
        link: LinkIndex(0),
        host: 1,
        socket: source.socket,
        outer,
        options: 0,
        before: 6,
    };
    let mut train = Train::new();
    train.open(key, &pool, &host, source.port, 6081);
    train
}

fn lengths(train: &Train) -> Vec<usize> {
    let datagrams = train.datagrams();
    datagrams
        .map(|pieces| pieces.map(<[u8]>::len).sum())
        .collect()
}

#[test]
fn each_buffer_has_bytes_of_its_own_and_counts_its_users() {
    let mut buffers = BufferPool::new(3, 100).unwrap();
    for buffer_id in 0..3 {
        buffers.bytes_mut(buffer_id).fill(buffer_id as u8 + 1);
    }
    for buffer_id in 0..3 {
        assert_eq!(buffers.bytes_mut(buffer_id), [buffer_id as u8 + 1; 100]);
    }
    buffers.hold(1);
    buffers.hold(1);
    buffers.hold(2);
    assert_eq!(buffers.held(), 2);
    assert!(!buffers.release(1));
    assert!(buffers.release(1));
    assert!(buffers.release(2));
    assert_eq!(buffers.held(), 0);
}

#[test]
#[should_panic(expected = "assertion failed")]
fn no_iovec_leads_out_of_its_buffer() {
    let buffers = BufferPool::new(2, 100).unwrap();
    let _ = buffers.map().iovec(0, 60, 400);
}

#[test]
fn a_train_takes_equal_datagrams_and_ends_with_a_shorter_one() {
    let mut buffers = BufferPool::new(1, 1000).unwrap();
    buffers.bytes_mut(0).fill(7);
    let map = buffers.map();
    let mut train = train();
    for (at, len) in [(0, 50), (50, 50), (100, 20)] {
        assert!(train.fits(TRAIN_HEADER.len(), TRAIN_HEADER.len() + len));
        // SAFETY: the buffer outlives the train, and nothing writes to it meanwhile.
        unsafe { train.push(TRAIN_HEADER, 6, map.iovec(0, at, len)) };
    }
    assert!(
        !train.fits(TRAIN_HEADER.len(), 10),
        "a shorter one was the last"
    );
    assert_eq!((train.segments, train.segment_len), (3, 56));
    assert_eq!((train.bytes, train.encap_bytes), (138, 18));
    assert_eq!(lengths(&train), [56, 56, 26]);
    let mut singly = Vec::new();
    train.singly(|_, len| singly.push(len));
    assert_eq!(singly, [56, 56, 26]);
    assert_eq!(train.first(), [TRAIN_HEADER, &[7; 50]].concat());
    // The train sends what its buffer holds now.
    buffers.bytes_mut(0)[0] = 9;
    let first: Vec<u8> = train
        .datagrams()
        .next()
        .unwrap()
        .flatten()
        .copied()
        .collect();
    assert_eq!(first[TRAIN_HEADER.len()], 9);
}

#[test]
fn a_train_takes_no_more_than_the_kernel_does() {
    let buffers = BufferPool::new(1, 1000).unwrap();
    let (map, mut train) = (buffers.map(), train());
    let mut taken = 0;
    while train.fits(TRAIN_HEADER.len(), TRAIN_HEADER.len() + 2) {
        // SAFETY: the buffer outlives the train, and nothing writes to it meanwhile.
        unsafe { train.push(TRAIN_HEADER, 6, map.iovec(0, 0, 2)) };
        taken += 1;
    }
    assert_eq!(taken, 128);
    let mut long = self::train();
    let mut bytes = 0;
    while long.fits(TRAIN_HEADER.len(), TRAIN_HEADER.len() + 900) {
        // SAFETY: as above.
        unsafe { long.push(TRAIN_HEADER, 6, map.iovec(0, 0, 900)) };
        bytes += TRAIN_HEADER.len() + 900;
    }
    assert!(bytes <= 65_507 && bytes + 906 > 65_507);
}

#[test]
fn datagrams_that_are_wholly_in_their_headers_are_told_apart() {
    let mut train = train();
    let nothing = libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    };
    for _ in 0..3 {
        assert!(train.fits(TRAIN_HEADER.len(), TRAIN_HEADER.len()));
        // SAFETY: there is no payload.
        unsafe { train.push(TRAIN_HEADER, 6, nothing) };
    }
    assert_eq!(lengths(&train), [6, 6, 6]);
    let mut singly = Vec::new();
    train.singly(|_, len| singly.push(len));
    assert_eq!(singly, [6, 6, 6]);
}

#[test]
fn a_frames_header_goes_behind_the_virtio_header() {
    let mut buffers = BufferPool::new(1, 1000).unwrap();
    buffers.bytes_mut(0)[..14].copy_from_slice(b"ethernet      ");
    buffers.bytes_mut(0)[40..44].copy_from_slice(b"data");
    let map = buffers.map();
    let mut write = TunWrite::new();
    write.open(LinkIndex(0), TunWriteKind::Ingress, |scratch| {
        scratch[vnet::LEN..vnet::LEN + 2].copy_from_slice(b"ip");
        vnet::LEN + 2
    });
    // SAFETY: the buffer outlives the write, and nothing writes to it meanwhile.
    unsafe { write.insert_frame(map.iovec(0, 0, 14)) };
    // SAFETY: as above.
    unsafe { write.push((PoolKind::Udp, 0), map.iovec(0, 40, 4)) };
    let bytes: Vec<u8> = write.pieces(vnet::LEN).flatten().copied().collect();
    assert_eq!(bytes, b"ethernet      ipdata");
    let all = vnet::LEN as i32 + 20;
    assert!(write.is_taken(all));
    assert!(!write.is_taken(all - 1) && !write.is_taken(-libc::EIO));
}
