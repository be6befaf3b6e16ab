//! TCP bulk transfer, verified by checksum, or unverified for benchmarks.

use super::{BitRate, Pattern, RECEIVE_TIMEOUT, SendAmount, TrafficEnds};
use crate::plural::counted;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// A bulk transfer over a number of TCP streams.
#[derive(Clone, Debug)]
pub struct TcpBulk {
    /// Number of concurrent streams.
    pub streams: usize,
    /// Duration, or bytes per stream.
    pub amount: SendAmount,
    /// Whether every byte is checked: the stream is pseudo-random, and both sides hash it. Off for benchmarks, which
    /// would otherwise measure the check.
    pub verify: bool,
    /// How long a stream may stall before it is given up.
    pub patience: Duration,
    /// Congestion control of the senders; the system's default if `None`.
    pub congestion: Option<&'static str>,
}

impl Default for TcpBulk {
    fn default() -> Self {
        Self {
            streams: 1,
            amount: SendAmount::For(Duration::from_secs(2)),
            verify: true,
            patience: RECEIVE_TIMEOUT,
            congestion: None,
        }
    }
}

/// Results of a bulk transfer.
#[derive(Clone, Debug, Default)]
pub struct TcpReport {
    /// Streams that ran.
    pub streams: usize,
    /// Bytes read by the receivers, all streams together.
    pub bytes: u64,
    /// From the first connection to the last byte read.
    pub elapsed: Duration,
    /// Streams whose content arrived complete and unchanged; equal to `streams` if all is well. In an unverified
    /// transfer only the length is compared.
    pub intact: usize,
}

impl TcpReport {
    /// Goodput of all streams together.
    #[must_use]
    pub fn rate(&self) -> BitRate {
        BitRate::of(self.bytes, self.elapsed)
    }

    /// Whether every stream arrived intact.
    #[must_use]
    pub const fn is_intact(&self) -> bool {
        self.intact == self.streams && self.bytes > 0
    }
}

impl fmt::Display for TcpReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = if self.is_intact() {
            "content equal"
        } else {
            "CONTENT DIFFERS"
        };
        write!(
            f,
            "{}, {:.1} MB in {:.2} s over {}, {content}",
            self.rate(),
            self.bytes as f64 / 1e6,
            self.elapsed.as_secs_f64(),
            counted(self.streams, "stream"),
        )
    }
}

/// What one side of a stream has seen: length and, if verified, content.
#[derive(PartialEq, Eq)]
struct ReceivedStream {
    bytes: u64,
    hash: Option<blake3::Hash>,
}

const WRITE_CHUNK: usize = 128 * 1024;

impl TcpBulk {
    /// Runs the transfer to its end.
    ///
    /// # Errors
    /// If a stream could not be connected, broke, or stalled for longer than `patience`.
    pub fn run(&self, ends: &TrafficEnds) -> io::Result<TcpReport> {
        let listener = ends
            .server
            .run(|| TcpListener::bind(SocketAddr::new(ends.address, 0)))??;
        listener.set_nonblocking(true)?;
        let server = listener.local_addr()?;
        let mut pairs = Vec::with_capacity(self.streams);
        for _ in 0..self.streams {
            let sender = ends
                .client
                .run(|| TcpStream::connect_timeout(&server, self.patience))??;
            if let Some(name) = self.congestion {
                socket2::SockRef::from(&sender).set_tcp_congestion(name.as_bytes())?;
            }
            let receiver = self.accept(&listener)?;
            sender.set_write_timeout(Some(self.patience))?;
            receiver.set_read_timeout(Some(self.patience))?;
            pairs.push((sender, receiver));
        }
        let start = Instant::now();
        let outcomes: Vec<io::Result<(ReceivedStream, ReceivedStream)>> = thread::scope(|scope| {
            let running: Vec<_> = pairs
                .into_iter()
                .enumerate()
                .map(|(seed, (tx, rx))| {
                    let sent = scope.spawn(move || self.send(tx, seed as u64));
                    let received = scope.spawn(move || self.receive(rx));
                    (sent, received)
                })
                .collect();
            running
                .into_iter()
                .map(|(sent, received)| {
                    let received = received.join().expect("a receiver does not panic");
                    let sent = sent.join().expect("a sender does not panic");
                    Ok((sent?, received?))
                })
                .collect()
        });
        let mut report = TcpReport {
            streams: self.streams,
            elapsed: start.elapsed(),
            ..TcpReport::default()
        };
        for outcome in outcomes {
            let (sent, received) = outcome?;
            report.bytes += received.bytes;
            report.intact += usize::from(sent == received);
        }
        Ok(report)
    }

