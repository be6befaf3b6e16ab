//! Trains and TUN writes under way: the message headers and iovecs that the kernel reads.
//!
//! Slots are made once and reused. A slot's addresses stay the same while the kernel may read
//! them: they are never moved, and their vectors never grow past their first capacity.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;

use libgeneve::datapath::{Forward, OuterTx};
use libgeneve::offload::vnet;
use libgeneve::vpc::{Host, LinkIndex};
use libgeneve::wire::transport::UDP_HEADER_LEN;
use socket2::SockAddr;

use super::backend::PoolKind;
use super::buffer_pool::BufferId;
use super::cmsg::ControlMessages;
use super::tap::OuterHeader;
use super::udp::{AddressFamily, SourcePortPool};

/// Datagrams in a train at most: the kernel's `UDP_MAX_SEGMENTS` (udp.h).
pub(super) const MAX_TRAIN_SEGMENTS: usize = 128;
/// Bytes in a train at most: an IPv4 packet less its header and the UDP header.
pub(super) const MAX_BYTES: usize = 65_507;
/// Room for the headers of one train's segments.
const HEADER_ROOM: usize = 24 << 10;
/// Room for the headers of a merged packet, or for a packet of our own (an ICMP error of up to 1280 bytes).
pub(super) const SCRATCH: usize = 1536;

/// What the datagrams of one train share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TrainKey {
    pub(super) link: LinkIndex,
    pub(super) host: u32,
    /// One of the train's pool: open, and no other, for as long as a train has this key.
    pub(super) socket: RawFd,
    pub(super) outer: OuterTx,
    /// Known options in the Geneve header, a bit for each slot of the schema: they are counted for the whole train.
    pub(super) options: u32,
    /// Bytes before each inner packet.
    pub(super) before: u16,
}

/// How the datagrams of a train are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendMode {
    /// With one `sendmsg`; the kernel or the network card cuts.
    Together,
    /// One by one; their checksums may be left to the network card.
    Apart,
    /// One by one, with finished checksums.
    Whole,
}

/// One `sendmsg`: datagrams of equal length to one host, the last may be shorter.
pub(super) struct Train {
    pub(super) key: TrainKey,
    pub(super) host: Option<Arc<Host>>,
    /// Keeps the socket of `key` open until the train is finished.
    pub(super) pool: Option<Arc<SourcePortPool>>,
    /// Length of each datagram, but perhaps of the last; Geneve header included.
    pub(super) segment_len: usize,
    pub(super) segments: usize,
    pub(super) bytes: usize,
    /// Geneve headers in `bytes`, which do not count as traffic of the link.
    pub(super) encap_bytes: usize,
    pub(super) sending: SendMode,
    /// No further datagram fits: a shorter one was added, or a limit is reached.
    pub(super) closed: bool,
    pub(super) buffer_ids: Vec<(PoolKind, BufferId)>,
    source_port: u16,
    name: SockAddr,
    control: ControlMessages,
    iovs: Vec<libc::iovec>,
    headers: Vec<u8>,
    msg: libc::msghdr,
}

impl Train {
    pub(super) fn new() -> Self {
        Train {
            key: TrainKey {
                link: LinkIndex(0),
                host: 0,
                socket: -1,
                outer: OuterTx::default(),
                options: 0,
                before: 0,
            },
            host: None,
            pool: None,
            segment_len: 0,
            segments: 0,
            bytes: 0,
            encap_bytes: 0,
            sending: SendMode::Together,
            closed: false,
            buffer_ids: Vec::with_capacity(MAX_TRAIN_SEGMENTS),
            source_port: 0,
            name: SocketAddr::from(([0, 0, 0, 0], 0)).into(),
            control: ControlMessages::default(),
            iovs: Vec::with_capacity(2 * MAX_TRAIN_SEGMENTS),
            headers: Vec::with_capacity(HEADER_ROOM),
            // SAFETY: msghdr is plain data of integers and pointers, for which zero is valid.
            msg: unsafe { std::mem::zeroed() },
        }
    }

    /// Starts an empty train; the socket of `key` is one of `pool`.
    pub(super) fn open(
        &mut self,
        key: TrainKey,
        pool: &Arc<SourcePortPool>,
        host: &Arc<Host>,
        source_port: u16,
        port: u16,
    ) {
        debug_assert!(pool.port_of(key.socket).is_some());
        self.key = key;
        self.pool = Some(Arc::clone(pool));
        self.source_port = source_port;
        if self.host.as_ref().is_none_or(|h| h.id != host.id) {
            self.host = Some(Arc::clone(host));
        }
        self.name = SocketAddr::new(host.addr, port).into();
        (
            self.segment_len,
            self.segments,
            self.bytes,
            self.encap_bytes,
        ) = (0, 0, 0, 0);
        self.closed = false;
        self.buffer_ids.clear();
        self.iovs.clear();
        self.headers.clear();
    }

