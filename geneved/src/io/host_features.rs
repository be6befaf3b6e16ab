//! Capability probe: what this host's kernel supports for the packet path, found by trying it.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, Probe, opcode};
use socket2::{Domain, Protocol, Socket, Type};

use super::buffer_pool::BufferPool;
use super::uring::Uring;

/// Declares the features with their names.
macro_rules! features {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// Host feature.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum HostFeature {
            $($(#[$doc])* $variant),+
        }

        impl HostFeature {
            /// Name, as shown by `geneved check`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(HostFeature::$variant => $name),+
                }
            }
        }
    };
}

features! {
    /// `/dev/net/tun`.
    Tun = "tun",
    /// io_uring with everything the packet path needs.
    IoUring = "io_uring",
    /// Sending trains with one system call (`UDP_SEGMENT`).
    UdpSegment = "udp-segment",
    /// Receiving trains with one system call (`UDP_GRO`).
    UdpGro = "udp-gro",
    /// UDP super-packets on TUN (USO).
    TunUso = "tun-uso",
    /// Encapsulated super-packets that the kernel or the network card segments.
    TunnelGso = "tunnel-gso",
    /// The capability to create interfaces.
    NetAdmin = "net-admin",
    /// The capability to enter other network namespaces.
    Netns = "netns",
    /// The capability to use ports below 1024.
    LowPorts = "low-ports",
    /// The Geneve port is free.
    GenevePort = "port-6081",
    /// IPv6.
    Ipv6 = "ipv6",
    /// User that the service runs as.
    ServiceUser = "user",
    /// The configuration file.
    Configuration = "config",
    /// A daemon that responds.
    Daemon = "daemon",
    /// Kernel settings that NAT depends on.
    Nat = "nat",
    /// A link that works as configured.
    Link = "link",
    /// Packets of a link are delivered.
    Delivery = "delivery",
    /// The kernel does not forward between links.
    Forwarding = "forwarding",
}

/// A feature and its availability on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureReport {
    /// The feature.
    pub kind: HostFeature,
    /// Whether this host has it.
    pub available: bool,
    /// What was found, or what is missing and what is done instead.
    pub detail: String,
}

impl FeatureReport {
    fn new(kind: HostFeature, result: io::Result<()>, with: &str, without: &str) -> Self {
        match result {
            Ok(()) => FeatureReport {
                kind,
                available: true,
                detail: with.into(),
            },
            Err(error) => FeatureReport {
                kind,
                available: false,
                detail: format!("{error}; {without}"),
            },
        }
    }
}

/// Probes every feature of the packet path.
#[must_use]
pub fn probe() -> Vec<FeatureReport> {
    vec![
        FeatureReport::new(
            HostFeature::Tun,
            tun_device(),
            "/dev/net/tun can be opened",
            "without it no link can be made",
        ),
        FeatureReport::new(
            HostFeature::IoUring,
            uring(),
            "multishot reads, buffer rings",
            "plain system calls are used",
        ),
        FeatureReport::new(
            HostFeature::UdpSegment,
            udp_option(libc::UDP_SEGMENT, 1000),
            "trains are sent with one system call",
            "every datagram is sent by itself",
        ),
        FeatureReport::new(
            HostFeature::UdpGro,
            udp_option(libc::UDP_GRO, 1),
            "trains are received with one system call",
            "every datagram is received by itself",
        ),
        FeatureReport::new(
            HostFeature::TunUso,
            kernel_at_least(6, 2),
            "UDP super-packets cross TUN whole",
            "UDP crosses TUN packet by packet",
        ),
        FeatureReport::new(
            HostFeature::TunnelGso,
            kernel_at_least(6, 17),
            "the kernel can segment encapsulated packets",
            "geneved segments by itself",
        ),
    ]
}

/// Checks that io_uring can carry the packet path.
///
/// # Errors
/// If it cannot; the text names the remedy.
pub(super) fn uring() -> io::Result<()> {
    let ring = IoUring::new(8).map_err(explain)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    if !probe.is_supported(opcode::ReadMulti::CODE) {
        return Err(io::Error::other(
            "this kernel's io_uring has no multishot read (it came with Linux 6.7)",
        ));
    }
    drop(ring);
    let buffers = (BufferPool::new(2, 4096)?, BufferPool::new(2, 4096)?);
    let bell = nix::sys::eventfd::EventFd::new()?;
    Uring::new(&buffers.0, &buffers.1, bell.as_raw_fd())
        .map(drop)
        .map_err(explain)
}

fn explain(error: io::Error) -> io::Error {
    let why = match error.raw_os_error() {
        Some(libc::ENOSYS) if filtered() => FILTERED,
        Some(libc::ENOSYS) => "this kernel is built without io_uring",
        Some(libc::EPERM | libc::EACCES) => match sysctl("kernel/io_uring_disabled").as_deref() {
            Some("2") => {
                "io_uring is forbidden by the sysctl kernel.io_uring_disabled=2; 0 allows it"
            }
            Some("1") => {
                "io_uring is forbidden to this user by the sysctl kernel.io_uring_disabled=1; 0 allows it, or the user's \
                 group in kernel.io_uring_group"
            }
            _ if filtered() => FILTERED,
            _ => {
                "io_uring is forbidden by a security module (SELinux or AppArmor); its audit log names the rule"
            }
        },
        Some(libc::ENOMEM) => "not enough locked memory for io_uring; raise LimitMEMLOCK",
        Some(libc::EINVAL) => "this kernel's io_uring is too old (Linux 6.1 is needed)",
        _ => return error,
    };
    io::Error::new(error.kind(), why)
}

const FILTERED: &str = "io_uring is forbidden by a seccomp filter, the container's or the service's; it has to allow \
    io_uring_setup, io_uring_enter and io_uring_register";

/// Whether a seccomp filter applies to this process.
fn filtered() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mode = status.lines().find_map(|l| l.strip_prefix("Seccomp:"));
    mode.is_some_and(|mode| mode.trim() == "2")
}

fn sysctl(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
    Some(text.trim().to_owned())
}

fn tun_device() -> io::Result<()> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map(drop)
}

fn udp_option(name: i32, value: i32) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    super::udp::set_int(&socket, libc::SOL_UDP, name, value)
}

fn kernel_at_least(major: u32, minor: u32) -> io::Result<()> {
    let release = nix::sys::utsname::uname()?
        .release()
        .to_string_lossy()
        .into_owned();
    let mut parts = release
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|p| p.parse::<u32>().ok());
    let here = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if here >= (major, minor) {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "Linux {major}.{minor} is needed, this is {release}"
        )))
    }
}
