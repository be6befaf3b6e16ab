//! ICMP and ICMPv6 echo over a raw socket.

use super::stats::human;
use super::{Latencies, Netns};
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Sequence of echo requests.
#[derive(Clone, Debug)]
pub struct EchoRun {
    /// Number of requests.
    pub count: u16,
    /// Interval between requests.
    pub interval: Duration,
    /// How long to wait for the reply to a request.
    pub timeout: Duration,
    /// Bytes of data after the 8-byte ICMP header.
    pub size: usize,
    /// TTL or hop limit of the requests, if not the system's default.
    pub ttl: Option<u8>,
    /// DSCP and ECN of the requests.
    pub tos: Option<u8>,
}

impl Default for EchoRun {
    fn default() -> Self {
        Self {
            count: 5,
            interval: Duration::from_millis(50),
            timeout: Duration::from_secs(1),
            size: 56,
            ttl: None,
            tos: None,
        }
    }
}

/// Results of a sequence of echo requests.
#[derive(Clone, Debug, Default)]
pub struct EchoReport {
    /// Requests accepted by the kernel.
    pub sent: u64,
    /// Replies with the content of their request.
    pub received: u64,
    /// Replies with other content.
    pub corrupted: u64,
    /// Requests that the kernel refused: too large for the path, or no route.
    pub refused: u64,
    /// Next-hop MTU in the last Packet Too Big or Fragmentation Needed, if there was one.
    pub too_big: Option<u32>,
    /// Round-trip times.
    pub times: Latencies,
}

impl EchoReport {
    /// Whether every request was answered.
    #[must_use]
    pub const fn all_answered(&self) -> bool {
        self.received > 0 && self.received == self.sent && self.refused == 0 && self.corrupted == 0
    }
}

impl fmt::Display for EchoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{} replies, median {}",
            self.received,
            self.sent,
            human(self.times.median())
        )?;
        if self.refused > 0 {
            write!(f, ", {} refused by the kernel", self.refused)?;
        }
        if let Some(mtu) = self.too_big {
            write!(f, ", too big (MTU {mtu})")?;
        }
        Ok(())
    }
}

/// Tells concurrent pingers of one process apart; the process ID tells processes apart.
static NEXT_ID: AtomicU16 = AtomicU16::new(0);

const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const UNREACHABLE_V4: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const PACKET_TOO_BIG_V6: u8 = 2;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

impl EchoRun {
    /// Sends the requests from `from` to `to` and waits for the replies.
    ///
    /// # Errors
    /// If no raw socket could be created (`CAP_NET_RAW` is needed).
    pub fn run(&self, from: &Netns, to: IpAddr) -> io::Result<EchoReport> {
        let socket = from.run(|| self.socket(to))??;
        let id =
            NEXT_ID.fetch_add(1, Ordering::Relaxed) ^ (std::process::id() as u16).rotate_left(8);
        let mut report = EchoReport::default();
        let mut times = Vec::new();
        let target = SocketAddr::new(to, 0).into();
        for sequence in 0..self.count {
            let request = self.request(to, id, sequence);
            let start = Instant::now();
            if socket.send_to(&request, &target).is_err() {
                report.refused += 1;
            } else {
                report.sent += 1;
                match self.await_reply(&socket, to, &request, start, &mut report)? {
                    Some(true) => {
                        report.received += 1;
                        times.push(start.elapsed());
                    }
                    Some(false) => report.corrupted += 1,
                    None => {}
                }
            }
            if sequence + 1 < self.count {
                thread::sleep(self.interval.saturating_sub(start.elapsed()));
            }
        }
        report.times = Latencies::new(times);
        Ok(report)
    }

    fn socket(&self, to: IpAddr) -> io::Result<Socket> {
        let socket = if to.is_ipv4() {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
            self.ttl
                .map_or(Ok(()), |ttl| socket.set_ttl_v4(ttl.into()))?;
            self.tos
                .map_or(Ok(()), |tos| socket.set_tos_v4(tos.into()))?;
            socket
        } else {
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
            self.ttl
                .map_or(Ok(()), |ttl| socket.set_unicast_hops_v6(ttl.into()))?;
            self.tos
                .map_or(Ok(()), |tos| socket.set_tclass_v6(tos.into()))?;
            socket
        };
        Ok(socket)
    }

