//! Synchronous system calls: sending refused datagrams again, and testing tunnel GSO.
//!
//! Off the packet path. Shared by the backends that talk to the kernel.

use std::fs;
use std::io;
use std::os::fd::RawFd;

use super::backend::Checksum;

/// Sends a datagram or a train.
///
/// # Safety
/// `message` and everything it points to must be valid for reading, and `socket` open.
pub(super) unsafe fn send(
    socket: RawFd,
    message: *const libc::msghdr,
    checksum: Checksum,
) -> Result<(), i32> {
    // The kernel does not offload the checksum of a corked datagram (`__ip_append_data`).
    let more = match checksum {
        Checksum::Offloaded => 0,
        Checksum::Finished => libc::MSG_MORE,
    };
    // SAFETY: the caller vouches for the message; the kernel only reads it.
    let rc = unsafe { libc::sendmsg(socket, message, libc::MSG_DONTWAIT | more) };
    if rc < 0 {
        return Err(last_error());
    }
    match checksum {
        Checksum::Offloaded => Ok(()),
        Checksum::Finished => uncork(socket),
    }
}

/// Uncorks a socket, which sends the datagram built up on it.
fn uncork(socket: RawFd) -> Result<(), i32> {
    let off: libc::c_int = 0;
    // SAFETY: the kernel reads four bytes from `off`, which lives until the call returns.
    let rc = unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_UDP,
            libc::UDP_CORK,
            (&raw const off).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if rc == 0 { Ok(()) } else { Err(last_error()) }
}

/// Writes to the tunnel GSO device; returns whether the kernel's count of forwarded packets grew.
///
/// # Safety
/// The iovecs and everything they point to must be valid for reading, and `device` open.
pub(super) unsafe fn write_watched(device: RawFd, iovs: &[libc::iovec]) -> bool {
    let before = forwarded();
    // SAFETY: the caller vouches for the iovecs; the kernel only reads what they point to.
    let written = unsafe { libc::writev(device, iovs.as_ptr(), iovs.len() as i32) };
    written > 0 && before.is_some() && forwarded() > before
}

/// The kernel's count of forwarded packets (RFC 4293, `ipForwDatagrams`).
fn forwarded() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").ok()?;
    let mut lines = text.lines().filter(|line| line.starts_with("Ip:"));
    let column = lines
        .next()?
        .split_whitespace()
        .position(|name| name == "ForwDatagrams")?;
    lines.next()?.split_whitespace().nth(column)?.parse().ok()
}

fn last_error() -> i32 {
    io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}
