//! Legitimate traffic, which must arrive unchanged.

use super::actor::{Actor, ActorContext};
use geneved::traffic::{
    EchoRun, PingPong, PingPongTransport, SendAmount, TcpBulk, TrafficEnds, UdpBurst,
};
use std::time::Duration;

/// How long a TCP stream may stall: longer than any disturbance and the kernel's retransmission after it.
const STREAM_TIMEOUT: Duration = Duration::from_secs(45);

/// The same for a peer that may be gone.
const MORTAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Kind of traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConversationKind {
    /// Bulk, with every byte compared.
    Tcp,
    /// Datagrams of all sizes, with every byte compared.
    Udp,
    /// One datagram back and forth at a time.
    PingPong,
    /// ICMP echo.
    Ping,
}

/// Conversation that is repeated.
pub struct Conversation {
    kind: ConversationKind,
    name: String,
    ends: Vec<TrafficEnds>,
    next: usize,
    /// Whether the peer may be gone.
    mortal: bool,
}

impl Conversation {
    /// Returns an actor that uses all of these ends in turn.
    pub fn actor(
        kind: ConversationKind,
        device: &str,
        ends: Vec<TrafficEnds>,
        mortal: bool,
    ) -> Box<dyn Actor> {
        let name = format!("good {kind:?} {device}").to_lowercase();
        Box::new(Self {
            kind,
            name,
            ends,
            next: 0,
            mortal,
        })
    }

    fn hold(&self, ends: &TrafficEnds, cx: &mut ActorContext<'_>) -> Result<u64, String> {
        match self.kind {
            ConversationKind::Tcp => {
                let bulk = TcpBulk {
                    streams: 1 + cx.rng.usize(..2),
                    amount: SendAmount::Count(cx.rng.u64(10_000..6_000_000)),
                    patience: if self.mortal {
                        MORTAL_TIMEOUT
                    } else {
                        STREAM_TIMEOUT
                    },
                    ..TcpBulk::default()
                };
                let report = bulk.run(ends).map_err(|error| error.to_string())?;
                match report.is_intact() {
                    true => Ok(report.bytes),
                    false => Err(format!("CORRUPTED: {report}")),
                }
            }
            ConversationKind::Udp => {
                let burst = UdpBurst {
                    // Up to three inner fragments.
                    size: cx.rng.usize(8..3500),
                    amount: SendAmount::Count(500),
                    pace: Some(cx.rng.u32(500..4000).into()),
                    batch: 8,
                    flows: 1 + cx.rng.usize(..4),
                    ..UdpBurst::default()
                };
                let report = match burst.run(ends) {
                    // The kernel reports the path's new MTU to a connected socket by failing the next datagram.
                    Err(error) if error.to_string().contains("EMSGSIZE") => {
                        cx.ledger.count("udp told that the path is narrower", 1);
                        return Ok(0);
                    }
                    report => report.map_err(|error| error.to_string())?,
                };
                cx.ledger.count("lost udp", report.lost());
                match report.corrupted + report.duplicated {
                    0 => Ok(report.received),
                    _ => Err(format!("CORRUPTED: {} B: {report}", burst.size)),
                }
            }
            ConversationKind::PingPong => {
                let pingpong = PingPong {
                    transport: PingPongTransport::Udp,
                    size: cx.rng.usize(8..1300),
                    rounds: 100,
                    ..PingPong::default()
                };
                let report = pingpong.run(ends).map_err(|error| error.to_string())?;
                cx.ledger.count("lost pingpong", report.lost);
                Ok(report.times.count() as u64)
            }
            ConversationKind::Ping => {
                let echo = EchoRun {
                    count: 20,
                    size: cx.rng.usize(0..3000),
                    ..EchoRun::default()
                };
                let report = echo
                    .run(&ends.client, ends.address)
                    .map_err(|error| error.to_string())?;
                cx.ledger.count("lost ping", report.sent - report.received);
                match report.corrupted {
                    0 => Ok(report.received),
                    _ => Err(format!("CORRUPTED: {} B: {report}", echo.size)),
                }
            }
        }
    }
}

impl Actor for Conversation {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn step(&mut self, cx: &mut ActorContext<'_>) -> Result<u64, String> {
        let ends = self.ends[self.next % self.ends.len()].clone();
        self.next += 1;
        match self.hold(&ends, cx) {
            Err(words) if self.mortal && !words.starts_with("CORRUPTED") => {
                cx.ledger.count("broken with a host or link that went", 1);
                cx.gate.pause(Duration::from_millis(200));
                Ok(0)
            }
            Err(words) => Err(format!("{words} (to {})", ends.address)),
            done => done,
        }
    }

    fn must_progress(&self) -> bool {
        !self.mortal
    }
}
