//! Segmentation and checksum offloads of a TUN interface: super-packets and trains.
//!
//! - [`vnet`]: `virtio_net_hdr`, the ten bytes before every packet of a TUN interface.
//! - [`cut`]: whether a packet fits, and whether to segment or to fragment it if not.
//! - [`split`]: segmentation of super-packets into packets for the wire.
//! - [`fragment`]: fragmentation of IPv4 packets that are too long and have no DF.
//! - [`merge`]: merging of packets from the wire into super-packets, as the kernel's GRO does.
//! - [`partial`]: packets that a kernel tunnel on the same machine handed over unfinished.
//! - [`segments`]: the sink for the packets of `split` and `fragment`.
//!
//! Nothing here copies payload or allocates per packet: payload stays where it was read, as ranges. Which packets may
//! pass, where they go, and how long they may be is decided by [`datapath`](crate::datapath).

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
    /// `vnet` does not fit the packet: another protocol, no segment size, too many segments.
    #[error("the segmentation or checksum that is asked for does not fit the packet")]
    Unfit,
    /// The headers have inconsistent lengths, or do not belong to these bytes.
    #[error("the packet's headers do not add up")]
    Malformed,
    /// The packet is too long, and must not be cut.
    #[error("the packet is longer than it may be and must not be cut")]
    TooBig,
    /// The checksum is partial and cannot be finished.
    #[error("the packet's unfinished checksum cannot be finished")]
    Checksum,
}

#[cfg(test)]
pub(crate) mod samples;
