//! TUN devices with virtio headers and segmentation offloads, one queue per worker.
//!
//! The `tun` crate creates devices with a single queue only, so multi-queue devices are opened here. `net` sets
//! addresses, MTU and the like.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use tun::AbstractDevice;

// linux/if_tun.h
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_TSO_ECN: libc::c_ulong = 0x08;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;

nix::ioctl_readwrite_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_int_bad!(tun_set_offload, libc::TUNSETOFFLOAD);
nix::ioctl_write_ptr_bad!(tun_set_vnet_hdr_size, libc::TUNSETVNETHDRSZ, libc::c_int);

/// TUN device that was just created, with its queues.
#[derive(Debug)]
pub struct Tun {
    /// Interface name.
    pub name: String,
    /// Whether the kernel passes UDP super-packets in both directions (USO, Linux ≥ 6.2).
    pub uso: bool,
    pub(super) queues: Vec<OwnedFd>,
}

impl Tun {
    /// Returns its queues; the interface goes away with the last of them.
    #[must_use]
    pub fn into_queues(self) -> Vec<OwnedFd> {
        self.queues
    }
}

/// Error from creating a TUN device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The name is empty, too long (15 bytes at most) or has a character that Linux forbids.
    #[error("\"{0}\" is not a valid interface name")]
    Name(String),
    /// An interface with this name exists.
    #[error("an interface named \"{0}\" exists already")]
    Exists(String),
    /// `/dev/net/tun` cannot be opened.
    #[error(
        "cannot open /dev/net/tun: {0}{hint}", hint = hint(.0)
    )]
    Open(io::Error),
    /// The kernel refused the device.
    #[error("cannot create TUN device \"{name}\": {error}{}", hint(.error))]
    Create {
        /// Interface name.
        name: String,
        /// Error from the kernel.
        error: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            "; there is no /dev/net/tun: load the module (\"modprobe tun\"), or give the container or the service the device"
        }
        Some(libc::EPERM | libc::EACCES) => {
            match caps::has_cap(
                None,
                caps::CapSet::Effective,
                caps::Capability::CAP_NET_ADMIN,
            ) {
                Ok(false) => {
                    "; CAP_NET_ADMIN is missing: run it as root, or give the service AmbientCapabilities=CAP_NET_ADMIN"
                }
                _ => {
                    "; /dev/net/tun may not be used: its mode, or the device rules of the container or the service \
                     (DeviceAllow=/dev/net/tun rw), forbid it"
                }
            }
        }
        Some(libc::EBUSY) => "; another program holds an interface of this name",
        _ => "",
    }
}

/// Name pattern; the kernel replaces `%d` by a free number.
const PROVISIONAL: &str = "gnvnew%d";

/// Creates a TUN device as [`create_tun`] does, to be moved to another network namespace. It has a provisional name,
/// see [`Tun::name`]. A device created inside a namespace would keep that namespace alive.
///
/// # Errors
/// See [`TunError`].
pub fn create_tun_to_move(queues: usize, tap: bool) -> Result<Tun, TunError> {
    finish(PROVISIONAL, open_queues(PROVISIONAL, queues, tap)?)
}

/// Creates a TUN device, or with `tap` a TAP device, with `queues` queues in the calling thread's network namespace.
/// It is down, and goes away when the last queue is closed.
///
/// # Errors
/// See [`TunError`].
pub fn create_tun(name: &str, queues: usize, tap: bool) -> Result<Tun, TunError> {
    let valid = !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'%');
    if !valid {
        return Err(TunError::Name(name.into()));
    }
    if if_nametoindex(name).is_ok() {
        return Err(TunError::Exists(name.into()));
    }
    // The kernel takes a moment to remove a device whose last user was an io_uring that is just being closed.
    let mut opened = open_queues(name, queues, tap);
    for _ in 0..20 {
        match &opened {
            Err(TunError::Create { error, .. }) if error.raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(Duration::from_millis(50));
                opened = open_queues(name, queues, tap);
            }
            _ => break,
        }
    }
    finish(name, opened?)
}

/// Enables the offloads.
fn finish(name: &str, (real, queues): (String, Vec<OwnedFd>)) -> Result<Tun, TunError> {
    let create = |error| TunError::Create {
        name: name.into(),
        error,
    };
    let base = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    let mut uso = true;
    for queue in &queues {
        if set_offload(queue.as_raw_fd(), base | TUN_F_USO4 | TUN_F_USO6).is_err() {
            uso = false;
            set_offload(queue.as_raw_fd(), base).map_err(create)?;
        }
    }
    Ok(Tun {
        name: real,
        uso,
        queues,
    })
}

