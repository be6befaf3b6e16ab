//! Link-local addresses of links that answer ARP and neighbour discovery themselves. Only the kernel knows these
//! addresses.

use std::sync::Arc;

use libgeneve::wire::encapsulation::InnerProtocol;

use super::core::Core;
use crate::net::link_local::link_local;

impl Core {
    /// Asks the kernel for them if a neighbour has asked or an interface is new.
    pub(super) async fn look_link_local(&self) {
        let inner = self.inner().await;
        let tables = self.engine().tables();
        let wanted = inner.running.iter().filter_map(|(name, running)| {
            let config = &tables.link(running.index)?.config;
            let speaks = config.inner == InnerProtocol::Ethernet && config.bridge.is_none();
            if !speaks || !config.neighbors.take_link_local_request() {
                return None;
            }
            let netns = inner.state.links.get(name)?.netns.clone();
            Some((netns, name.to_string(), Arc::clone(&config.neighbors)))
        });
        let wanted: Vec<_> = wanted.collect();
        drop(inner);
        for (netns, name, neighbors) in wanted {
            match link_local(netns, name).await {
                Ok(found) => neighbors.set_link_local(found),
                Err(error) => {
                    tracing::debug!(%error, "cannot look for link-local addresses: {error}");
                }
            }
        }
    }
}
