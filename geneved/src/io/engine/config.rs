//! Configuration, reports, events and start errors of an engine.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use libgeneve::flow::FlowLimits;
use libgeneve::vpc::LinkIndex;

use crate::io::host_features::FeatureReport;

/// Configured backend (`io = …`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring if it works, otherwise plain system calls.
    #[default]
    Auto,
    /// io_uring only.
    IoUring,
    /// Plain system calls.
    Syscalls,
}

/// Who segments super-packets (`segmentation = …`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Segmentation {
    /// The best method that works.
    #[default]
    Auto,
    /// No offload: each datagram is sent by itself.
    Off,
    /// geneved segments and sends trains with `UDP_SEGMENT`.
    Gso,
    /// The kernel or the NIC segments (tunnel GSO, Linux ≥ 6.17), even if this host forwards other traffic.
    Tunnel,
}

/// Engine configuration.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The backend.
    pub io: IoChoice,
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Who segments super-packets.
    pub segmentation: Segmentation,
    /// Limits and timeouts of flows.
    pub limits: FlowLimits,
    /// Secret hash key of the flow table, so that nobody outside can provoke collisions.
    pub key: [u64; 2],
    /// Generation of the underlay: changes with each change of its routes and addresses.
    pub underlay: Arc<AtomicU32>,
}

/// Backend in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoBackend {
    /// One io_uring instance per worker.
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

/// The backend in use and the reason for it.
#[derive(Clone, Debug)]
pub struct BackendReport {
    /// The backend.
    pub backend: IoBackend,
    /// Reason for the choice.
    pub cause: String,
    /// Host features found by the capability probe.
    pub features: Vec<FeatureReport>,
}

/// Notification from the workers to the daemon.
#[derive(Debug)]
pub enum EngineEvent {
    /// A link's interface vanished.
    QueueLost {
        /// The link.
        link: LinkIndex,
        /// Error from the kernel.
        error: io::Error,
    },
    /// A receiving socket failed.
    SocketLost {
        /// Its port.
        port: u16,
        /// Error from the kernel.
        error: io::Error,
    },
    /// The kernel refused trains to a host, and no more are sent.
    GsoOff {
        /// The host's address.
        host: IpAddr,
        /// Error from the kernel.
        error: io::Error,
    },
    /// The kernel stopped or resumed forwarding a link's super-packets to a host.
    TunnelGso {
        /// The link.
        link: LinkIndex,
        /// The host's address.
        host: IpAddr,
        /// Whether it forwards them now.
        works: bool,
    },
    /// Datagrams to a host do not arrive or cannot be sent; reported at most once a second.
    Unreachable(SendErrors),
    /// A datagram did not come from the underlay; reported at most once a minute by each worker.
    NotFromUnderlay {
        /// The link that it came out of, if known.
        link: Option<LinkIndex>,
        /// Its outer source, which may be forged.
        src: IpAddr,
        /// Index of the receiving interface; 0 if unknown.
        interface: u32,
    },
    /// A worker stopped because its backend broke.
    WorkerLost {
        /// The worker's number.
        worker: usize,
        /// Error from the kernel.
        error: io::Error,
    },
}

/// Send errors and ICMP errors for one host.
#[derive(Debug)]
pub struct SendErrors {
    /// The host's address.
    pub host: IpAddr,
    /// The last error.
    pub error: io::Error,
    /// Number of errors.
    pub count: u32,
    /// True if this host's own kernel refused to send; false if only ICMP errors say so.
    pub certain: bool,
}

/// Error that prevented an engine, a port or a link from starting.
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
        /// The error.
        error: io::Error,
    },
    /// A Geneve port could not be opened.
    #[error("cannot listen on UDP port {port}: {error}{}", port_hint(.error))]
    Port {
        /// The port.
        port: u16,
        /// Error from the kernel.
        error: io::Error,
    },
    /// The sockets' error queues cannot be watched.
    #[error("cannot hear of ICMP errors: {0}")]
    ErrorQueues(io::Error),
    /// No source port could be opened.
    #[error("cannot open a source port in {low}-{high}: {error}")]
    SourcePorts {
        /// The lowest port of the range.
        low: u16,
        /// The highest port of the range.
        high: u16,
        /// Error from the kernel for the last port that was tried.
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