/// Opens the queues of one device; also returns its name, in which the kernel has replaced any `%d`.
fn open_queues(name: &str, queues: usize, tap: bool) -> Result<(String, Vec<OwnedFd>), TunError> {
    if queues <= 1 {
        let (real, queue) = open_single(name, tap)?;
        return Ok((real, vec![queue]));
    }
    let mut real = name.to_owned();
    let mut opened = Vec::with_capacity(queues);
    for _ in 0..queues {
        let (queue, name) = open_multi(&real, tap)?;
        real = name;
        opened.push(queue);
    }
    Ok((real, opened))
}

fn open_single(name: &str, tap: bool) -> Result<(String, OwnedFd), TunError> {
    let mut config = tun::Configuration::default();
    let layer = if tap { tun::Layer::L2 } else { tun::Layer::L3 };
    config
        .tun_name(name)
        .layer(layer)
        .platform_config(|platform| {
            platform.vnet_hdr(true).ensure_root_privileges(false);
        });
    let device = tun::create(&config).map_err(|error| match error {
        tun::Error::Io(error) => TunError::Create {
            name: name.into(),
            error,
        },
        error => TunError::Create {
            name: name.into(),
            error: io::Error::other(error),
        },
    })?;
    let real = device.tun_name().map_err(|error| TunError::Create {
        name: name.into(),
        error: io::Error::other(error),
    })?;
    let fd = device.into_raw_fd();
    // SAFETY: into_raw_fd released ownership of the device's descriptor, so nothing else owns it.
    Ok((real, unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Creates a TAP device that takes encapsulated super-packets (Linux ≥ 6.17); returns its name and its queues. It is
/// down.
///
/// # Errors
/// If the kernel does not support the offload, or refuses the device.
pub(super) fn tap_with_tunnel_offload(queues: usize) -> io::Result<(String, Vec<OwnedFd>)> {
    const TUN_F_UDP_TUNNEL_GSO: libc::c_ulong = 0x080;
    const TUN_F_UDP_TUNNEL_GSO_CSUM: libc::c_ulong = 0x100;
    const TUNNEL_HEADER: libc::c_int = 24;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    let flags = if queues > 1 {
        flags | libc::IFF_MULTI_QUEUE
    } else {
        flags
    };
    let mut name = "gnvgso%d".to_owned();
    let mut opened = Vec::with_capacity(queues);
    for _ in 0..queues.max(1) {
        let (queue, real) = open_queue(&name, flags)?;
        name = real;
        // SAFETY: the kernel reads an integer, which lives until the call returns.
        unsafe { tun_set_vnet_hdr_size(queue.as_raw_fd(), &TUNNEL_HEADER) }?;
        let offloads =
            TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_USO4 | TUN_F_USO6;
        set_offload(
            queue.as_raw_fd(),
            offloads | TUN_F_UDP_TUNNEL_GSO | TUN_F_UDP_TUNNEL_GSO_CSUM,
        )?;
        opened.push(queue);
    }
    Ok((name, opened))
}

fn open_multi(name: &str, tap: bool) -> Result<(OwnedFd, String), TunError> {
    let kind = if tap { libc::IFF_TAP } else { libc::IFF_TUN };
    let flags = kind | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    let create = |error| TunError::Create {
        name: name.into(),
        error,
    };
    open_queue(name, flags).map_err(create)
}

/// Opens one queue; the kernel replaces `%d` in the name.
fn open_queue(name: &str, flags: libc::c_int) -> io::Result<(OwnedFd, String)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let mut request = interface_request(name)?;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the kernel reads the request and writes the name into it; it lives until the call returns.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw mut request) }?;
    let name = request
        .ifr_name
        .iter()
        .take_while(|&&c| c != 0)
        .map(|&c| char::from(c as u8))
        .collect();
    Ok((file.into(), name))
}

/// Builds an `ifreq` for the interface `name`.
pub(super) fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    let text = CString::new(name)?;
    // SAFETY: ifreq is plain data, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(text.as_bytes_with_nul()) {
        *to = *from as libc::c_char;
    }
    Ok(request)
}

fn set_offload(queue: RawFd, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    unsafe { tun_set_offload(queue, flags as i32) }?;
    Ok(())
}
