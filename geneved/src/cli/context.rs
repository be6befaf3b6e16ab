//! State of a command-line run: the options, and the daemon connection, opened on demand.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::error::CliError;
use super::options::GlobalOptions;
use super::output::{self, Show};
use super::style::OutputStyle;
use crate::config::args::ObjectChange;
use crate::config::file::DEFAULT_SOCKET;
use crate::control::client::{CallError, Client};
use crate::control::protocol::{ApplyReply, Request};

/// Options, output style and daemon connection that commands share.
pub struct CommandContext {
    style: OutputStyle,
    options: GlobalOptions,
    socket: Option<PathBuf>,
    client: Option<Client>,
    patience: Option<Duration>,
    /// Changes collected for an atomic batch; `None` if each is applied at once.
    gathered: Option<Vec<ObjectChange>>,
}

impl CommandContext {
    pub(super) fn new(options: &GlobalOptions) -> Self {
        CommandContext {
            style: OutputStyle::of(options),
            options: options.clone(),
            socket: options.socket.clone(),
            client: None,
            patience: None,
            gathered: None,
        }
    }

    /// Output style.
    pub fn style(&self) -> OutputStyle {
        self.style
    }

    /// Options given before the object.
    pub fn options(&self) -> &GlobalOptions {
        &self.options
    }

    /// Network namespace given by `-n`.
    pub fn netns(&self) -> Option<&str> {
        self.options.netns.as_deref()
    }

    /// Control socket of the daemon to talk to.
    pub fn socket(&self) -> &Path {
        self.named_socket().unwrap_or(Path::new(DEFAULT_SOCKET))
    }

    /// Control socket given by `--socket`.
    pub fn named_socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Moves this process into the namespace given by `-n`.
    ///
    /// # Errors
    /// If there is no namespace of that name, or it may not be entered.
    pub fn enter_netns(&self) -> Result<(), CliError> {
        let Some(name) = self.netns() else {
            return Ok(());
        };
        crate::net::netns::enter(name)
            .map_err(|error| CliError::Refused(format!("Cannot open {error}")))
    }

    /// Prints records in the requested format.
    ///
    /// # Errors
    /// If writing to standard output fails.
    pub fn print(&self, records: &[&dyn Show]) -> Result<(), CliError> {
        output::print(&self.style, records)
    }

    /// Connects to the daemon, or returns the existing connection.
    ///
    /// # Errors
    /// If no daemon listens at the socket.
    pub fn client(&mut self) -> Result<&mut Client, CliError> {
        Ok(match &mut self.client {
            Some(client) => client,
            none => {
                let usual = Path::new(DEFAULT_SOCKET);
                none.insert(Client::connect(self.socket.as_deref().unwrap_or(usual))?)
            }
        })
    }

    /// Calls the daemon.
    ///
    /// # Errors
    /// If it does not answer, or refuses.
    pub fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, CliError> {
        let patience = self.patience;
        let client = self.client()?;
        if let Some(patience) = patience {
            client.hurry(patience);
        }
        let answer = client.call(request);
        if let Err(CallError::NoDaemon { .. }) = answer {
            // A later command of a batch may reconnect.
            self.client = None;
        }
        Ok(answer?)
    }

    /// Makes a call with many replies and passes each to `each`.
    ///
    /// # Errors
    /// As [`CommandContext::call`].
    pub fn gather_replies<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        mut each: impl FnMut(T),
    ) -> Result<(), CliError> {
        let mut strange = None;
        self.client()?.follow(request, &[], |reply| {
            match serde_json::from_value(reply) {
                Ok(reply) => each(reply),
                Err(error) => strange = Some(CallError::Strange(error.to_string())),
            }
            match strange {
                None => ControlFlow::Continue(()),
                Some(_) => ControlFlow::Break(()),
            }
        })?;
        match strange {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    /// Sets the timeout for replies.
    pub fn set_timeout(&mut self, patience: Duration) {
        self.patience = Some(patience);
    }

    /// Switches to the daemon of this socket.
    pub fn use_socket(&mut self, socket: impl Into<PathBuf>) {
        self.socket = Some(socket.into());
        self.client = None;
    }

    /// Applies a change, or collects it for an atomic batch; like `ip`, silent on success.
    ///
    /// # Errors
    /// If the daemon does not answer, or refuses.
    pub fn apply(&mut self, change: ObjectChange) -> Result<(), CliError> {
        if let Some(gathered) = &mut self.gathered {
            gathered.push(change);
            return Ok(());
        }
        let changes = vec![change];
        self.call::<ApplyReply>(&Request::Apply { changes })
            .map(drop)
    }

    /// Starts collecting changes.
    pub fn gather(&mut self) {
        self.gathered = Some(Vec::new());
    }

    /// The changes collected so far; `None` if each change is applied at once.
    pub fn gathered(&self) -> Option<&[ObjectChange]> {
        self.gathered.as_deref()
    }

    /// Applies all collected changes, or none.
    ///
    /// # Errors
    /// If the daemon does not answer, or refuses; with the index of the refused change, if it is known.
    pub fn apply_gathered(&mut self) -> Result<(), (Option<usize>, CliError)> {
        let changes = self.gathered.take().unwrap_or_default();
        if changes.is_empty() {
            return Ok(());
        }
        let client = self.client().map_err(|error| (None, error))?;
        let answer = client.call::<ApplyReply>(&Request::Apply { changes });
        answer.map(drop).map_err(|error| {
            let number = match &error {
                CallError::Refused(refusal) => refusal.change,
                _ => None,
            };
            (number, error.into())
        })
    }
}
