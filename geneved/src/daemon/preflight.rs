//! Warnings about what a valid configuration needs and this host lacks: addresses, namespaces, ports, routes,
//! forwarding, and files that the service can read. The daemon starts anyway, and whatever is affected does not work.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::future::Future;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use libgeneve::options::EndpointType;
use nix::ifaddrs::getifaddrs;
use nix::unistd::{Group, User, geteuid};

use super::capability_probe;
use super::core::{for_port, hosts_of, needed_ports, port_taken, profile};
use super::gateway;
use super::kernel_forwarding;
use super::routing_loops;
use crate::config::file::Config;
use crate::config::state::{DesiredState, LinkSpec};
use crate::config::value::{IfName, ModeValue};
use crate::io::{DescriptorBudget, sockets_of};
use crate::net::gateway::Gateway;
use crate::net::host_path::{self, UnderlayDevices};
use crate::net::netns::DIRECTORY;

/// Maximum number of hosts without a route that are named.
const NAMED_HOSTS: usize = 8;

/// Returns one sentence per problem, with its remedy. `files` are the ones that the configuration was read from.
#[must_use]
pub fn warnings(config: &Config, files: &[PathBuf]) -> Vec<String> {
    let state = &config.state;
    let mut all = unreadable(config, files);
    let own = own_addresses();
    for link in state.links.values() {
        let name = &link.name;
        if let Some(netns) = &link.netns
            && !Path::new(DIRECTORY).join(netns).exists()
        {
            all.push(format!(
                "link \"{name}\" cannot be made yet: there is no network namespace \"{netns}\"; \"ip netns add {netns}\""
            ));
        }
        if let Some(local) = link.local.filter(|local| !own.contains(local)) {
            all.push(format!(
                "link \"{name}\" cannot be made yet: no interface of this host has its local address {local}; give it to one, or name another with \"local\""
            ));
        }
    }
    all.extend(descriptors(config));
    all.extend(ports(state, &config.daemon.socket));
    all.extend(block_on(routes(state)).unwrap_or_default());
    all
}

/// Descriptors of a daemon without links: its own, and those of each worker.
const OPEN: (usize, usize) = (24, 4);

/// Warns if the links need more descriptors than a daemon of this user may open.
fn descriptors(config: &Config) -> Option<String> {
    let (state, workers) = (&config.state, usize::from(config.daemon.workers));
    let mut profiles = Vec::new();
    for link in state.links.values() {
        let profile = profile(link, &config.daemon);
        if !profiles.contains(&profile) {
            profiles.push(profile);
        }
    }
    let sockets: usize = profiles.iter().map(sockets_of).sum();
    let needed =
        state.links.len() * workers + sockets + needed_ports(state).len() * for_port(workers);
    let (own, each) = OPEN;
    let cause = DescriptorBudget::with((own + each * workers) as u64).refuse(needed)?;
    Some(format!(
        "not all links can be made: the configuration {cause}"
    ))
}

/// Runs netlink queries; `None` if there is no netlink.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    Some(runtime.ok()?.block_on(work))
}

fn own_addresses() -> BTreeSet<IpAddr> {
    let interfaces = getifaddrs().into_iter().flatten();
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .collect()
}

fn ports(state: &DesiredState, socket: &Path) -> Vec<String> {
    let daemon = capability_probe::answering(socket).ok();
    let needed = needed_ports(state).into_iter();
    let taken = needed.filter_map(|(port, (_, link))| {
        let holder = capability_probe::foreign_holder(port, daemon.as_ref())?;
        Some(format!("link \"{link}\": {}", port_taken(port, &holder)))
    });
    taken.collect()
}

