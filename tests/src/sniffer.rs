//! Packet capture on the interfaces of a namespace, without link-layer headers.

use geneved::traffic::Netns;
use nix::sys::socket::{LinkAddr, recvfrom, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Capture socket. Packets are queued from its creation on.
///
/// Sees both directions; a super-packet is one packet, and its checksum may be partial.
pub struct Sniffer {
    socket: Socket,
    device: u32,
}

/// Returns a classic BPF program (Documentation/networking/filter.rst of the kernel) that accepts the packets of one
/// interface.
fn only(device: u32) -> [SockFilter; 4] {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// `SKF_AD_OFF + SKF_AD_IFINDEX`: offset of the interface index.
    const SKF_INTERFACE: u32 = 0xffff_f000 + 8;
    [
        SockFilter::new(LOAD_WORD, 0, 0, SKF_INTERFACE),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, device),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// `ETH_P_ALL` in network byte order.
const SNIFFED_PROTOCOLS: i32 = 0x0003_u16.to_be() as i32;

impl Sniffer {
    /// Listens on one interface of a namespace.
    ///
    /// # Panics
    /// If there is no such interface or the privilege is missing.
    #[must_use]
    pub fn new(netns: &Netns, device: &str) -> Self {
        let open = || {
            let index = nix::net::if_::if_nametoindex(device)?;
            let socket = Socket::new(
                Domain::PACKET,
                Type::DGRAM,
                Some(Protocol::from(SNIFFED_PROTOCOLS)),
            )?;
            socket.attach_filter(&only(index))?;
            // Exceeding the default limit needs a privilege that a user namespace does not grant.
            if setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20)).is_err() {
                setsockopt(&socket, sockopt::RcvBuf, &(8 << 20))?;
            }
            std::io::Result::Ok((socket, index))
        };
        let (socket, device) = netns
            .run(open)
            .and_then(std::convert::identity)
            .unwrap_or_else(|error| panic!("cannot listen on {device}: {error}"));
        Self { socket, device }
    }

    /// Returns the first `Some` of `wanted`, if a packet for which it gives one arrives within `time`.
    ///
    /// # Panics
    /// If the socket fails.
    pub fn find<T>(&self, time: Duration, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
        let start = Instant::now();
        let mut buffer = vec![0; 70_000];
        loop {
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return None;
            }
            self.socket
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .expect("a valid timeout");
            let Ok((n, from)) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) else {
                continue;
            };
            if from.is_none_or(|from| from.ifindex() as u32 != self.device) {
                continue;
            }
            if let Some(found) = wanted(&buffer[..n]) {
                return Some(found);
            }
        }
    }

    /// Returns every `Some` of `wanted`, until none has come for `quiet`.
    pub fn all<T>(&self, quiet: Duration, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> Vec<T> {
        let mut found = Vec::new();
        while let Some(one) = self.find(quiet, &mut wanted) {
            found.push(one);
        }
        found
    }
}
