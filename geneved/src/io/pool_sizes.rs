//! What each worker has, made when it starts: its packets never wait for more.

/// Buffers for TUN reads: each holds one super-packet.
pub(super) const TUN_BUFFERS: u16 = 64;
/// Bytes of a TUN buffer: the longest IP packet and its virtio header.
pub(super) const TUN_BUFFER: usize = 65_536 + 64;
/// Buffers for received trains: together no more huge pages than those that any socket may use would need alone.
pub(super) const UDP_BUFFERS: u16 = 64 + CROWD_BUFFERS + STRAY_BUFFERS;
/// Those of them that sockets with much to read share among themselves, so that others find buffers beside them.
pub(super) const CROWD_BUFFERS: u16 = 24;
/// Those of them for what is of no VPC.
pub(super) const STRAY_BUFFERS: u16 = 7;
/// Bytes of a UDP buffer: the longest datagram, its address and its control messages.
pub(super) const UDP_BUFFER: usize = 65_536 + 256;
/// Trains under way: a super-packet may need two.
pub(super) const TRAINS: usize = 2 * TUN_BUFFERS as usize;
/// Packets of the usual MTU that may wait for their rates.
pub(super) const SHORT_PLACES: u16 = 4096;
/// Bytes of the place of each: 1,500 and the longest headers before them.
pub(super) const SHORT_PLACE: usize = 2048;
/// Longer packets that may.
pub(super) const LONG_PLACES: u16 = 128;
/// Bytes of the place of each: the longest IP packet and the longest headers before it.
pub(super) const LONG_PLACE: usize = 65_536 + 512;
/// TUN writes under way: a train of datagrams that cannot be merged needs one for each.
pub(super) const WRITES: usize = 512;
