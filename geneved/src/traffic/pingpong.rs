//! Request-response traffic: round-trip times over UDP and TCP, one message at a time.

use super::stats::human;
use super::{Latencies, TrafficEnds};
use nix::sys::socket::{setsockopt, sockopt};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// Transport protocol of the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingPongTransport {
    /// UDP; a lost datagram is counted and the next one sent.
    Udp,
    /// One TCP connection with Nagle's algorithm disabled.
    Tcp,
}

/// A ping-pong: the next message is sent when the reply to the last one has arrived.
#[derive(Clone, Debug)]
pub struct PingPong {
    /// Transport protocol of the messages.
    pub transport: PingPongTransport,
    /// Size of a message in bytes, at least 8.
    pub size: usize,
    /// Number of rounds.
    pub rounds: u64,
    /// Pause between a reply and the next message. Zero measures a busy path, 10 ms a cold one.
    pub pause: Duration,
    /// How long to wait for a reply.
    pub timeout: Duration,
}

impl Default for PingPong {
    fn default() -> Self {
        Self {
            transport: PingPongTransport::Udp,
            size: 64,
            rounds: 1000,
            pause: Duration::ZERO,
            timeout: Duration::from_millis(500),
        }
    }
}

/// Results of a ping-pong.
#[derive(Clone, Debug, Default)]
pub struct PingPongReport {
    /// Round-trip times of the replies.
    pub times: Latencies,
    /// Messages without a reply.
    pub lost: u64,
}

impl fmt::Display for PingPongReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {}, p99 {}, max {}, {} replies, {} lost",
            human(self.times.median()),
            human(self.times.percentile(0.99)),
            human(self.times.max()),
            self.times.count(),
            self.lost,
        )
    }
}

impl PingPong {
    /// Runs all rounds.
    ///
    /// # Errors
    /// If a socket could not be created or, over TCP, broke.
    pub fn run(&self, ends: &TrafficEnds) -> io::Result<PingPongReport> {
        match self.transport {
            PingPongTransport::Udp => self.run_udp(ends),
            PingPongTransport::Tcp => self.run_tcp(ends),
        }
    }

    fn run_udp(&self, ends: &TrafficEnds) -> io::Result<PingPongReport> {
        let any = if ends.address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let server = ends
            .server
            .run(|| UdpSocket::bind(SocketAddr::new(ends.address, 0)))??;
        let client = ends.client.run(|| UdpSocket::bind(any))??;
        client.connect(server.local_addr()?)?;
        client.set_read_timeout(Some(self.timeout))?;
        server.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut message = vec![0; self.size.max(8)];
        let mut reply = vec![0; message.len()];
        with_echo(
            |done| {
                let mut buffer = vec![0; 65_536];
                while !done() {
                    if let Ok((n, from)) = server.recv_from(&mut buffer) {
                        // A reply that cannot be sent counts as lost at the client.
                        let _ = server.send_to(&buffer[..n], from);
                    }
                }
            },
            || {
                let mut lost = 0;
                let mut times = Vec::with_capacity(self.rounds as usize);
                for round in 0..self.rounds {
                    message[..8].copy_from_slice(&round.to_be_bytes());
                    let start = Instant::now();
                    if client.send(&message).is_err() {
                        lost += 1;
                        thread::sleep(Duration::from_millis(1));
                        continue;
                    }
                    let arrived = loop {
                        match client.recv(&mut reply) {
                            // A late reply to an earlier round does not count for this one.
                            Ok(n) if n >= 8 && reply[..8] == message[..8] => break true,
                            Ok(_) if start.elapsed() < self.timeout => {}
                            _ => break false,
                        }
                    };
                    if arrived {
                        times.push(start.elapsed());
                    } else {
                        lost += 1;
                    }
                    if !self.pause.is_zero() {
                        thread::sleep(self.pause);
                    }
                }
                Ok(PingPongReport {
                    times: Latencies::new(times),
                    lost,
                })
            },
        )
    }

    fn run_tcp(&self, ends: &TrafficEnds) -> io::Result<PingPongReport> {
        let listener = ends
            .server
            .run(|| TcpListener::bind(SocketAddr::new(ends.address, 0)))??;
        let address = listener.local_addr()?;
        let mut client = ends
            .client
            .run(|| TcpStream::connect_timeout(&address, super::RECEIVE_TIMEOUT))??;
        let (mut server, _) = listener.accept()?;
        for stream in [&client, &server] {
            setsockopt(stream, sockopt::TcpNoDelay, &true)?;
            stream.set_read_timeout(Some(super::RECEIVE_TIMEOUT))?;
        }
        let size = self.size.max(8);
        thread::scope(|scope| {
            let echo = scope.spawn(move || -> io::Result<()> {
                let mut buffer = vec![0; size];
                while server.read_exact(&mut buffer).is_ok() {
                    server.write_all(&buffer)?;
                }
                Ok(())
            });
            let mut times = Vec::with_capacity(self.rounds as usize);
            let mut buffer = vec![0; size];
            let outcome = (0..self.rounds).try_for_each(|_| {
                let start = Instant::now();
                client.write_all(&buffer)?;
                client.read_exact(&mut buffer)?;
                times.push(start.elapsed());
                thread::sleep(self.pause);
                io::Result::Ok(())
            });
            drop(client);
            echo.join().expect("the echo does not panic")?;
            outcome?;
            Ok(PingPongReport {
                times: Latencies::new(times),
                lost: 0,
            })
        })
    }
}

/// Runs `echo` on another thread until `work` is done.
fn with_echo<T>(echo: impl FnOnce(&dyn Fn() -> bool) + Send, work: impl FnOnce() -> T) -> T {
    use std::sync::atomic::{AtomicBool, Ordering};
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || echo(&|| stop.load(Ordering::Relaxed)));
        let outcome = work();
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

#[cfg(test)]
mod tests {
    use super::super::Netns;
    use super::*;

    #[test]
    fn every_round_over_loopback_is_answered() {
        let here = Netns::current();
        for address in ["127.0.0.1", "::1"] {
            for transport in [PingPongTransport::Udp, PingPongTransport::Tcp] {
                let ends = TrafficEnds::new(&here, &here, address.parse().unwrap());
                let pingpong = PingPong {
                    transport,
                    rounds: 50,
                    ..PingPong::default()
                };
                let report = pingpong.run(&ends).unwrap();
                assert_eq!((report.times.count(), report.lost), (50, 0), "{report}");
            }
        }
    }
}