    /// Accepts a connection, with a time limit: the client may consider it established although the last segment of
    /// the handshake was lost.
    fn accept(&self, listener: &TcpListener) -> io::Result<TcpStream> {
        let start = Instant::now();
        loop {
            match listener.accept() {
                Ok((receiver, _)) => {
                    receiver.set_nonblocking(false)?;
                    return Ok(receiver);
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(error) if start.elapsed() > self.patience => {
                    return Err(stuck(&error, "connecting", 0));
                }
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn send(&self, mut stream: TcpStream, seed: u64) -> io::Result<ReceivedStream> {
        let mut chunk = vec![0; WRITE_CHUNK];
        let mut pattern = Pattern::new(seed ^ 0x6765_6e65_7665_0000);
        let mut hasher = blake3::Hasher::new();
        pattern.fill(&mut chunk);
        let start = Instant::now();
        let mut bytes = 0;
        loop {
            let next = match self.amount {
                SendAmount::For(time) if start.elapsed() >= time => 0,
                SendAmount::For(_) => WRITE_CHUNK,
                SendAmount::Count(total) => (total - bytes).min(WRITE_CHUNK as u64) as usize,
            };
            if next == 0 {
                break;
            }
            if self.verify {
                pattern.fill(&mut chunk[..next]);
                hasher.update(&chunk[..next]);
            }
            stream
                .write_all(&chunk[..next])
                .map_err(|error| stuck(&error, "sending", bytes))?;
            bytes += next as u64;
        }
        stream.shutdown(Shutdown::Write)?;
        // The kernel gives up an orphaned socket after a few retransmissions, or the first ICMP error, along with any
        // unsent data. So keep it open until the receiver has read everything and closed its own.
        stream.set_read_timeout(Some(self.patience))?;
        let _ = stream.read(&mut [0]);
        Ok(ReceivedStream {
            bytes,
            hash: self.verify.then(|| hasher.finalize()),
        })
    }

    fn receive(&self, mut stream: TcpStream) -> io::Result<ReceivedStream> {
        let mut chunk = vec![0; WRITE_CHUNK];
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0;
        loop {
            let n = stream
                .read(&mut chunk)
                .map_err(|error| stuck(&error, "receiving", bytes))?;
            if n == 0 {
                break;
            }
            if self.verify {
                hasher.update(&chunk[..n]);
            }
            bytes += n as u64;
        }
        Ok(ReceivedStream {
            bytes,
            hash: self.verify.then(|| hasher.finalize()),
        })
    }
}

fn stuck(error: &io::Error, doing: &str, bytes: u64) -> io::Error {
    io::Error::new(
        error.kind(),
        format!(
            "TCP stream broke while {doing}, after {}: {error}",
            counted(bytes, "byte")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Netns;
    use super::*;

    #[test]
    fn a_transfer_over_loopback_is_whole() {
        let here = Netns::current();
        let ends = TrafficEnds::new(&here, &here, "127.0.0.1".parse().unwrap());
        let bulk = TcpBulk {
            streams: 3,
            amount: SendAmount::Count(1_000_003),
            ..TcpBulk::default()
        };
        let report = bulk.run(&ends).unwrap();
        assert_eq!(report.bytes, 3_000_009);
        assert!(report.is_intact(), "{report}");
    }

    #[test]
    fn nothing_received_is_not_intact() {
        assert!(!TcpReport::default().is_intact());
    }
}
