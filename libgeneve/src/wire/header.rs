//! Headers before an inner packet: the encapsulation header, and the inner Ethernet header if there is one.

use std::fmt;
use std::ops::Deref;

use super::ethernet::MAX_ETHERNET_HEADER_LEN;
use super::geneve::{BASE_HEADER_LEN, MAX_HEADER_LEN};

/// Most bytes before an inner packet: the longest Geneve header and an Ethernet header with two tags.
pub const MAX_PREFIX_LEN: usize = MAX_HEADER_LEN + MAX_ETHERNET_HEADER_LEN;

/// Encapsulation header with its options, followed by the inner Ethernet header if the link carries frames: 8 to 282
/// bytes, on the stack.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeaderBytes {
    /// 8 to 282.
    pub(super) len: u16,
    /// Zero after `len`, so that the derived equality compares headers.
    pub(super) bytes: [u8; MAX_PREFIX_LEN],
}

impl Default for HeaderBytes {
    /// The shortest header, all zeros.
    fn default() -> Self {
        HeaderBytes {
            len: BASE_HEADER_LEN as u16,
            bytes: [0; MAX_PREFIX_LEN],
        }
    }
}

impl Deref for HeaderBytes {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl AsRef<[u8]> for HeaderBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for HeaderBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderBytes(")?;
        self.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

impl HeaderBytes {
    /// Copies a parsed header as it is; `None` for less than 8 or more than 282 bytes.
    #[must_use]
    pub fn copy_of(header: &[u8]) -> Option<HeaderBytes> {
        if header.len() < BASE_HEADER_LEN {
            return None;
        }
        let mut copy = HeaderBytes {
            len: 0,
            bytes: [0; MAX_PREFIX_LEN],
        };
        copy.push(header).then_some(copy)
    }

    /// Appends `bytes`; returns false and changes nothing if there is not enough room.
    #[must_use]
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        let at = self.len();
        let Some(room) = self.bytes.get_mut(at..at + bytes.len()) else {
            return false;
        };
        room.copy_from_slice(bytes);
        self.len += bytes.len() as u16;
        true
    }

    /// Bytes of the header: 8 to 282.
    #[inline]
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub const fn len(&self) -> usize {
        self.len as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_its_bounds() {
        let long = [7; MAX_PREFIX_LEN + 1];
        assert_eq!(HeaderBytes::copy_of(&long), None);
        assert_eq!(HeaderBytes::copy_of(&long[..7]), None);
        let mut header = HeaderBytes::copy_of(&long[..8]).unwrap();
        assert!(!header.push(&long[..MAX_PREFIX_LEN - 7]));
        assert_eq!(header.len(), 8);
        assert!(header.push(&long[..MAX_PREFIX_LEN - 8]));
        assert_eq!(header[..], long[..MAX_PREFIX_LEN]);
    }
}
