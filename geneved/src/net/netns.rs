//! Work inside another network namespace: a short-lived thread that enters it.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use rtnetlink::Handle;
use tokio::sync::oneshot;

/// Why a namespace could not be worked in.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// There is no such name, or it may not be opened.
    #[error("network namespace \"{name}\": {error}{}", hint(.error))]
    Enter {
        /// The name.
        name: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// Netlink or a thread could not be had.
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

/// Runs `work` on a thread inside the namespace `/run/netns/NAME`, or the caller's own for `None`,
/// with a netlink connection of that namespace.
///
/// # Errors
/// The namespace cannot be entered or netlink not be had there.
pub async fn within<T, W, F>(name: Option<String>, work: W) -> Result<T, NetnsError>
where
    T: Send + 'static,
    W: FnOnce(Handle) -> F + Send + 'static,
    F: Future<Output = T>,
{
    let (send, receive) = oneshot::channel();
    // The thread ends with its namespace; a pooled one would take it along to other work.
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
/// There is no such name, or it may not be opened.
pub fn open(name: &str) -> Result<File, NetnsError> {
    let opened = File::open(path(name)).and_then(|file| {
        // "ip netns add" makes the file first, and puts the namespace onto it then.
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

/// What tells a namespace from another one that is made under its name later: device and inode, which are used again, and
/// when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetnsId(u64, u64, i64, i64);

/// The identity of the namespace that has this name now; `None` where none has.
#[must_use]
pub fn identity(name: &str) -> Option<NetnsId> {
    let file = open(name).ok()?;
    let m = file.metadata().ok()?;
    Some(NetnsId(m.dev(), m.ino(), m.ctime(), m.ctime_nsec()))
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// What tells the network namespace of this thread from others: the inode that its name in [`DIRECTORY`] has, too; 0 where
/// it cannot be read.
#[must_use]
pub fn own_inode() -> u64 {
    std::fs::metadata("/proc/thread-self/ns/net").map_or(0, |found| found.ino())
}

/// What tells the network namespace `/run/netns/NAME` from others.
///
/// # Errors
/// There is no such name.
pub fn inode(name: &str) -> io::Result<u64> {
    Ok(std::fs::metadata(path(name))?.ino())
}

/// Takes the calling thread, and sockets that it makes from here on, into the namespace `/run/netns/NAME`.
///
/// # Errors
/// There is no such name, or it may not be entered.
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
