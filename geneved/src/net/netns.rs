//! Runs work inside another network namespace, on a short-lived thread that enters it.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use rtnetlink::Handle;
use tokio::sync::oneshot;

/// Why work in a namespace failed.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The name does not exist, or must not be opened.
    #[error("network namespace \"{name}\": {error}{}", hint(.error))]
    Enter {
        /// The name.
        name: String,
        /// The kernel's error.
        error: io::Error,
    },
    /// A netlink socket or a thread could not be created.
    #[error("cannot talk to the kernel by netlink: {0}")]
    Netlink(#[from] io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(nix::libc::ENOENT) => "; make it with \"ip netns add\"",
        Some(nix::libc::EPERM) => "; entering it needs CAP_SYS_ADMIN",
        _ => "",
    }
}

/// Runs `work` on a thread inside the namespace `/run/netns/NAME`, or the caller's own for `None`, with a netlink
/// connection of that namespace.
///
/// # Errors
/// If the namespace cannot be entered, or no netlink socket can be opened in it.
pub async fn within<T, W, F>(name: Option<String>, work: W) -> Result<T, NetnsError>
where
    T: Send + 'static,
    W: FnOnce(Handle) -> F + Send + 'static,
    F: Future<Output = T>,
{
    let (send, receive) = oneshot::channel();
    // The thread ends afterwards; a pooled thread would carry the namespace over to other work.
    std::thread::Builder::new()
        .name("netns".into())
        .spawn(move || {
            let _ = send.send(enter_and_run(name, work));
        })?;
    receive
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the thread ended early").into()))
}

/// Where `ip netns` keeps the names of namespaces.
pub const DIRECTORY: &str = "/run/netns";

/// Opens the namespace `/run/netns/NAME`; it lives at least until the file is closed.
///
/// # Errors
/// If there is no such name, or it must not be opened.
pub fn open(name: &str) -> Result<File, NetnsError> {
    let opened = File::open(path(name)).and_then(|file| {
        // "ip netns add" creates the file first, and mounts the namespace on it afterwards.
        match fstatfs(&file)?.filesystem_type() {
            NSFS_MAGIC => Ok(file),
            _ => Err(io::Error::from_raw_os_error(nix::libc::ENOENT)),
        }
    });
    opened.map_err(|error| NetnsError::Enter {
        name: name.to_owned(),
        error,
    })
}

/// Identity of a namespace that differs for a later one of the same name: device and inode, which may be reused, and
/// creation time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetnsId(u64, u64, i64, i64);

/// Identity of the namespace that has this name now; `None` if there is none.
#[must_use]
pub fn identity(name: &str) -> Option<NetnsId> {
    let file = open(name).ok()?;
    let m = file.metadata().ok()?;
    Some(NetnsId(m.dev(), m.ino(), m.ctime(), m.ctime_nsec()))
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Inode of this thread's network namespace, the same as that of its name in [`DIRECTORY`]; 0 if it cannot be read.
#[must_use]
pub fn own_inode() -> u64 {
    std::fs::metadata("/proc/thread-self/ns/net").map_or(0, |found| found.ino())
}

/// Inode of the network namespace `/run/netns/NAME`.
///
/// # Errors
/// If there is no such name.
pub fn inode(name: &str) -> io::Result<u64> {
    Ok(std::fs::metadata(path(name))?.ino())
}

/// Moves the calling thread, and sockets that it creates from here on, into the namespace `/run/netns/NAME`.
///
/// # Errors
/// If there is no such name, or it must not be entered.
pub fn enter(name: &str) -> Result<(), NetnsError> {
    setns(open(name)?, CloneFlags::CLONE_NEWNET).map_err(|error| NetnsError::Enter {
        name: name.to_owned(),
        error: error.into(),
    })
}

fn enter_and_run<T, W, F>(name: Option<String>, work: W) -> Result<T, NetnsError>
where
    W: FnOnce(Handle) -> F,
    F: Future<Output = T>,
{
    if let Some(name) = name {
        enter(&name)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(work(handle).await)
    })
}