    /// Whether a datagram of `len` bytes, `header` of which are copied, may be added.
    #[inline]
    pub(super) fn fits(&self, header: usize, len: usize) -> bool {
        self.segments == 0
            || (!self.closed
                && self.segments < MAX_TRAIN_SEGMENTS
                && len <= self.segment_len
                && self.bytes + len <= MAX_BYTES
                && self.headers.len() + header <= HEADER_ROOM)
    }

    /// Adds a datagram: `header` is copied, `payload` stays where it is.
    ///
    /// # Safety
    /// [`Train::fits`] allows it, or the headers would move. Until the train is finished, the payload may be read, and nobody
    /// writes it but who leaves its bytes as they are: it lies in a buffer that the train holds.
    #[inline]
    pub(super) unsafe fn push(&mut self, header: &[u8], encap: usize, payload: libc::iovec) {
        let len = header.len() + payload.iov_len;
        if self.segments == 0 {
            self.segment_len = len;
        }
        let at = self.headers.len();
        self.headers.extend_from_slice(header);
        self.iovs.push(iovec(&self.headers[at..]));
        if payload.iov_len > 0 {
            self.iovs.push(payload);
        }
        self.segments += 1;
        self.bytes += len;
        self.encap_bytes += encap;
        self.closed = len < self.segment_len;
    }

    /// The message header of the whole train.
    pub(super) fn message(&mut self) -> *const libc::msghdr {
        let segment = (self.segments > 1).then_some(self.segment_len as u16);
        self.request(segment);
        self.fill(0, self.iovs.len());
        &raw const self.msg
    }

    /// The message headers of the train's datagrams one by one, for when the train as such was refused.
    pub(super) fn singly(&mut self, mut send: impl FnMut(*const libc::msghdr, usize)) {
        self.request(None);
        let mut at = 0;
        while at < self.iovs.len() {
            let mut len = 0;
            let mut end = at;
            while end < self.iovs.len()
                && (len == 0 || len + self.iovs[end].iov_len <= self.segment_len)
            {
                // A datagram is its header and, where it has one, its payload.
                if end > at && self.is_header(end) {
                    break;
                }
                len += self.iovs[end].iov_len;
                end += 1;
            }
            self.fill(at, end - at);
            send(&raw const self.msg, len);
            at = end;
        }
    }

    fn is_header(&self, at: usize) -> bool {
        self.headers
            .as_ptr_range()
            .contains(&self.iovs[at].iov_base.cast_const().cast())
    }

    /// The underlay's side of its datagrams, with `local` as the source address.
    pub(super) fn envelope(&self, local: Option<IpAddr>) -> Option<OuterHeader> {
        let dst = self.name.as_socket()?;
        let unspecified = AddressFamily::of(dst.ip()).unspecified();
        Some(OuterHeader {
            src: SocketAddr::new(local.unwrap_or(unspecified), self.source_port),
            dst,
            tos: self.key.outer.tos,
            ttl: self.key.outer.ttl,
        })
    }

    /// The host that its datagrams are for, the port that they are from, and how long the longest is with its outer
    /// headers.
    #[inline]
    pub(super) fn longest(&self) -> Option<(IpAddr, u16, usize)> {
        let addr = self.host.as_ref()?.addr;
        Some((addr, self.source_port, outer_len(addr, self.segment_len)))
    }

    /// The pieces of its datagrams, one datagram after the other.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
        // A datagram begins with its header.
        let starts = (0..self.iovs.len()).filter(|&at| self.is_header(at));
        starts.map(move |at| {
            let next = (at + 1..self.iovs.len()).find(|&next| self.is_header(next));
            // SAFETY: the iovecs were made from slices of `headers`, which does not move, or given to `push`, whose caller
            // vouches for them until the train is finished. Its `bids` are released after this, by its last user.
            let piece = |iov: &libc::iovec| unsafe {
                std::slice::from_raw_parts(iov.iov_base.cast_const().cast::<u8>(), iov.iov_len)
            };
            self.iovs[at..next.unwrap_or(self.iovs.len())]
                .iter()
                .map(piece)
        })
    }

    /// The first datagram, copied together; for the rare case that the sender of its packet must be told something.
    pub(super) fn first(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.segment_len);
        for iov in self.iovs.iter().take(2) {
            // SAFETY: as in `datagrams`.
            bytes.extend_from_slice(unsafe {
                std::slice::from_raw_parts(iov.iov_base.cast::<u8>(), iov.iov_len)
            });
        }
        bytes.truncate(self.segment_len);
        bytes
    }

    fn request(&mut self, segment: Option<u16>) {
        let ipv6 = self
            .host
            .as_ref()
            .is_some_and(|h| matches!(h.addr, IpAddr::V6(_)));
        self.control.clear();
        if let Some(len) = segment {
            self.control.segment(len);
        }
        if self.key.outer.tos != 0 {
            self.control.tos(ipv6, self.key.outer.tos);
        }
        if let Some(ttl) = self.key.outer.ttl {
            self.control.ttl(ipv6, ttl);
        }
    }

    fn fill(&mut self, first: usize, count: usize) {
        self.msg.msg_name = self.name.as_ptr().cast_mut().cast();
        self.msg.msg_namelen = self.name.len();
        self.msg.msg_iov = self.iovs[first..].as_mut_ptr();
        self.msg.msg_iovlen = count;
        let control = self.control.bytes();
        self.msg.msg_control = if control.is_empty() {
            std::ptr::null_mut()
        } else {
            control.as_ptr().cast_mut().cast()
        };
        self.msg.msg_controllen = control.len();
    }
}

