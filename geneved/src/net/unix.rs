//! Listening Unix sockets: mode 0660, never taken over from a daemon that answers, removed at exit.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::{Mode, umask};
use tokio::net::UnixListener;

use super::port_holder::is_ending;
use crate::refusal::Refusal;

/// A listening socket; the file is removed on drop.
#[derive(Debug)]
pub struct SocketFile {
    listener: UnixListener,
    path: PathBuf,
}

/// Checks that nothing listens at `path`. `what` names it in error messages, and `key` is its key in `[daemon]`.
///
/// # Errors
/// If something does, or the path is not a socket.
pub fn ensure_free(path: &Path, what: &str, key: &str) -> Result<(), Refusal> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(_) => return Ok(()),
    };
    let refuse = |cause: &str, first: &str| {
        Refusal::new(
            format!("{what} {}: {cause}", path.display()),
            format!("{first}, or choose another path in [daemon] {key}"),
        )
    };
    if !found.file_type().is_socket() {
        return Err(refuse("a file that is no socket is there", "remove it"));
    }
    let began = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Ok(stream) if listener_ends(&stream) && began.elapsed() < LISTEN_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(20));
            }
            _ => return Err(refuse("another daemon answers there", "stop it first")),
        }
    }
}

/// How long start-up waits for a daemon that is exiting.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the listener at the other end is a process that is exiting.
fn listener_ends(stream: &UnixStream) -> bool {
    let peer = getsockopt(stream, sockopt::PeerCredentials);
    peer.is_ok_and(|peer| is_ending(peer.pid()))
}

impl SocketFile {
    /// Listens at `path`, mode 0660, and replaces a stale socket.
    ///
    /// # Errors
    /// Those of [`ensure_free`]; or the directory is missing or not writable.
    pub fn bind(path: &Path, what: &str, key: &str) -> Result<Self, Refusal> {
        ensure_free(path, what, key)?;
        let failed = |e: io::Error| {
            let hint = "the directory must exist and be writable; systemd makes it (RuntimeDirectory=geneved)";
            Refusal::new(format!("{what} {}: {e}", path.display()), hint)
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        // Setting the mode after binding would leave it wrong for a moment.
        let before = umask(Mode::from_bits_truncate(0o117));
        let bound = UnixListener::bind(path);
        umask(before);
        Ok(SocketFile {
            listener: bound.map_err(failed)?,
            path: path.to_owned(),
        })
    }

    /// The socket.
    #[must_use]
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
