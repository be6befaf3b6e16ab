//! Super-packets and trains: what TUN's offloads hand over, and what they take.
//!
//! - [`vnet`]: `virtio_net_hdr`, the ten bytes before every packet of a TUN interface.
//! - [`cut`]: whether a packet fits, and which of the next two cuts it where it does not.
//! - [`split`]: a super-packet becomes the packets that cross the wire.
//! - [`fragment`]: an IPv4 packet that is too long and has no DF becomes fragments.
//! - [`merge`]: packets from the wire become super-packets, as the kernel's own GRO would make them.
//! - [`partial`]: packets that a kernel tunnel on the same machine handed over unfinished.
//! - [`segments`]: the sink that `split` and `fragment` give their packets to.
//!
//! Nothing here copies payload or allocates per packet: payload stays where it was read, as ranges.
//! Which packet may pass, where to, and how long it may be there, is [`datapath`](crate::datapath)'s decision.

pub mod cut;
pub mod fragment;
pub mod merge;
pub mod partial;
pub mod segments;
pub mod split;
pub mod vnet;

/// Why a packet cannot be cut or finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum OffloadError {
    /// What is asked for does not fit the packet: another protocol, no segment size, too many segments.
    #[error("the segmentation or checksum that is asked for does not fit the packet")]
    Unfit,
    /// The headers do not add up, or are not those of these bytes.
    #[error("the packet's headers do not add up")]
    Malformed,
    /// The packet is longer than it may be, and must not be cut.
    #[error("the packet is longer than it may be and must not be cut")]
    TooBig,
    /// The checksum is unfinished and cannot be finished.
    #[error("the packet's unfinished checksum cannot be finished")]
    Checksum,
}

#[cfg(test)]
pub(crate) mod samples;
