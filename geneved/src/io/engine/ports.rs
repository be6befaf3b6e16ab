//! The UDP ports that the workers listen on.

use std::io;
use std::os::fd::OwnedFd;

use super::{Engine, StartError};
use crate::io::udp::{self, Family, Receiver};
use crate::io::worker::Command;

impl Engine {
    /// Opens a UDP port, over IPv4 and IPv6, that is read from [`Engine::receive`] on. A port that is open already stays as it is. With `zero_checksum6`
    /// datagrams over IPv6 without a checksum are let through (RFC 6935), to every link of the port.
    ///
    /// # Errors
    /// Where the port cannot be had.
    pub fn open_port(&self, port: u16, zero_checksum6: bool) -> Result<(), StartError> {
        let mut state = self.state();
        if state.ports.contains(&port) {
            return Ok(());
        }
        let failed = |error| StartError::Port { port, error };
        let mut sockets = Vec::new();
        let shared = self.workers.len() > 1;
        if shared {
            udp::ensure_free(Family::V4, port).map_err(failed)?;
            match udp::ensure_free(Family::V6, port) {
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => return Err(failed(e)),
                // Whether the host has IPv6 is found out below.
                _ => {}
            }
        }
        for _ in &self.workers {
            let v4 = udp::receiver(Family::V4, port, false, shared).map_err(failed)?;
            let v6 = match udp::receiver(Family::V6, port, zero_checksum6, shared) {
                Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
                other => Some(other.map_err(failed)?),
            };
            sockets.push((v4, v6));
        }
        for (worker, (v4, v6)) in sockets.into_iter().enumerate() {
            for socket in [Some(v4), v6].into_iter().flatten() {
                let receiver = Receiver {
                    port,
                    fd: OwnedFd::from(socket),
                };
                state.unread.push((worker, receiver));
            }
        }
        state.ports.push(port);
        Ok(())
    }

    /// Has the workers read from the ports that were opened. What came until then waits in the sockets, so that no datagram
    /// is held against tables from before its link.
    pub fn receive(&self) {
        let unread = std::mem::take(&mut self.state().unread);
        for (worker, receiver) in unread {
            self.workers[worker].tell(Command::AddSocket(receiver));
        }
    }

    /// Stops listening on a UDP port.
    pub fn close_port(&self, port: u16) {
        let mut state = self.state();
        state.ports.retain(|&p| p != port);
        state.unread.retain(|(_, receiver)| receiver.port != port);
        drop(state);
        self.ask_all(|answer| Command::RemovePort(port, answer));
    }
}