    fn request(&self, to: IpAddr, id: u16, sequence: u16) -> Vec<u8> {
        let kind = if to.is_ipv4() {
            ECHO_REQUEST_V4
        } else {
            ECHO_REQUEST_V6
        };
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend(id.to_be_bytes());
        bytes.extend(sequence.to_be_bytes());
        bytes.extend((0..self.size).map(|i| (i as u8).wrapping_mul(31) ^ sequence as u8));
        // The kernel fills in the ICMPv6 checksum: it covers the source address, which only the kernel knows.
        if to.is_ipv4() {
            let check = internet_checksum(&bytes);
            bytes[2..4].copy_from_slice(&check.to_be_bytes());
        }
        bytes
    }

    /// `Some(true)`: a matching reply; `Some(false)`: a reply with other content; `None`: no reply in time, or the
    /// request was too big.
    fn await_reply(
        &self,
        mut socket: &Socket,
        to: IpAddr,
        request: &[u8],
        start: Instant,
        report: &mut EchoReport,
    ) -> io::Result<Option<bool>> {
        let mut buffer = vec![0; 65_536];
        loop {
            let left = self.timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            socket.set_read_timeout(Some(left))?;
            let Ok(n) = socket.read(&mut buffer) else {
                continue;
            };
            // A raw IPv4 socket delivers the IP header, an IPv6 one does not.
            let skip = if to.is_ipv4() {
                usize::from(buffer[0] & 0x0f) * 4
            } else {
                0
            };
            let Some(message) = buffer[..n].get(skip..).filter(|m| m.len() >= 8) else {
                continue;
            };
            let told = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
            match (to.is_ipv4(), message[0]) {
                (true, ECHO_REPLY_V4) | (false, ECHO_REPLY_V6)
                    if message[4..8] == request[4..8] =>
                {
                    return Ok(Some(message[8..] == request[8..]));
                }
                (true, UNREACHABLE_V4)
                    if message[1] == FRAGMENTATION_NEEDED && quotes(message, request) =>
                {
                    report.too_big = Some(told & 0xffff);
                    return Ok(None);
                }
                (false, PACKET_TOO_BIG_V6) if quotes(message, request) => {
                    report.too_big = Some(told);
                    return Ok(None);
                }
                _ => {}
            }
        }
    }
}

/// Whether an ICMP error quotes this request: its ID and sequence number follow the quoted IP header.
fn quotes(error: &[u8], request: &[u8]) -> bool {
    let quoted = &error[8..];
    let header = match quoted.first().map(|b| b >> 4) {
        Some(4) => usize::from(quoted[0] & 0x0f) * 4,
        Some(6) => 40,
        _ => return false,
    };
    quoted.get(header + 4..header + 8) == Some(&request[4..8])
}

fn internet_checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| {
            u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_sums_up_to_zero() {
        for size in [0, 1, 56, 1473] {
            let request = EchoRun {
                size,
                ..EchoRun::default()
            }
            .request("10.0.0.1".parse().unwrap(), 77, 3);
            assert_eq!(internet_checksum(&request), 0, "{size}");
        }
    }

    #[test]
    fn an_error_is_matched_by_what_it_quotes() {
        let echo = EchoRun::default();
        let request = echo.request("10.0.0.1".parse().unwrap(), 77, 3);
        let mut error = vec![3, 4, 0, 0, 0, 0, 5, 120];
        error.extend([0x45; 1].iter().chain(&[0; 19]));
        error.extend(&request[..8]);
        assert!(quotes(&error, &request));
        assert!(!quotes(
            &error,
            &echo.request("10.0.0.1".parse().unwrap(), 77, 4)
        ));
        assert!(!quotes(&error[..20], &request));
    }
}
