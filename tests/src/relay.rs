//! Lossy underlay: forwards Geneve datagrams between two hosts, and drops, duplicates and reorders some.
//!
//! Each host uses the relay's address on its side as the other host. The relay replaces netem, which not every kernel
//! has.

use geneved::lab::netns::{LabNetns, veth};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Impairments of the relay, each a fraction from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Impairment {
    /// Dropped.
    pub loss: f64,
    /// Sent twice.
    pub duplication: f64,
    /// Held back until some later ones have passed.
    pub reorder: f64,
}

/// Relay that runs until dropped.
pub struct Relay {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    forwarded: Arc<AtomicU64>,
    harmed: Arc<AtomicU64>,
}

/// Addresses of host a, of the relay towards a, of the relay towards b, of host b.
pub const ADDRESSES: [&str; 4] = ["192.0.2.1", "192.0.2.2", "192.0.2.129", "192.0.2.130"];
const RELAY_PORT: u16 = 6081;

impl Relay {
    /// Joins `a` and `b` to `middle`, each by a veth `u0` there, and forwards between them.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    pub fn start(a: &LabNetns, middle: &LabNetns, b: &LabNetns, harm: Impairment) -> Self {
        let net: Vec<_> = ADDRESSES
            .iter()
            .map(|address| format!("{address}/25"))
            .collect();
        veth((a, "u0", &[&net[0]]), (middle, "ma", &[&net[1]]), 1500).expect("a veth");
        veth((middle, "mb", &[&net[2]]), (b, "u0", &[&net[3]]), 1500).expect("a veth");
        let socket = |i: usize| {
            let bound = middle
                .netns()
                .run(|| UdpSocket::bind((ADDRESSES[i], RELAY_PORT)));
            let socket = bound.and_then(std::convert::identity).expect("a socket");
            let large = 4 << 20;
            let _ = nix::sys::socket::setsockopt(
                &socket,
                nix::sys::socket::sockopt::RcvBufForce,
                &large,
            );
            socket
                .set_read_timeout(Some(Duration::from_millis(20)))
                .expect("a timeout");
            Arc::new(socket)
        };
        let (towards_a, towards_b) = (socket(1), socket(2));
        let stop = Arc::new(AtomicBool::new(false));
        let (forwarded, harmed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let peer =
            |i: usize| SocketAddr::new(ADDRESSES[i].parse().expect("an address"), RELAY_PORT);
        let ways = [
            (Arc::clone(&towards_a), Arc::clone(&towards_b), peer(3), 1),
            (towards_b, towards_a, peer(0), 2),
        ];
        let threads = ways
            .into_iter()
            .map(|(from, to, peer, seed)| {
                let way = RelayDirection {
                    from,
                    to,
                    peer,
                    harm,
                    chance: Chance(seed),
                };
                let (stop, forwarded, harmed) = (
                    Arc::clone(&stop),
                    Arc::clone(&forwarded),
                    Arc::clone(&harmed),
                );
                thread::spawn(move || way.run(&stop, &forwarded, &harmed))
            })
            .collect();
        Self {
            stop,
            threads,
            forwarded,
            harmed,
        }
    }

    /// Number of datagrams forwarded without being held back, both directions together.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }

    /// Number of datagrams dropped, duplicated or held back.
    #[must_use]
    pub fn harmed(&self) -> u64 {
        self.harmed.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One direction.
struct RelayDirection {
    from: Arc<UdpSocket>,
    to: Arc<UdpSocket>,
    peer: SocketAddr,
    harm: Impairment,
    chance: Chance,
}

/// Number of later datagrams that overtake one that is held back.
const OVERTAKEN_BY: u32 = 3;

impl RelayDirection {
    fn run(mut self, stop: &AtomicBool, forwarded: &AtomicU64, harmed: &AtomicU64) {
        let mut buffer = vec![0; 65_536];
        let mut held: Option<(Vec<u8>, u32)> = None;
        while !stop.load(Ordering::Relaxed) {
            let datagram = match self.from.recv(&mut buffer) {
                Ok(n) => &buffer[..n],
                Err(error) if error.kind() == ErrorKind::WouldBlock => &[],
                // ICMP error from the far side, while its daemon is down.
                Err(_) => continue,
            };
            if datagram.is_empty() {
                // Nothing is left that could overtake it.
                if let Some((late, _)) = held.take() {
                    let _ = self.to.send_to(&late, self.peer);
                }
                continue;
            }
            if self.chance.of(self.harm.loss) {
                harmed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if held.is_none() && self.chance.of(self.harm.reorder) {
                harmed.fetch_add(1, Ordering::Relaxed);
                held = Some((datagram.to_vec(), 0));
                continue;
            }
            let _ = self.to.send_to(datagram, self.peer);
            forwarded.fetch_add(1, Ordering::Relaxed);
            if self.chance.of(self.harm.duplication) {
                harmed.fetch_add(1, Ordering::Relaxed);
                let _ = self.to.send_to(datagram, self.peer);
            }
            if let Some((late, passed)) = &mut held {
                *passed += 1;
                if *passed >= OVERTAKEN_BY {
                    let _ = self.to.send_to(late, self.peer);
                    held = None;
                }
            }
        }
    }
}

/// Deterministic pseudo-random generator.
struct Chance(u64);

impl Chance {
    fn of(&mut self, part: f64) -> bool {
        let mut word = [0; 8];
        self.0 += 1;
        geneved::traffic::Pattern::new(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)).fill(&mut word);
        (u64::from_le_bytes(word) >> 11) as f64 / (1_u64 << 53) as f64 <= part && part > 0.0
    }
}
