//! What a command works with: what the options said and, once it is needed, the daemon.

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

/// What a command works with.
pub struct CommandContext {
    style: OutputStyle,
    options: GlobalOptions,
    socket: Option<PathBuf>,
    client: Option<Client>,
    patience: Option<Duration>,
    /// Changes that are to be made all at once, while they are gathered.
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

    /// How output is to look.
    pub fn style(&self) -> OutputStyle {
        self.style
    }

    /// What was said in front of the object.
    pub fn options(&self) -> &GlobalOptions {
        &self.options
    }

    /// The network namespace that `-n` names.
    pub fn netns(&self) -> Option<&str> {
        self.options.netns.as_deref()
    }

    /// The control socket of the daemon that is asked.
    pub fn socket(&self) -> &Path {
        self.named_socket().unwrap_or(Path::new(DEFAULT_SOCKET))
    }

    /// The control socket that `--socket` names.
    pub fn named_socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Takes this process into the namespace that `-n` names.
    ///
    /// # Errors
    /// There is none of that name, or it may not be entered.
    pub fn enter_netns(&self) -> Result<(), CliError> {
        let Some(name) = self.netns() else {
            return Ok(());
        };
        crate::net::netns::enter(name)
            .map_err(|error| CliError::Refused(format!("Cannot open {error}")))
    }

    /// Prints records in the shape that was asked for.
    ///
    /// # Errors
    /// Standard output takes no more.
    pub fn print(&self, records: &[&dyn Show]) -> Result<(), CliError> {
        output::print(&self.style, records)
    }

    /// The connection to the daemon.
    ///
    /// # Errors
    /// There is none at the socket.
    pub fn client(&mut self) -> Result<&mut Client, CliError> {
        Ok(match &mut self.client {
            Some(client) => client,
            none => {
                let usual = Path::new(DEFAULT_SOCKET);
                none.insert(Client::connect(self.socket.as_deref().unwrap_or(usual))?)
            }
        })
    }

    /// Asks the daemon.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, CliError> {
        let patience = self.patience;
        let client = self.client()?;
        if let Some(patience) = patience {
            client.hurry(patience);
        }
        let answer = client.call(request);
        if let Err(CallError::NoDaemon { .. }) = answer {
            // A later command of a batch may find it again.
            self.client = None;
        }
        Ok(answer?)
    }

    /// Asks the daemon for what comes in many replies, and gives each of them to `each`.
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

    /// Waits no longer than this for an answer.
    pub fn set_timeout(&mut self, patience: Duration) {
        self.patience = Some(patience);
    }

    /// Asks the daemon of this socket from here on.
    pub fn use_socket(&mut self, socket: impl Into<PathBuf>) {
        self.socket = Some(socket.into());
        self.client = None;
    }

    /// Makes a change, or keeps it where changes are gathered; like `ip`, it says nothing when that worked.
    ///
    /// # Errors
    /// The daemon does not answer, or refuses.
    pub fn apply(&mut self, change: ObjectChange) -> Result<(), CliError> {
        if let Some(gathered) = &mut self.gathered {
            gathered.push(change);
            return Ok(());
        }
        let changes = vec![change];
        self.call::<ApplyReply>(&Request::Apply { changes })
            .map(drop)
    }

    /// From here on changes are gathered.
    pub fn gather(&mut self) {
        self.gathered = Some(Vec::new());
    }

    /// What was gathered so far; `None` where every change is made at once.
    pub fn gathered(&self) -> Option<&[ObjectChange]> {
        self.gathered.as_deref()
    }

    /// Makes all changes that were gathered, or none.
    ///
    /// # Errors
    /// The daemon does not answer, or refuses; the number of the change that it refuses, from 0, where it is one.
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
