//! Blocking client of the control socket, used by the command line: one call at a time.

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::de::DeserializeOwned;

use super::protocol::{MAX_MESSAGE, Reply, Request, VARLINK_INTERFACE};
use crate::refusal::Refusal;

/// Planning a thousand interfaces takes a while.
const REPLY_TIMEOUT: Duration = Duration::from_secs(120);

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
    /// Bytes received but not parsed yet.
    received: Vec<u8>,
}

/// Why a call failed.
#[derive(Debug)]
pub enum CallError {
    /// No daemon is listening.
    NoDaemon {
        /// Path of the socket.
        path: PathBuf,
        /// Error from the kernel.
        error: io::Error,
    },
    /// The daemon refused the request.
    Refused(Refusal),
    /// The daemon sent something that this version does not understand.
    Strange(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::NoDaemon { path, error } => {
                let what = match error.kind() {
                    io::ErrorKind::PermissionDenied => "the daemon cannot be asked at",
                    _ => "no daemon at",
                };
                write!(f, "{what} {}: {error}; ", path.display())?;
                f.write_str(match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        "become root or a member of the group that owns the socket"
                    }
                    _ => "start one (\"systemctl start geneved\" or \"geneved run\"), or name its socket with --socket",
                })
            }
            CallError::Refused(refusal) => refusal.fmt(f),
            CallError::Strange(what) => {
                write!(
                    f,
                    "the daemon's answer is not understood: {what}; is it of another version?"
                )
            }
        }
    }
}

impl std::error::Error for CallError {}

impl Client {
    /// Connects to the daemon whose control socket is `path`.
    ///
    /// # Errors
    /// If nothing listens there, or this user may not connect.
    pub fn connect(path: &Path) -> Result<Self, CallError> {
        let failed = |error| CallError::NoDaemon {
            path: path.to_owned(),
            error,
        };
        let stream = UnixStream::connect(path).map_err(failed)?;
        stream
            .set_read_timeout(Some(REPLY_TIMEOUT))
            .map_err(failed)?;
        Ok(Client {
            stream,
            path: path.to_owned(),
            received: Vec::new(),
        })
    }

    /// Sets the timeout for each reply.
    pub fn hurry(&self, patience: Duration) {
        // Fails for zero only, and then the default timeout stays.
        let _ = self.stream.set_read_timeout(Some(patience));
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// If the daemon refused or went away.
    pub fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, CallError> {
        let bytes = message(request)?;
        let path = self.path.clone();
        let failed = |error| CallError::NoDaemon {
            path: path.clone(),
            error,
        };
        // A busy daemon has already sent its error and hung up, so read the reply even if the write fails.
        let written = self.stream.write_all(&bytes);
        let reply = self.reply().map_err(failed)?;
        if reply.error.is_none() {
            written.map_err(failed)?;
        }
        match reply.error {
            None => serde_json::from_value(reply.parameters)
                .map_err(|e| CallError::Strange(e.to_string())),
            Some(error) => Err(refused(&error, &reply.parameters)),
        }
    }

    /// Makes a call with many replies and passes each to `each`, until there are no more, `each` breaks, or one of
    /// `stops` has the requested events or hung up. The connection cannot be used further unless the replies have
    /// ended.
    ///
    /// # Errors
    /// As [`Client::call`]; also if the daemon ended.
    pub fn follow(
        &mut self,
        request: &Request,
        stops: &[(BorrowedFd<'_>, PollFlags)],
        mut each: impl FnMut(serde_json::Value) -> ControlFlow<()>,
    ) -> Result<(), CallError> {
        let path = self.path.clone();
        let failed = |error| CallError::NoDaemon {
            path: path.clone(),
            error,
        };
        let bytes = message(request)?;
        self.stream.write_all(&bytes).map_err(failed)?;
        self.stream.set_read_timeout(None).map_err(failed)?;
        loop {
            while !self.received.contains(&0) {
                if self.stopped(stops).map_err(failed)? {
                    return Ok(());
                }
                self.receive().map_err(failed)?;
            }
            let reply = self.reply().map_err(failed)?;
            if let Some(error) = reply.error {
                return Err(refused(&error, &reply.parameters));
            }
            if !reply.continues {
                return self
                    .stream
                    .set_read_timeout(Some(REPLY_TIMEOUT))
                    .map_err(failed);
            }
            if each(reply.parameters).is_break() {
                return Ok(());
            }
        }
    }

    /// Waits for the daemon or for one of `stops`. Returns whether it was one of `stops`.
    fn stopped(&self, stops: &[(BorrowedFd<'_>, PollFlags)]) -> io::Result<bool> {
        let mut all = vec![PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        all.extend(stops.iter().map(|(fd, events)| PollFd::new(*fd, *events)));
        poll(&mut all, PollTimeout::NONE)?;
        Ok(all[1..].iter().any(|stop| stop.any() == Some(true)))
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut chunk = [0; 65_536];
        // Teardown of an io_uring that this thread used interrupts blocking calls.
        let got = loop {
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if got == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up"));
        }
        self.received.extend_from_slice(&chunk[..got]);
        Ok(())
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.received[searched..].iter().position(|&b| b == 0) {
                let rest = self.received.split_off(searched + end + 1);
                let mut message = std::mem::replace(&mut self.received, rest);
                message.pop();
                return serde_json::from_slice(&message)
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
            }
            searched = self.received.len();
            self.receive()?;
        }
    }
}

/// Encodes a request as a call, with its final NUL.
fn message(request: &Request) -> Result<Vec<u8>, CallError> {
    let mut bytes = serde_json::to_vec(&request.to_call()).expect("a call has a form in JSON");
    if bytes.len() > MAX_MESSAGE {
        return Err(CallError::Refused(Refusal::new(
            format!(
                "the call is {} bytes long, and the daemon takes no more than {MAX_MESSAGE} at once",
                bytes.len()
            ),
            "make the changes in several calls",
        )));
    }
    bytes.push(0);
    Ok(bytes)
}

fn refused(error: &str, parameters: &serde_json::Value) -> CallError {
    let text = |key: &str| parameters[key].as_str().unwrap_or_default().to_owned();
    match error
        .strip_prefix(VARLINK_INTERFACE)
        .and_then(|e| e.strip_prefix('.'))
    {
        Some("Refused") => CallError::Refused(Refusal {
            change: parameters["change"]
                .as_u64()
                .and_then(|number| usize::try_from(number).ok()),
            ..Refusal::new(text("reason"), text("hint"))
        }),
        Some("Busy") => CallError::Refused(Refusal::new(
            "the daemon serves as many clients as it can",
            "try again later",
        )),
        _ => CallError::Strange(format!("{error} {parameters}")),
    }
}
