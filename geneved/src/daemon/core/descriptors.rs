//! File descriptors that links need, counted before anything is opened.

use super::ports::needed_ports;
use super::{Core, CoreState, refuse};
use crate::config::plan::Plan;
use crate::config::state::{DesiredState, LinkSpec};
use crate::daemon::core::running::LinkRuntime;
use crate::io::{DescriptorBudget, SocketProfile};
use crate::refusal::Refusal;

/// Descriptors for one port, each for IPv4 and IPv6: a socket per worker, one for datagrams that belong to no VPC,
/// and a handle for steering. More sockets are opened if enough descriptors are available.
pub(in crate::daemon) const fn for_port(workers: usize) -> usize {
    2 * (workers + 2)
}

impl Core {
    /// Refuses a change that would not fit.
    ///
    /// # Errors
    /// If it needs more descriptors than available; the message has the numbers.
    pub(super) fn ensure_descriptors(
        &self,
        inner: &CoreState,
        new: &DesiredState,
        plan: &Plan,
    ) -> Result<(), Refusal> {
        let bare = |name: &&_| {
            !inner
                .running
                .get(name)
                .is_some_and(LinkRuntime::has_interface)
        };
        let made = plan.add.iter().chain(plan.replace.iter().filter(bare));
        let interfaces = made.count() * self.engine.workers();
        let concerned = plan.add.iter().chain(&plan.replace).chain(&plan.set);
        let links: Vec<&LinkSpec> = concerned.filter_map(|name| new.links.get(name)).collect();
        let mut profiles = Vec::new();
        let sockets: usize = links
            .iter()
            .map(|link| self.sockets_beside(&mut profiles, link))
            .sum();
        let ports = needed_ports(new);
        let ports = ports.keys().filter(|port| !inner.ports.contains_key(port));
        let ports = ports.count() * for_port(self.engine.workers());
        match DescriptorBudget::now().refuse(interfaces + sockets + ports) {
            None => Ok(()),
            Some(cause) => Err(match links[..] {
                [link] => refuse(&link.name, &cause),
                _ => Refusal::new(format!("the change {cause}"), ""),
            }),
        }
    }

    /// Splits these links into those that fit, and the others with the cause.
    pub(super) fn fitting<'a>(
        &self,
        links: Vec<&'a LinkSpec>,
    ) -> (Vec<&'a LinkSpec>, Vec<(&'a LinkSpec, String)>) {
        let now = DescriptorBudget::now();
        let mut profiles = Vec::new();
        let mut used = 0;
        let (mut fit, mut others) = (Vec::new(), Vec::new());
        for link in links {
            let known = profiles.len();
            let more = self.engine.workers() + self.sockets_beside(&mut profiles, link);
            let left = now.left.saturating_sub(used);
            match (DescriptorBudget { left, ..now }).refuse(more) {
                None => {
                    used += more as u64;
                    fit.push(link);
                }
                Some(cause) => {
                    profiles.truncate(known);
                    others.push((link, cause));
                }
            }
        }
        (fit, others)
    }

    /// Number of sockets that a link needs beside those of the profiles counted before.
    fn sockets_beside(&self, profiles: &mut Vec<SocketProfile>, link: &LinkSpec) -> usize {
        let profile = self.profile(link);
        if profiles.contains(&profile) {
            return 0;
        }
        let needed = self.engine.descriptors_for(&profile);
        profiles.push(profile);
        needed
    }
}
