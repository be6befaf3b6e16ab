//! Sink for the packets that one packet is cut into, and the buffer for their headers.
//!
//! Owns the contract between [`split`](super::split) and [`fragment`](super::fragment) and the caller that collects
//! datagrams. The layout of a train is up to that caller.

use std::ops::Range;

use super::OffloadError;

/// Longest Geneve header with its options, in bytes: 8 and 63 words (RFC 8926 section 3.4).
pub const MAX_ENCAP: usize = 8 + 63 * 4;

/// Most packets that one packet may become: as many as 64 KB need at the smallest segment size that Linux sends
/// (`TCP_MIN_SND_MSS`, 48 bytes). More can only be an attempt to cause work.
pub const MAX_SPLIT_SEGMENTS: usize = 65_535_usize.div_ceil(48);

/// Space for Geneve and inner headers: the longest encapsulation, and 252 bytes for IP, IPv6 extension and TCP
/// headers.
pub(super) const MAX_SEGMENT_HEADERS: usize = 512;

/// Sink for the packets that one packet was cut into, in order.
pub trait SegmentSink {
    /// Takes one packet: `header` (Geneve header and rewritten inner headers), followed by the bytes `payload` of the
    /// packet that was cut. `header` is only valid during the call.
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
    /// [`OffloadError::Unfit`] if there is not enough room for both.
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

    /// Returns the inner headers.
    #[inline]
    pub(super) fn inner(&mut self) -> &mut [u8] {
        &mut self.bytes[self.encap..self.len]
    }

    /// Returns encapsulation and inner headers.
    #[inline]
    pub(super) fn all(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
