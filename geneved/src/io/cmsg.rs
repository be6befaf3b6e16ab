//! Control messages: metadata of received datagrams, and per-datagram options of sent ones.
//!
//! Both are encoded by hand in the layout of `struct cmsghdr` (cmsg(3)): a length of native word size that includes
//! the header, level, type, data, padding to a word.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER: usize = 16;
/// A word: the size of the length field and the alignment of each message.
const WORD: usize = 8;
const _: () = {
    assert!(size_of::<usize>() == WORD);
    assert!(size_of::<libc::cmsghdr>() == HEADER);
    assert!(align_of::<libc::cmsghdr>() <= WORD);
    assert!(std::mem::offset_of!(libc::cmsghdr, cmsg_level) == 8);
    assert!(std::mem::offset_of!(libc::cmsghdr, cmsg_type) == 12);
    // The buffer is word-aligned, and so is each message after the first.
    assert!(align_of::<ControlMessages>() >= WORD);
    assert!(std::mem::offset_of!(ControlMessages, bytes).is_multiple_of(WORD));
    assert!(SEND_ROOM.is_multiple_of(WORD) && RECV_ROOM.is_multiple_of(WORD));
};
/// Buffer size for the control messages of one received datagram.
pub(super) const RECV_ROOM: usize = 128;
/// Buffer size for the control messages of one train.
pub(super) const SEND_ROOM: usize = 96;

/// Metadata that the kernel attached to a received datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RxMetadata {
    /// Length of each datagram of a train in bytes; 0 if it was a single datagram.
    pub(super) segment: u16,
    /// Local address that it was sent to.
    pub(super) dst: Option<IpAddr>,
    /// Index of the receiving interface, in the socket's namespace; 0 if unknown. For a port of a VRF it is the
    /// port's own index, for a port of a bridge it is the bridge's.
    pub(super) interface: u32,
    /// TOS or traffic class: DSCP and ECN.
    pub(super) tos: u8,
}

/// Parses the control messages that `recvmsg` wrote; unknown ones are skipped.
#[inline]
pub(super) fn read(control: &[u8]) -> RxMetadata {
    let mut notes = RxMetadata::default();
    each(control, |level, kind, data| match (level, kind) {
        (libc::SOL_UDP, libc::UDP_GRO) => notes.segment = int(data) as u16,
        (libc::IPPROTO_IP, libc::IP_TOS) => notes.tos = data.first().copied().unwrap_or(0),
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => notes.tos = int(data) as u8,
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            notes.interface = int(data).cast_unsigned();
            notes.dst = data
                .get(8..12)
                .and_then(|b| <[u8; 4]>::try_from(b).ok())
                .map(|b| Ipv4Addr::from(b).into());
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            notes.interface = data.get(16..).map_or(0, int).cast_unsigned();
            notes.dst = data
                .get(..16)
                .and_then(|b| <[u8; 16]>::try_from(b).ok())
                .map(|b| Ipv6Addr::from(b).into());
        }
        _ => {}
    });
    notes
}

/// An entry of a socket's error queue (ip(7), `struct sock_extended_err`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueuedError {
    /// Error number.
    pub(super) number: i32,
    /// Reported by an ICMP message, not by this host's own kernel.
    pub(super) of_icmp: bool,
    /// Additional value: the MTU if the datagram was too big.
    pub(super) info: u32,
    /// Source address of the ICMP message.
    pub(super) by: Option<IpAddr>,
    /// The index of the interface that received the ICMP message, as in [`RxMetadata`].
    pub(super) interface: u32,
}

/// Parses an entry of a socket's error queue.
pub(super) fn error(control: &[u8]) -> Option<QueuedError> {
    // linux/errqueue.h
    const SO_EE_ORIGIN_LOCAL: u8 = 1;
    const EXTENDED_ERR: usize = 16;
    let mut found = None;
    each(control, |level, kind, data| {
        if matches!(
            (level, kind),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        ) {
            let info = data.get(8..).map_or(0, int);
            // The address of the reporting node follows.
            let by = data.get(EXTENDED_ERR..).and_then(super::backend::source);
            found = Some(QueuedError {
                number: int(data),
                of_icmp: data.get(4) != Some(&SO_EE_ORIGIN_LOCAL),
                info: info.cast_unsigned(),
                by: by.map(|by| by.ip()),
                interface: read(control).interface,
            });
        }
    });
    found
}

