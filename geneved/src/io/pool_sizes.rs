//! Fixed resources of a worker, allocated when it starts: packets never wait for more.

/// Buffers for TUN reads; each holds one super-packet.
pub(super) const TUN_BUFFERS: u16 = 64;
/// Size of a TUN buffer: the longest IP packet and its virtio header.
pub(super) const TUN_BUFFER: usize = 65_536 + 64;
/// Buffers for received trains. Together they need no more huge pages than those that any socket may use would need
/// alone.
pub(super) const UDP_BUFFERS: u16 = 64 + CROWD_BUFFERS + STRAY_BUFFERS;
/// How many of them are reserved for sockets with much to read, so that other sockets still find buffers.
pub(super) const CROWD_BUFFERS: u16 = 24;
/// How many of them are reserved for datagrams of no VPC.
pub(super) const STRAY_BUFFERS: u16 = 7;
/// Size of a UDP buffer: the longest datagram, its address and its control messages.
pub(super) const UDP_BUFFER: usize = 65_536 + 256;
/// Trains in flight: a super-packet may need two.
pub(super) const TRAINS: usize = 2 * TUN_BUFFERS as usize;
/// Maximum number of packets of the usual MTU that wait for their rate limits.
pub(super) const SHORT_PLACES: u16 = 4096;
/// Buffer size of each: 1,500 bytes and the longest headers before them.
pub(super) const SHORT_PLACE: usize = 2048;
/// Maximum number of longer packets that wait.
pub(super) const LONG_PLACES: u16 = 128;
/// Buffer size of each: the longest IP packet and the longest headers before it.
pub(super) const LONG_PLACE: usize = 65_536 + 512;
/// TUN writes in flight: a train of datagrams that cannot be merged needs one for each.
pub(super) const WRITES: usize = 512;
