//! UDP bursts with sequence numbers, to count what was received, lost, duplicated, reordered or corrupted.

use super::{BitRate, Pattern, SendAmount, TrafficEnds};
use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, setsockopt, sockopt,
};
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A stream of equal-sized datagrams in one direction.
#[derive(Clone, Debug)]
pub struct UdpBurst {
    /// UDP payload of a datagram, in bytes; 8 at least (the sequence number).
    pub size: usize,
    /// Duration, or total number of datagrams.
    pub amount: SendAmount,
    /// Datagrams per second; unlimited if `None`.
    pub pace: Option<f64>,
    /// Number of datagrams per `sendmmsg`.
    pub batch: usize,
    /// Number of sockets, and so of source ports, that send in turn.
    pub flows: usize,
    /// Whether every byte is generated and checked; otherwise only length and sequence number are.
    pub verify: bool,
    /// How long the receiver waits for stragglers after the last datagram was sent.
    pub settle: Duration,
}

impl Default for UdpBurst {
    fn default() -> Self {
        Self {
            size: 1200,
            amount: SendAmount::Count(10_000),
            pace: None,
            batch: 32,
            flows: 1,
            verify: true,
            settle: Duration::from_millis(300),
        }
    }
}

/// Results of a burst.
#[derive(Clone, Debug, Default)]
pub struct UdpReport {
    /// Datagrams accepted by the sender's kernel.
    pub sent: u64,
    /// Distinct datagrams that arrived.
    pub received: u64,
    /// Datagrams that arrived again.
    pub duplicated: u64,
    /// Datagrams that arrived after a later one of their flow.
    pub reordered: u64,
    /// Datagrams that arrived with another length or content than was sent.
    pub corrupted: u64,
    /// UDP payload of a datagram, in bytes.
    pub size: usize,
    /// From the first to the last arrival.
    pub elapsed: Duration,
}

impl UdpReport {
    /// Datagrams sent that did not arrive.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    /// Fraction of the datagrams that did not arrive, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        if self.sent == 0 {
            0.0
        } else {
            self.lost() as f64 / self.sent as f64
        }
    }

    /// Datagrams received per second.
    #[must_use]
    pub fn packets_per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 {
            self.received as f64 / seconds
        } else {
            0.0
        }
    }

    /// Goodput.
    #[must_use]
    pub fn rate(&self) -> BitRate {
        BitRate::of(self.received * self.size as u64, self.elapsed)
    }
}

impl fmt::Display for UdpReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} k/s, {}, {} of {} received ({:.2} % lost), {} doubled, {} reordered, {} corrupted",
            self.packets_per_second() / 1e3,
            self.rate(),
            self.received,
            self.sent,
            self.loss() * 100.0,
            self.duplicated,
            self.reordered,
            self.corrupted,
        )
    }
}

/// Shift of the flow number; the sequence number is in the low 48 bits.
const FLOW_SHIFT: u32 = 48;
const RECEIVE_BATCH: usize = 64;

