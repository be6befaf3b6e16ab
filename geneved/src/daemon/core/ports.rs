//! UDP ports of the links.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::{Core, CoreState, refuse};
use crate::config::state::DesiredState;
use crate::config::value::IfName;
use crate::io::StartError;
use crate::net::port_holder::{PortHolder, holder};
use crate::refusal::Refusal;

impl Core {
    /// Opens the ports that the desired state needs and that are not open yet. Ports that cannot be opened are
    /// recorded as blocked.
    ///
    /// # Errors
    /// If a link in `must` cannot have its port.
    pub(super) async fn open_ports(
        &self,
        inner: &mut CoreState,
        state: &DesiredState,
        must: &BTreeSet<IfName>,
    ) -> Result<(), Refusal> {
        for (port, (zero, _)) in needed_ports(state) {
            match inner.ports.get(&port) {
                Some(open) if *open || !zero => continue,
                // A socket's checksum rule must be set before its first datagram, so the port is reopened.
                Some(_) => self.engine.close_port(port).await,
                None => {}
            }
            inner.ports.remove(&port);
            let Err(error) = self.engine.open_port(port, zero) else {
                inner.ports.insert(port, zero);
                inner.blocked.remove(&port);
                continue;
            };
            let cause = self.port_cause(inner, port, &error).await;
            let refused = state
                .links
                .values()
                .find(|link| link.port == port && must.contains(&link.name));
            if let Some(link) = refused {
                return Err(refuse(&link.name, &cause));
            }
            inner.blocked.insert(port, cause);
        }
        Ok(())
    }

    /// Retries blocked ports that these links need.
    pub(super) fn retry_ports(&self, inner: &mut CoreState, links: &[IfName]) {
        for (port, (zero, _)) in needed_ports(&inner.state) {
            let needs = |name: &IfName| inner.state.links.get(name).is_some_and(|l| l.port == port);
            if inner.blocked.contains_key(&port)
                && links.iter().any(needs)
                && self.engine.open_port(port, zero).is_ok()
            {
                inner.ports.insert(port, zero);
                inner.blocked.remove(&port);
            }
        }
    }

    /// Why a port cannot be opened, who holds it, and what to do about it.
    async fn port_cause(&self, inner: &mut CoreState, port: u16, error: &StartError) -> String {
        if let StartError::Port { port, error } = error
            && error.kind() == io::ErrorKind::AddrInUse
        {
            // The holder can be identified only before capabilities are dropped.
            let known = inner.holders.remove(port);
            let found = match known {
                Some(holder) => Some(holder),
                None => holder(&self.netlink, *port).await,
            };
            if let Some(holder) = found {
                return port_taken(*port, &holder);
            }
        }
        inner.holders.remove(&port);
        error.to_string()
    }

    /// Closes ports that the running state does not need, and narrows those that accept more than it needs.
    pub(super) async fn close_ports(&self, inner: &mut CoreState) {
        let needed: BTreeMap<u16, bool> = needed_ports(&inner.state)
            .into_iter()
            .map(|(port, (zero, _))| (port, zero))
            .collect();
        inner.blocked.retain(|port, _| needed.contains_key(port));
        let open = std::mem::take(&mut inner.ports);
        for (port, zero) in open {
            if needed.get(&port) == Some(&zero) {
                inner.ports.insert(port, zero);
            } else {
                self.engine.close_port(port).await;
            }
        }
        for (port, zero) in needed {
            if inner.ports.contains_key(&port) || inner.blocked.contains_key(&port) {
                continue;
            }
            match self.engine.open_port(port, zero) {
                Ok(()) => drop(inner.ports.insert(port, zero)),
                Err(error) => tracing::error!(port, %error, "UDP port {port} was lost: {error}"),
            }
        }
        self.engine.receive();
    }
}

impl CoreState {
    /// The ports that the daemon listens on.
    pub(in crate::daemon) fn open_port_numbers(&self) -> impl Iterator<Item = u16> {
        self.ports.keys().copied()
    }
}

/// Ports of a state's links: whether any of the links accepts IPv6 without a checksum, and the name of one for error
/// messages.
pub(in crate::daemon) fn needed_ports(state: &DesiredState) -> BTreeMap<u16, (bool, &IfName)> {
    let mut ports = BTreeMap::new();
    for link in state.links.values() {
        ports.entry(link.port).or_insert((false, &link.name)).0 |= link.udp6_zero_csum_rx;
    }
    ports
}

/// Why a port is not available, and what to do about it.
pub(in crate::daemon) fn port_taken(port: u16, holder: &PortHolder) -> String {
    format!("UDP port {port} is taken by {holder}; {}", holder.remedy())
}
