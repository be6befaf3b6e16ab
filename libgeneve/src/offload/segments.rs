//! Where packets that are made out of one packet go, and the buffer in which their headers are made.
//!
//! Owns the contract between [`split`](super::split) and [`fragment`](super::fragment) and whoever
//! gathers datagrams. Leaves the shape of a train to that caller.

use std::ops::Range;

use super::OffloadError;

/// Longest Geneve header with its options, in bytes: 8 and 63 words (RFC 8926 section 3.4).
pub const MAX_ENCAP: usize = 8 + 63 * 4;

/// Most packets that one packet may become: as many as 64 KB need at the smallest segment size that
/// Linux sends (`TCP_MIN_SND_MSS`, 48 bytes). What asks for more asks for work, not for transport.
pub const MAX_SPLIT_SEGMENTS: usize = 65_535_usize.div_ceil(48);

/// Bytes of Geneve and inner headers together: the longest encapsulation, and 252 bytes for IP,
/// IPv6 extension and TCP headers.
pub(super) const MAX_SEGMENT_HEADERS: usize = 512;

/// Takes the packets that one packet became, in order.
pub trait SegmentSink {
    /// One packet: `header` (Geneve header and rewritten inner headers), followed by the bytes
    /// `payload` of the packet that was split. `header` is only valid during the call.
    fn segment(&mut self, header: &[u8], payload: Range<usize>);
}

/// The encapsulation, followed by inner headers that are rewritten from one packet to the next.
pub(super) struct SegmentHeaders {
    bytes: [u8; MAX_SEGMENT_HEADERS],
    encap: usize,
    len: usize,
}

impl SegmentHeaders {
    /// Puts `inner` behind `encap`.
    ///
    /// # Errors
    ///
    /// [`OffloadError::Unfit`] if both do not fit.
    #[inline]
    pub(super) fn new(encap: &[u8], inner: &[u8]) -> Result<SegmentHeaders, OffloadError> {
        let mut headers = SegmentHeaders {
            bytes: [0; MAX_SEGMENT_HEADERS],
            encap: encap.len(),
            len: encap.len() + inner.len(),
        };
        if headers.len > MAX_SEGMENT_HEADERS {
            return Err(OffloadError::Unfit);
        }
        headers.bytes[..encap.len()].copy_from_slice(encap);
        headers.bytes[encap.len()..headers.len].copy_from_slice(inner);
        Ok(headers)
    }

    /// The inner headers.
    #[inline]
    pub(super) fn inner(&mut self) -> &mut [u8] {
        &mut self.bytes[self.encap..self.len]
    }

    /// Encapsulation and inner headers.
    #[inline]
    pub(super) fn all(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