impl UdpBurst {
    /// Sends the burst, and receives until no more datagrams arrive.
    ///
    /// # Errors
    /// If a socket could not be created, or the kernel permanently refused a datagram (too large, no route).
    pub fn run(&self, ends: &TrafficEnds) -> io::Result<UdpReport> {
        let any = if ends.address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let server = ends
            .server
            .run(|| UdpSocket::bind(SocketAddr::new(ends.address, 0)))??;
        // More than the default takes a privilege that a user namespace does not give.
        if setsockopt(&server, sockopt::RcvBufForce, &(8 << 20)).is_err() {
            setsockopt(&server, sockopt::RcvBuf, &(8 << 20))?;
        }
        server.set_read_timeout(Some(Duration::from_millis(20)))?;
        let to = server.local_addr()?;
        let clients = (0..self.flows.max(1))
            .map(|_| {
                let client = ends.client.run(|| UdpSocket::bind(any))??;
                client.connect(to)?;
                Ok(client)
            })
            .collect::<io::Result<Vec<_>>>()?;

        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let receiving = scope.spawn(|| self.receive(&server, &done));
            let sent = self.send(&clients);
            done.store(true, Ordering::Release);
            let mut report = receiving.join().expect("the receiver does not panic")?;
            report.sent = sent?;
            Ok(report)
        })
    }

    fn send(&self, sockets: &[UdpSocket]) -> io::Result<u64> {
        let size = self.size.max(8);
        let batch = self.batch.max(1);
        let mut buffers = vec![0; size * batch];
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(batch, None);
        let addresses = vec![None::<SockaddrStorage>; batch];
        let mut next = vec![0_u64; sockets.len()];
        let mut sent = 0;
        let start = Instant::now();
        for turn in 0.. {
            let due = match self.amount {
                SendAmount::For(time) if start.elapsed() >= time => 0,
                SendAmount::For(_) => batch,
                SendAmount::Count(total) => (total - sent).min(batch as u64) as usize,
            };
            if due == 0 {
                break;
            }
            if let Some(pace) = self.pace {
                let ahead = sent as f64 / pace - start.elapsed().as_secs_f64();
                if ahead > 0.0 {
                    thread::sleep(Duration::from_secs_f64(ahead));
                }
            }
            let flow = turn % sockets.len();
            for (i, buffer) in buffers.chunks_exact_mut(size).take(due).enumerate() {
                let tag = ((flow as u64) << FLOW_SHIFT) | (next[flow] + i as u64);
                buffer[..8].copy_from_slice(&tag.to_be_bytes());
                if self.verify {
                    Pattern::new(tag).fill(&mut buffer[8..]);
                }
            }
            let slices: Vec<_> = buffers
                .chunks_exact(size)
                .take(due)
                .map(|b| [IoSlice::new(b)])
                .collect();
            let fd = sockets[flow].as_raw_fd();
            match sendmmsg(fd, &mut headers, &slices, &addresses, [], MsgFlags::empty()) {
                Ok(results) => {
                    let taken = results.count() as u64;
                    next[flow] += taken;
                    sent += taken;
                }
                // The queue is full, or the error belongs to an earlier datagram: go on.
                Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => {}
                Err(errno) => {
                    return Err(io::Error::other(format!(
                        "cannot send {size} bytes by UDP: {errno}"
                    )));
                }
            }
        }
        Ok(sent)
    }

    fn receive(&self, socket: &UdpSocket, done: &AtomicBool) -> io::Result<UdpReport> {
        let size = self.size.max(8);
        // One byte more than is sent, so that a longer datagram is noticed.
        let room = size + 1;
        let mut buffers = vec![0; room * RECEIVE_BATCH];
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(RECEIVE_BATCH, None);
        let mut lengths = [0; RECEIVE_BATCH];
        let mut tally = ReceiveTally::new(size, self.verify, self.flows.max(1));
        let mut span: Option<(Instant, Instant)> = None;
        let mut quiet_since = None;
        loop {
            let count = {
                let mut slices: Vec<_> = buffers
                    .chunks_exact_mut(room)
                    .map(|b| [IoSliceMut::new(b)])
                    .collect();
                match recvmmsg(
                    socket.as_raw_fd(),
                    &mut headers,
                    &mut slices,
                    MsgFlags::MSG_WAITFORONE,
                    None,
                ) {
                    Ok(results) => {
                        let mut count = 0;
                        for (length, message) in lengths.iter_mut().zip(results) {
                            *length = message.bytes;
                            count += 1;
                        }
                        count
                    }
                    Err(Errno::EAGAIN | Errno::EINTR) => 0,
                    Err(errno) => return Err(errno.into()),
                }
            };
            let now = Instant::now();
            if count > 0 {
                span = Some((span.map_or(now, |(first, _)| first), now));
                quiet_since = None;
                for (buffer, &length) in buffers.chunks_exact(room).zip(&lengths).take(count) {
                    tally.count(&buffer[..length]);
                }
            } else if done.load(Ordering::Acquire) {
                let since = *quiet_since.get_or_insert(now);
                if now - since >= self.settle {
                    break;
                }
            }
        }
        let elapsed = span.map_or(Duration::ZERO, |(first, last)| last - first);
        Ok(UdpReport {
            elapsed,
            size,
            ..tally.report
        })
    }
}

