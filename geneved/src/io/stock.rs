//! What each worker has, made when it starts: its packets never wait for more.

/// Buffers for TUN reads: each holds one super-packet.
pub(super) const TUN_BUFFERS: u16 = 64;
/// Bytes of a TUN buffer: the longest IP packet and its virtio header.
pub(super) const TUN_BUFFER: usize = 65_536 + 64;
/// Buffers for received trains.
pub(super) const UDP_BUFFERS: u16 = 64;
/// Bytes of a UDP buffer: the longest datagram, its address and its control messages.
pub(super) const UDP_BUFFER: usize = 65_536 + 256;
/// Trains under way: a super-packet may need two.
pub(super) const TRAINS: usize = 2 * TUN_BUFFERS as usize;
/// TUN writes under way: a train of datagrams that cannot be merged needs one for each.
pub(super) const WRITES: usize = 512;
