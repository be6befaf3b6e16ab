//! Index of links by listening port and VNI.

use super::{DesiredState, LinkSpec};
use crate::config::value::IfName;

impl DesiredState {
    /// Inserts a link. Returns the one of the same name that it replaced.
    pub(super) fn put_link(&mut self, link: LinkSpec) -> Option<LinkSpec> {
        let was = self.take_link(&link.name);
        self.by_port
            .insert((link.port, link.vni.into()), link.name.clone());
        self.links.insert(link.name.clone(), link);
        was
    }

    /// Removes a link but keeps the objects on it.
    pub(super) fn take_link(&mut self, name: &IfName) -> Option<LinkSpec> {
        let link = self.links.remove(name)?;
        self.by_port.remove(&(link.port, u32::from(link.vni)));
        Some(link)
    }

    /// Looks up a link by port and VNI.
    pub(super) fn link_with(&self, port: u16, vni: u32) -> Option<&LinkSpec> {
        self.links.get(self.by_port.get(&(port, vni))?)
    }

    /// Finds another link on the same port. Links on one port agree on the settings of their shared socket, so any of
    /// them will do.
    pub(super) fn other_on_port(&self, link: &LinkSpec) -> Option<&LinkSpec> {
        let port = link.port;
        let mut on_port = self.by_port.range((port, 0)..);
        let ((at, _), name) = on_port.find(|(_, name)| **name != link.name)?;
        if *at != port {
            return None;
        }
        self.links.get(name)
    }
}
