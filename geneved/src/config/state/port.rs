//! Links by the port and the VNI that they listen to.

use super::{DesiredState, LinkSpec};
use crate::config::value::IfName;

impl DesiredState {
    /// Adds a link, or puts it in the place of the one of its name, which is returned.
    pub(super) fn put_link(&mut self, link: LinkSpec) -> Option<LinkSpec> {
        let was = self.take_link(&link.name);
        self.by_port
            .insert((link.port, link.vni.into()), link.name.clone());
        self.links.insert(link.name.clone(), link);
        was
    }

    /// Takes a link away; what is on it stays.
    pub(super) fn take_link(&mut self, name: &IfName) -> Option<LinkSpec> {
        let link = self.links.remove(name)?;
        self.by_port.remove(&(link.port, u32::from(link.vni)));
        Some(link)
    }

    /// The link that has this port and VNI.
    pub(super) fn link_with(&self, port: u16, vni: u32) -> Option<&LinkSpec> {
        self.links.get(self.by_port.get(&(port, vni))?)
    }

    /// Another link on the port of this one. What all links on a port have in common is that of any of them.
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
