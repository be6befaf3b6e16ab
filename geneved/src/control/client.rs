//! The asking half of the control socket, as the command line uses it: one call at a time.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::protocol::{INTERFACE, Reply, Request};
use crate::config::state::Refusal;

/// A plan of a thousand interfaces takes its time.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
}

/// Why a call brought nothing.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody answers.
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The daemon refused.
    Refused(Refusal),
    /// The daemon said something that this version does not understand.
    Strange(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::NoDaemon { path, error } => {
                write!(f, "no daemon at {}: {error}; ", path.display())?;
                f.write_str(match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        "become root or a member of the group that owns the socket"
                    }
                    _ => "start one (\"systemctl start geneved\" or \"geneved run\"), or name its socket with --socket",
                })
            }
            ClientError::Refused(refusal) => refusal.fmt(f),
            ClientError::Strange(what) => {
                write!(
                    f,
                    "the daemon's answer is not understood: {what}; is it of another version?"
                )
            }
        }
    }
}

impl std::error::Error for ClientError {}

impl Client {
    /// Connects to the daemon whose control socket is `path`.
    ///
    /// # Errors
    /// Nobody listens there, or not for this user.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let failed = |error| ClientError::NoDaemon {
            path: path.to_owned(),
            error,
        };
        let stream = UnixStream::connect(path).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        Ok(Client {
            stream,
            path: path.to_owned(),
        })
    }

    /// Waits no longer than this for each answer.
    pub fn hurry(&self, patience: Duration) {
        // Only zero is refused, and then the usual patience stays.
        let _ = self.stream.set_read_timeout(Some(patience));
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The daemon refused or went away.
    pub fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        let mut bytes = serde_json::to_vec(&request.to_call()).expect("a call has a form in JSON");
        bytes.push(0);
        let path = self.path.clone();
        let failed = |error| ClientError::NoDaemon {
            path: path.clone(),
            error,
        };
        // A daemon that is busy has said so already and hung up.
        let written = self.stream.write_all(&bytes);
        let reply = self.reply().map_err(failed)?;
        if reply.error.is_none() {
            written.map_err(failed)?;
        }
        match reply.error {
            None => serde_json::from_value(reply.parameters)
                .map_err(|e| ClientError::Strange(e.to_string())),
            Some(error) => Err(refused(&error, &reply.parameters)),
        }
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 65_536];
        loop {
            let got = self.stream.read(&mut chunk)?;
            if got == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up"));
            }
            bytes.extend_from_slice(&chunk[..got]);
            if bytes.last() == Some(&0) {
                bytes.pop();
                return serde_json::from_slice(&bytes)
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
            }
        }
    }
}

fn refused(error: &str, parameters: &serde_json::Value) -> ClientError {
    let text = |key: &str| parameters[key].as_str().unwrap_or_default().to_owned();
    match error
        .strip_prefix(INTERFACE)
        .and_then(|e| e.strip_prefix('.'))
    {
        Some("Refused") => ClientError::Refused(Refusal::new(text("reason"), text("hint"))),
        Some("Busy") => ClientError::Refused(Refusal::new(
            "the daemon serves as many clients as it can",
            "try again later",
        )),
        _ => ClientError::Strange(format!("{error} {parameters}")),
    }
}