/// Warns about missing routes and forwarding for the links.
async fn routes(state: &DesiredState) -> Vec<String> {
    let mut all = Vec::new();
    if let Ok((connection, netlink, _)) = rtnetlink::new_connection() {
        tokio::spawn(connection);
        let mut without = Vec::new();
        let mut shared = Vec::new();
        let mut devices = UnderlayDevices::new();
        for link in state.links.values() {
            for host in hosts_of(state, link) {
                let name = &link.name;
                match host_path::query_host_path(&netlink, host, link.local, &mut devices).await {
                    Err(error) => without.push(format!(
                        "link \"{name}\": the kernel has no route to host {host}: {error}"
                    )),
                    Ok(way) => shared.extend(routing_loops::shared(state, &way).map(|why| {
                        format!("link \"{name}\": nothing is sent to host {host}, and nothing is heard from it: {why}")
                    })),
                }
            }
        }
        all.extend(shared.into_iter().take(NAMED_HOSTS));
        let more = without.len().saturating_sub(NAMED_HOSTS);
        all.extend(without.into_iter().take(NAMED_HOSTS));
        if more > 0 {
            all.push(format!("the kernel has no route to {more} more hosts"));
        }
    }
    for link in state.links.values() {
        let (names, nats): (Vec<_>, Vec<_>) = state.nats_of(&link.name).unzip();
        let missing = gateway::missing(link, &nats).await;
        let each = names.into_iter().zip(missing);
        let each = each.flat_map(|(name, lacks)| lacks.into_iter().map(move |lack| (name, lack)));
        let mut told = BTreeSet::new();
        for (name, lack) in each.filter(|(_, lack)| told.insert(lack.clone())) {
            all.push(format!("nat \"{name}\" dev {}: {lack}", link.name));
        }
        all.extend(ways_out(state, link).await);
    }
    all.extend(
        kernel_forwarding::between_links(
            state.links.values().filter_map(kernel_forwarding::routed),
        )
        .await,
    );
    all
}

/// Warns about routes to a gateway that this host's own packets do not take, because the kernel has no route into the
/// link.
async fn ways_out(state: &DesiredState, link: &LinkSpec) -> Vec<String> {
    let gateways = state.routes_of(&link.name);
    let gateways = gateways.filter(|(_, route)| route.kind == EndpointType::Gateway);
    let probes: Vec<_> = gateways
        .map(|(prefix, _)| (prefix, inside(prefix)))
        .collect();
    if probes.is_empty() || link.mode != ModeValue::Ip {
        return Vec::new();
    }
    let addresses = probes.iter().map(|(_, addr)| *addr).collect();
    let name: &IfName = &link.name;
    let Ok(kernel) = Gateway::query(link.netns.clone(), name.to_string(), addresses).await else {
        return Vec::new();
    };
    let elsewhere = probes.iter().filter(|(_, addr)| !kernel.leads_in(*addr));
    elsewhere
        .map(|(prefix, _)| {
            format!(
                "route \"{prefix}\" dev {name}: this host's own packets do not go into {name}, because the kernel has no such route; \"{}\"",
                kernel.route_command(prefix)
            )
        })
        .collect()
}

/// A sample address of a prefix that the host is unlikely to have a more specific route to. For default routes: the
/// dummy address of RFC 7600, and one of the discard prefix (RFC 6666).
fn inside(prefix: ipnet::IpNet) -> IpAddr {
    match (prefix.prefix_len(), prefix) {
        (0, ipnet::IpNet::V4(_)) => IpAddr::from([192, 0, 0, 8]),
        (0, ipnet::IpNet::V6(_)) => IpAddr::from([0x100, 0, 0, 0, 0, 0, 0, 1]),
        _ => prefix.hosts().next().unwrap_or_else(|| prefix.addr()),
    }
}

/// Files that the service could not read; checked only if root asks.
fn unreadable(config: &Config, files: &[PathBuf]) -> Vec<String> {
    // A daemon started by root reads them before it changes user.
    let asked_for = geteuid().is_root() && config.daemon.user.is_none();
    let service = User::from_name(capability_probe::SERVICE_USER)
        .ok()
        .flatten();
    let Some(service) = service.filter(|_| asked_for) else {
        return Vec::new();
    };
    let secret = config.daemon.label_secret_file.iter();
    let closed = files.iter().chain(secret).filter(|path| {
        let metadata = path.metadata();
        metadata.is_ok_and(|metadata| !may_read(&metadata, &service))
    });
    closed
        .map(|path| {
            let (path, user) = (path.display(), &service.name);
            format!(
                "geneved.service cannot start: its user {user} may not read {path}; \"chgrp {user} {path}; chmod 0640 {path}\""
            )
        })
        .collect()
}

/// Whether a file's mode lets a user read it.
fn may_read(metadata: &Metadata, user: &User) -> bool {
    let member = || {
        let group = Group::from_gid(metadata.gid().into()).ok().flatten();
        metadata.gid() == user.gid.as_raw()
            || group.is_some_and(|group| group.mem.contains(&user.name))
    };
    let bit = match () {
        () if metadata.uid() == user.uid.as_raw() => 0o400,
        () if member() => 0o040,
        () => 0o004,
    };
    metadata.mode() & bit != 0
}