/// Calls `visit` with level, type and data of each well-formed control message.
pub(super) fn each(mut control: &[u8], mut visit: impl FnMut(i32, i32, &[u8])) {
    while let Some((head, rest)) = control.split_at_checked(HEADER) {
        let len = usize::from_ne_bytes(word(head, 0));
        let Some(data) = len.checked_sub(HEADER).and_then(|n| rest.get(..n)) else {
            return;
        };
        visit(
            i32::from_ne_bytes(word(head, 8)),
            i32::from_ne_bytes(word(head, 12)),
            data,
        );
        let Some(next) = control.get(len.next_multiple_of(WORD)..) else {
            return;
        };
        control = next;
    }
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn int(data: &[u8]) -> i32 {
    data.get(..4)
        .map_or(0, |_| i32::from_ne_bytes(word(data, 0)))
}

/// Encoder for the control messages of a train.
#[repr(align(8))]
#[derive(Clone, Debug)]
pub(super) struct ControlMessages {
    bytes: [u8; SEND_ROOM],
    used: usize,
}

impl Default for ControlMessages {
    fn default() -> Self {
        ControlMessages {
            bytes: [0; SEND_ROOM],
            used: 0,
        }
    }
}

impl ControlMessages {
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    /// Requests segmentation into `len` bytes (udp(7), `UDP_SEGMENT`).
    pub(super) fn segment(&mut self, len: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &len.to_ne_bytes());
    }

    /// Sets the TOS or traffic class.
    pub(super) fn tos(&mut self, ipv6: bool, tos: u8) {
        let (level, kind) = if ipv6 {
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
        } else {
            (libc::IPPROTO_IP, libc::IP_TOS)
        };
        self.push(level, kind, &i32::from(tos).to_ne_bytes());
    }

    /// Sets the TTL or hop limit.
    pub(super) fn ttl(&mut self, ipv6: bool, ttl: u8) {
        let (level, kind) = if ipv6 {
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)
        } else {
            (libc::IPPROTO_IP, libc::IP_TTL)
        };
        self.push(level, kind, &i32::from(ttl).to_ne_bytes());
    }

    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let len = HEADER + data.len();
        let end = self.used + len.next_multiple_of(WORD);
        let Some(room) = self.bytes.get_mut(self.used..end) else {
            debug_assert!(false, "SEND_ROOM holds every request at once");
            return;
        };
        room.fill(0);
        room[..WORD].copy_from_slice(&len.to_ne_bytes());
        room[8..12].copy_from_slice(&level.to_ne_bytes());
        room[12..16].copy_from_slice(&kind.to_ne_bytes());
        room[HEADER..len].copy_from_slice(data);
        self.used = end;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_was_written() {
        let mut request = ControlMessages::default();
        request.segment(1400);
        request.ttl(false, 7);
        request.tos(false, 0xb9);
        let mut seen = Vec::new();
        each(request.bytes(), |level, kind, data| {
            seen.push((level, kind, data.to_vec()));
        });
        assert_eq!(seen.len(), 3);
        assert_eq!(
            seen[0],
            (
                libc::SOL_UDP,
                libc::UDP_SEGMENT,
                1400u16.to_ne_bytes().to_vec()
            )
        );
        assert_eq!(read(request.bytes()).tos, 0xb9);
    }

    #[test]
    fn the_interface_is_read_in_both_families() {
        let mut request = ControlMessages::default();
        let mut info = [0; 12];
        info[..4].copy_from_slice(&7u32.to_ne_bytes());
        info[8..].copy_from_slice(&[192, 0, 2, 1]);
        request.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        let notes = read(request.bytes());
        assert_eq!(
            (notes.interface, notes.dst),
            (7, Some([192, 0, 2, 1].into()))
        );
        let mut request = ControlMessages::default();
        let mut info = [0; 20];
        info[15] = 1;
        info[16..].copy_from_slice(&9u32.to_ne_bytes());
        request.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        let notes = read(request.bytes());
        assert_eq!(
            (notes.interface, notes.dst),
            (9, Some(Ipv6Addr::LOCALHOST.into()))
        );
        assert_eq!(read(&[]).interface, 0);
    }

    #[test]
    fn an_error_says_whose_it_is_and_what_comes_with_it() {
        let mut said = [0; 32];
        said[..4].copy_from_slice(&libc::EMSGSIZE.to_ne_bytes());
        said[8..12].copy_from_slice(&1400u32.to_ne_bytes());
        said[16..18].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        said[20..24].copy_from_slice(&[192, 0, 2, 7]);
        for (origin, of_icmp) in [(1, false), (2, true), (3, true)] {
            said[4] = origin;
            let mut request = ControlMessages::default();
            let mut info = [0; 12];
            info[..4].copy_from_slice(&7u32.to_ne_bytes());
            request.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            request.push(libc::IPPROTO_IP, libc::IP_RECVERR, &said);
            let expected = QueuedError {
                number: libc::EMSGSIZE,
                of_icmp,
                info: 1400,
                by: Some([192, 0, 2, 7].into()),
                interface: 7,
            };
            assert_eq!(error(request.bytes()), Some(expected));
        }
        let mut short = ControlMessages::default();
        short.push(libc::IPPROTO_IP, libc::IP_RECVERR, &said[..4]);
        assert_eq!(error(short.bytes()).unwrap().by, None);
    }

    #[test]
    fn a_cut_or_lying_message_is_ignored() {
        let mut request = ControlMessages::default();
        request.tos(true, 3);
        let bytes = request.bytes();
        for end in 0..bytes.len() {
            let _ = read(&bytes[..end]);
        }
        let mut lying = bytes.to_vec();
        lying[..8].copy_from_slice(&usize::MAX.to_ne_bytes());
        assert_eq!(read(&lying), RxMetadata::default());
        lying[..8].copy_from_slice(&3usize.to_ne_bytes());
        assert_eq!(read(&lying), RxMetadata::default());
    }
}