/// Datagrams received so far: a bit for every sequence number of every flow.
struct ReceiveTally {
    report: UdpReport,
    size: usize,
    verify: bool,
    flows: Vec<ReceivedFlow>,
    expected: Vec<u8>,
}

#[derive(Clone, Default)]
struct ReceivedFlow {
    seen: Vec<u64>,
    highest: Option<u64>,
}

impl ReceiveTally {
    fn new(size: usize, verify: bool, flows: usize) -> Self {
        Self {
            report: UdpReport::default(),
            size,
            verify,
            flows: vec![ReceivedFlow::default(); flows],
            expected: vec![0; size - 8],
        }
    }

    fn count(&mut self, datagram: &[u8]) {
        let Some((head, body)) = datagram.split_first_chunk::<8>() else {
            self.report.corrupted += 1;
            return;
        };
        let tag = u64::from_be_bytes(*head);
        let sequence = tag & ((1 << FLOW_SHIFT) - 1);
        // No burst counts this far; a larger number is corrupted.
        let plausible = sequence < 1 << 32;
        let Some(flow) = self
            .flows
            .get_mut((tag >> FLOW_SHIFT) as usize)
            .filter(|_| plausible)
        else {
            self.report.corrupted += 1;
            return;
        };
        if datagram.len() != self.size
            || (self.verify && !is_pattern(tag, body, &mut self.expected))
        {
            self.report.corrupted += 1;
            return;
        }
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if flow.seen.len() <= word {
            flow.seen.resize(word + 1024, 0);
        }
        if flow.seen[word] & bit != 0 {
            self.report.duplicated += 1;
            return;
        }
        flow.seen[word] |= bit;
        self.report.received += 1;
        if flow.highest.is_some_and(|highest| sequence < highest) {
            self.report.reordered += 1;
        } else {
            flow.highest = Some(sequence);
        }
    }
}

fn is_pattern(tag: u64, body: &[u8], scratch: &mut [u8]) -> bool {
    Pattern::new(tag).fill(scratch);
    body == scratch
}

#[cfg(test)]
mod tests {
    use super::super::Netns;
    use super::*;

    #[test]
    fn a_paced_burst_over_loopback_arrives() {
        let here = Netns::current();
        for address in ["127.0.0.1", "::1"] {
            let ends = TrafficEnds::new(&here, &here, address.parse().unwrap());
            let burst = UdpBurst {
                amount: SendAmount::Count(2_000),
                pace: Some(50_000.0),
                flows: 3,
                ..UdpBurst::default()
            };
            let report = burst.run(&ends).unwrap();
            assert_eq!(
                (report.sent, report.received, report.corrupted),
                (2_000, 2_000, 0),
                "{report}"
            );
        }
    }

    fn datagram(tag: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        bytes[..8].copy_from_slice(&tag.to_be_bytes());
        Pattern::new(tag).fill(&mut bytes[8..]);
        bytes
    }

    #[test]
    fn doubled_reordered_and_changed_datagrams_are_told_apart() {
        let mut tally = ReceiveTally::new(40, true, 1);
        for tag in [0, 1, 3, 2, 2, 5] {
            tally.count(&datagram(tag, 40));
        }
        let mut changed = datagram(6, 40);
        changed[39] ^= 1;
        tally.count(&changed);
        tally.count(&datagram(7, 41));
        tally.count(&datagram(1 << FLOW_SHIFT, 40));
        tally.count(&[1, 2, 3]);
        let r = &tally.report;
        assert_eq!(
            (r.received, r.duplicated, r.reordered, r.corrupted),
            (5, 1, 1, 4)
        );
    }
}