/// What a write into TUN or TAP carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TunWriteKind {
    /// A packet for TUN.
    Ingress,
    /// A packet of our own making, which counts as nobody's traffic.
    Own,
    /// An encapsulated super-packet for tunnel GSO.
    Egress,
}

/// One `writev` into TUN or TAP.
pub(super) struct TunWrite {
    pub(super) link: LinkIndex,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) buffer_ids: Vec<(PoolKind, BufferId)>,
    pub(super) kind: TunWriteKind,
    /// Where an encapsulated super-packet goes, should it have to be cut after all.
    pub(super) forward: Option<Forward>,
    iovs: Vec<libc::iovec>,
    /// Bytes of all of them.
    len: usize,
    scratch: Box<[u8; SCRATCH]>,
}

impl TunWrite {
    pub(super) fn new() -> Self {
        TunWrite {
            link: LinkIndex(0),
            packets: 0,
            bytes: 0,
            buffer_ids: Vec::with_capacity(MAX_TRAIN_SEGMENTS + 1),
            kind: TunWriteKind::Ingress,
            forward: None,
            iovs: Vec::with_capacity(MAX_TRAIN_SEGMENTS + 4),
            len: 0,
            scratch: Box::new([0; SCRATCH]),
        }
    }

    /// Starts a write for `link`: `fill` writes its first bytes (virtio header, rewritten headers) and returns how many.
    pub(super) fn open(
        &mut self,
        link: LinkIndex,
        kind: TunWriteKind,
        fill: impl FnOnce(&mut [u8; SCRATCH]) -> usize,
    ) {
        (self.link, self.kind, self.packets, self.bytes) = (link, kind, 0, 0);
        self.buffer_ids.clear();
        self.iovs.clear();
        let used = fill(&mut self.scratch);
        self.iovs.push(iovec(&self.scratch[..used]));
        self.len = used;
    }

    /// Puts the Ethernet header behind the virtio header.
    ///
    /// # Safety
    /// As [`TunWrite::push`]; the buffer is one of those that are pushed.
    pub(super) unsafe fn insert_frame(&mut self, header: libc::iovec) {
        let all = std::mem::take(&mut self.iovs[0].iov_len);
        self.iovs[0] = iovec(&self.scratch[..vnet::LEN]);
        self.iovs.push(header);
        self.len += header.iov_len;
        if all > vnet::LEN {
            self.iovs.push(iovec(&self.scratch[vnet::LEN..all]));
        }
    }

    /// Appends bytes that lie in a buffer.
    ///
    /// # Safety
    /// Until the write is finished, the bytes may be read, and nobody writes them but who leaves them as they are: the buffer is
    /// held for the write.
    #[inline]
    pub(super) unsafe fn push(&mut self, buffer_id: (PoolKind, BufferId), bytes: libc::iovec) {
        debug_assert!(self.iovs.len() < self.iovs.capacity());
        self.buffer_ids.push(buffer_id);
        self.iovs.push(bytes);
        self.len += bytes.iov_len;
    }

    pub(super) fn iovs(&self) -> &[libc::iovec] {
        &self.iovs
    }

    /// Whether all of it was taken, by what the kernel said to it.
    pub(super) fn is_taken(&self, result: i32) -> bool {
        usize::try_from(result) == Ok(self.len)
    }

    /// What is written, without its first `skip` bytes.
    pub(super) fn pieces(&self, mut skip: usize) -> impl Iterator<Item = &[u8]> {
        self.iovs.iter().map(move |iov| {
            // SAFETY: the iovec was made from a slice of `scratch`, which is boxed and only written by `open`, or given to
            // `push` or `insert_frame`, whose caller vouches for it until the write is finished.
            let piece = unsafe {
                std::slice::from_raw_parts(iov.iov_base.cast_const().cast::<u8>(), iov.iov_len)
            };
            let (_, rest) = piece.split_at(skip.min(piece.len()));
            skip -= piece.len() - rest.len();
            rest
        })
    }
}

/// How long a datagram is whose UDP payload has `payload` bytes, with its outer headers.
pub(super) fn outer_len(host: IpAddr, payload: usize) -> usize {
    let ip = if host.is_ipv4() { 20 } else { 40 };
    ip + UDP_HEADER_LEN + payload
}

fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}
