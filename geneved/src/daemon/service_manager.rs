//! Notifications to the service manager (sd_notify(3)).
//!
//! The service manager may be too busy to read, and nothing waits for it. Important messages are kept until it
//! accepts them; messages that are repeated soon anyway are dropped.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;

/// Environment variable with the socket's address.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// Maximum number of messages kept; older ones are out of date.
const MAX_MESSAGES: usize = 16;

/// The service manager, if there is one that wants to be notified.
#[derive(Debug, Default)]
pub(super) struct ServiceManager {
    address: Option<SocketAddr>,
    untold: RefCell<VecDeque<String>>,
}

impl ServiceManager {
    /// The service manager that the environment names.
    pub(super) fn of_environment() -> Self {
        let named = env::var_os(VARIABLE);
        let address = named.and_then(|name| match address(&name) {
            Ok(address) => Some(address),
            Err(error) => {
                tracing::warn!(%error, "the service manager cannot be told anything, {VARIABLE} is wrong: {error}");
                None
            }
        });
        ServiceManager {
            address,
            ..ServiceManager::default()
        }
    }

    /// Sends a message that must arrive, now or as soon as the service manager reads.
    pub(super) fn tell(&self, state: &[NotifyState<'_>]) {
        if self.address.is_some() {
            let mut untold = self.untold.borrow_mut();
            if untold.len() == MAX_MESSAGES {
                untold.pop_front();
            }
            untold.push_back(message(state));
        }
        self.retry();
    }

    /// Sends a message that will be repeated soon; it is lost if the service manager does not read.
    pub(super) fn mention(&self, state: &[NotifyState<'_>]) {
        self.retry();
        if self.untold.borrow().is_empty() {
            self.send(&message(state));
        }
    }

    /// Retries pending messages; call periodically.
    pub(super) fn retry(&self) {
        let mut untold = self.untold.borrow_mut();
        while let Some(message) = untold.front() {
            if !self.send(message) {
                return;
            }
            untold.pop_front();
        }
    }

    /// Sends a message; `false` if it has to be retried.
    fn send(&self, message: &str) -> bool {
        let Some(address) = &self.address else {
            return true;
        };
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.send_to_addr(message.as_bytes(), address)
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                tracing::warn!(%error, "the service manager cannot be told: {error}");
                true
            }
            Ok(_) => true,
        }
    }
}

/// A path, or an abstract name with a leading `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

fn message(state: &[NotifyState<'_>]) -> String {
    let mut message = String::new();
    for state in state {
        let _ = writeln!(message, "{state}");
    }
    message
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nobody_waits_for_a_manager_that_does_not_read_and_it_hears_what_counts_later() {
        let name = format!("@geneved-test-{}", std::process::id());
        let address = address(OsStr::new(&name)).unwrap();
        let reader = UnixDatagram::bind_addr(&address).unwrap();
        reader
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let manager = ServiceManager {
            address: Some(address),
            ..ServiceManager::default()
        };
        for _ in 0..5000 {
            manager.mention(&[NotifyState::Watchdog]);
        }
        manager.tell(&[NotifyState::Ready]);
        manager.mention(&[NotifyState::Watchdog]);
        let heard = || {
            let mut bytes = [0; 64];
            let heard = reader.recv(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes[..heard]).into_owned())
        };
        let early: Vec<_> = std::iter::from_fn(heard).collect();
        assert!((1..5000).contains(&early.len()), "{}", early.len());
        assert!(early.iter().all(|message| message == "WATCHDOG=1\n"));
        manager.retry();
        assert_eq!(heard().as_deref(), Some("READY=1\n"));
        assert_eq!(heard(), None);
    }
}
