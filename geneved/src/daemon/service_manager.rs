//! The service manager, as far as it is told how the daemon is (sd_notify(3)).
//!
//! It may be busy and not read: nobody waits for it. What it needs to know is kept until it takes it; what it is told again
//! soon anyway is left out.

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

/// The environment variable with the address.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// Messages that are kept at most; older ones say what is not so any more.
const MAX_MESSAGES: usize = 16;

/// Who started the daemon, if that one wants to be told.
#[derive(Debug, Default)]
pub(super) struct ServiceManager {
    address: Option<SocketAddr>,
    untold: RefCell<VecDeque<String>>,
}

impl ServiceManager {
    /// The one that the environment names.
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

    /// Tells it something that it waits for, now or as soon as it listens.
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

    /// Tells it something that it is told again soon, if it listens.
    pub(super) fn mention(&self, state: &[NotifyState<'_>]) {
        self.retry();
        if self.untold.borrow().is_empty() {
            self.send(&message(state));
        }
    }

    /// Tells it what it has not taken yet; to be called now and then.
    pub(super) fn retry(&self) {
        let mut untold = self.untold.borrow_mut();
        while let Some(message) = untold.front() {
            if !self.send(message) {
                return;
            }
            untold.pop_front();
        }
    }

    /// Whether this need not be tried again.
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

/// A path, or with a leading `@` an abstract name.
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
