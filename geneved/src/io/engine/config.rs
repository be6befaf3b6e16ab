//! How an engine is to be, what it says of itself, and why it could not be started.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use libgeneve::flow::FlowLimits;
use libgeneve::vpc::LinkIndex;

use crate::io::host_features::FeatureReport;

/// The configured backend (`io = …`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring where it works, otherwise plain system calls.
    #[default]
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// Plain system calls.
    Syscalls,
}

/// Who cuts super-packets (`segmentation = …`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Segmentation {
    /// The best that works.
    #[default]
    Auto,
    /// Each datagram is sent by itself.
    Off,
    /// geneved cuts and sends trains with `UDP_SEGMENT`.
    Gso,
    /// The kernel or the NIC cuts (tunnel GSO, Linux ≥ 6.17), also where the host routes packets of others.
    Tunnel,
}

/// How an engine is to be.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The backend.
    pub io: IoChoice,
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Who cuts super-packets.
    pub segmentation: Segmentation,
    /// How many flows there may be, and how long they last.
    pub limits: FlowLimits,
    /// Secret, so that nobody outside can pile flows on one place of the table.
    pub key: [u64; 2],
    /// Another number after each change of the underlay's routes and addresses.
    pub underlay: Arc<AtomicU32>,
}

/// The backend that a worker uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoBackend {
    /// One io_uring for each worker.
    IoUring,
    /// epoll and plain system calls.
    Syscalls,
}

impl IoBackend {
    /// `io_uring` or `syscalls`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            IoBackend::IoUring => "io_uring",
            IoBackend::Syscalls => "syscalls",
        }
    }
}

/// Which backend runs, and why.
#[derive(Clone, Debug)]
pub struct BackendReport {
    /// Which one.
    pub backend: IoBackend,
    /// Why this one.
    pub cause: String,
    /// What the host can do.
    pub features: Vec<FeatureReport>,
}

/// What the workers tell the daemon.
#[derive(Debug)]
pub enum EngineEvent {
    /// A link's interface vanished.
    QueueLost {
        /// The link.
        link: LinkIndex,
        /// What the kernel said.
        error: io::Error,
    },
    /// A receiving socket broke.
    SocketLost {
        /// Its port.
        port: u16,
        /// What the kernel said.
        error: io::Error,
    },
    /// Trains to a host were refused and are not sent any more.
    GsoOff {
        /// The host's address.
        host: IpAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// The kernel does not forward a link's super-packets to a host any more, or does so again.
    TunnelGso {
        /// The link.
        link: LinkIndex,
        /// The host's address.
        host: IpAddr,
        /// Whether it forwards them.
        works: bool,
    },
    /// Datagrams to a host do not arrive or are not sent; told once a second at most.
    Unreachable(SendErrors),
    /// A datagram did not come from the underlay; told once a minute at most by each worker.
    NotFromUnderlay {
        /// The link out of which it came, if it is known to have come out of one.
        link: Option<LinkIndex>,
        /// Its outer source, which anybody may have written.
        src: IpAddr,
        /// The index of the interface that received it; 0 where that is not known.
        interface: u32,
    },
    /// A worker stopped because its backend broke.
    WorkerLost {
        /// The worker's number.
        worker: usize,
        /// What the kernel said.
        error: io::Error,
    },
}

/// Errors for datagrams to one host.
#[derive(Debug)]
pub struct SendErrors {
    /// The host's address.
    pub host: IpAddr,
    /// What the last of them comes to.
    pub error: io::Error,
    /// How many there were.
    pub count: u32,
    /// This host's kernel refused to send; otherwise an ICMP error says it.
    pub certain: bool,
}

/// Why the engine, a port or a link could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `io = "io_uring"` was asked for and does not work.
    #[error("io_uring cannot be used: {0}; set io = \"auto\" to fall back on plain system calls")]
    Uring(io::Error),
    /// A worker could not be set up.
    #[error("cannot start worker {worker}: {error}")]
    Worker {
        /// The worker's number.
        worker: usize,
        /// What failed.
        error: io::Error,
    },
    /// A Geneve port could not be opened.
    #[error("cannot listen on UDP port {port}: {error}{}", port_hint(.error))]
    Port {
        /// The port.
        port: u16,
        /// What the kernel said.
        error: io::Error,
    },
    /// The sockets' errors cannot be heard of.
    #[error("cannot hear of ICMP errors: {0}")]
    ErrorQueues(io::Error),
    /// No source port could be opened.
    #[error("cannot open a source port in {low}-{high}: {error}")]
    SourcePorts {
        /// The lowest port of the range.
        low: u16,
        /// The highest.
        high: u16,
        /// What the kernel said to the last one that was tried.
        error: io::Error,
    },
}

fn port_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            "; another program has it: `ss -lunp` names it, or it is a kernel geneve device (`ip -d link show type geneve`) or Open vSwitch"
        }
        Some(libc::EACCES) => "; CAP_NET_BIND_SERVICE is needed",
        _ => "",
    }
}
