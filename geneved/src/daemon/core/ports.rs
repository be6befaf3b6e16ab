//! The UDP ports that the links need.

use std::collections::BTreeMap;
use std::io;

use super::{Core, Inner, refuse};
use crate::config::state::{Refusal, State};
use crate::config::value::IfName;
use crate::io::StartError;
use crate::net::port::{Holder, holder};

impl Core {
    /// Opens what the wanted state needs and does not have yet.
    pub(super) fn open_ports(
        &self,
        inner: &mut Inner,
        state: &State,
    ) -> Result<(), (IfName, StartError)> {
        for (port, (zero, name)) in needed_ports(state) {
            match inner.ports.get(&port) {
                Some(open) if *open || !zero => continue,
                // A socket's checksum rule is set before its first datagram.
                Some(_) => self.engine.close_port(port),
                None => {}
            }
            inner.ports.remove(&port);
            self.engine
                .open_port(port, zero)
                .map_err(|e| (name.clone(), e))?;
            inner.ports.insert(port, zero);
        }
        Ok(())
    }

    /// Why a link cannot have its port, and who has it.
    pub(super) async fn port_refused(&self, link: &IfName, error: &StartError) -> Refusal {
        if let StartError::Port { port, error } = error
            && error.kind() == io::ErrorKind::AddrInUse
            && let Some(holder) = holder(&self.netlink, *port).await
        {
            return port_taken(link, *port, &holder);
        }
        refuse(link, error)
    }

    /// Closes what the running state does not need, and what is open wider than it needs.
    pub(super) fn close_ports(&self, inner: &mut Inner) {
        let needed: BTreeMap<u16, bool> = needed_ports(&inner.state)
            .into_iter()
            .map(|(port, (zero, _))| (port, zero))
            .collect();
        let open = std::mem::take(&mut inner.ports);
        for (port, zero) in open {
            if needed.get(&port) == Some(&zero) {
                inner.ports.insert(port, zero);
            } else {
                self.engine.close_port(port);
            }
        }
        for (port, zero) in needed {
            if inner.ports.contains_key(&port) {
                continue;
            }
            match self.engine.open_port(port, zero) {
                Ok(()) => drop(inner.ports.insert(port, zero)),
                Err(error) => tracing::error!(port, %error, "UDP port {port} was lost: {error}"),
            }
        }
    }
}

/// The ports of a state's links: whether any of them accepts IPv6 without a checksum, and the name
/// of one to put into complaints.
pub(in crate::daemon) fn needed_ports(state: &State) -> BTreeMap<u16, (bool, &IfName)> {
    let mut ports = BTreeMap::new();
    for link in state.links.values() {
        ports.entry(link.port).or_insert((false, &link.name)).0 |= link.udp6_zero_csum_rx;
    }
    ports
}

/// Why a link cannot have its port.
pub(in crate::daemon) fn port_taken(link: &IfName, port: u16, holder: &Holder) -> Refusal {
    let reason = format!("link \"{link}\": UDP port {port} is taken by {holder}");
    Refusal::new(reason, holder.remedy())
}
