//! Features of this host: what the packet path can use, and what it depends on.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use caps::{CapSet, Capability};
use nix::unistd::{User, geteuid};
use serde::de::DeserializeOwned;

use super::core::needed_ports;
use super::kernel_forwarding;
use super::preflight::block_on;
use crate::config::file::DEFAULT_PATH;
use crate::config::state::DesiredState;
use crate::config::value::ModeValue;
use crate::control::client::{CallError, Client};
use crate::control::protocol::{HostInfo, HostReply, LinkInfo, LinksReply, NatsReply, Request};
use crate::io::{FeatureReport, HostFeature, probe};
use crate::net::netns;
use crate::net::port_holder::{PortHolder, holder, wait_until_free};
use crate::plural::counted;

/// Features without which geneved cannot work at all.
pub const INDISPENSABLE: [HostFeature; 2] = [HostFeature::Tun, HostFeature::NetAdmin];
/// UDP port of Geneve (RFC 8926, section 3.3).
const GENEVE_DEFAULT_PORT: u16 = 6081;
/// User of the packaged service.
pub const SERVICE_USER: &str = "geneved";
/// Time limit for the running daemon's reply.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// Probes every feature and queries the daemon at `socket`; leaves nothing behind.
#[must_use]
pub fn features(socket: &Path) -> Vec<FeatureReport> {
    let running = answering(socket);
    let mut all = probe();
    let nat = running.is_ok().then(|| nat(socket)).flatten();
    let links = running.as_ref().ok().map(|daemon| links(socket, daemon));
    all.extend([
        capability(
            HostFeature::NetAdmin,
            Capability::CAP_NET_ADMIN,
            "interfaces, addresses and large socket buffers",
            "no link can be made; run it as root, or give the service AmbientCapabilities=CAP_NET_ADMIN",
        ),
        capability(
            HostFeature::Netns,
            Capability::CAP_SYS_ADMIN,
            "links can be put into other network namespaces",
            "links stay in the daemon's network namespace; geneved.service(8) has the drop-in that changes it",
        ),
        capability(
            HostFeature::LowPorts,
            Capability::CAP_NET_BIND_SERVICE,
            "dstport and srcport may be below 1024",
            "dstport and srcport stay above 1023; geneved.service(8) has the drop-in that changes it",
        ),
        port(running.as_ref().ok()),
        feature(
            HostFeature::Ipv6,
            Path::new("/proc/net/if_inet6").exists(),
            "the kernel has IPv6",
            "the kernel has no IPv6; underlay and overlay are IPv4 only",
        ),
        user(),
        configuration(),
        daemon(socket, running),
    ]);
    all.extend(nat);
    all.extend(links.into_iter().flatten());
    all
}

/// Whether the kernel is set up for the NAT rules of the running daemon; `None` if it has none.
fn nat(socket: &Path) -> Option<FeatureReport> {
    let asked = query_daemon(socket, &Request::ListNats { dev: None });
    let (available, detail) = match asked {
        Err(error) => (false, error.to_string()),
        Ok(NatsReply { nats }) if nats.is_empty() => return None,
        Ok(NatsReply { nats }) => match nats.iter().find(|nat| !nat.missing.is_empty()) {
            None => (
                true,
                "the kernel forwards, and routes outside addresses into the links".to_owned(),
            ),
            Some(nat) => {
                let missing = nat.missing.join("; ");
                let (name, dev) = (&nat.nat.name, &nat.nat.dev);
                (
                    false,
                    format!("{name} dev {dev}: {missing}; \"geneved nat show\" has all"),
                )
            }
        },
    };
    Some(FeatureReport {
        kind: HostFeature::Nat,
        available,
        detail,
    })
}

/// Problems of the running daemon's links: those that do not work, packets that are not delivered, and links between
/// which the kernel may forward.
fn links(socket: &Path, daemon: &HostInfo) -> Vec<FeatureReport> {
    // That the daemon does not answer is reported already.
    let Ok(LinksReply { links }) = query_daemon(socket, &Request::ListLinks { name: None }) else {
        return Vec::new();
    };
    let wrong = |kind, detail| FeatureReport {
        kind,
        available: false,
        detail,
    };
    let of_link = |link: &LinkInfo| {
        let all = link.undelivered.as_ref();
        all.map(|all| all.sentence(link.settings.name.as_str()))
    };
    let undelivered = links.iter().filter_map(of_link);
    let mut all: Vec<_> = links.iter().filter_map(not_as_configured).collect();
    all.extend(undelivered.map(|what| wrong(HostFeature::Delivery, what)));
    let here = netns::own_inode() == daemon.netns_inode;
    let placed = links.iter().filter_map(|link| {
        let settings = &link.settings;
        let routed = settings.mode != Some(ModeValue::Ethernet) || !settings.address.is_empty();
        // The daemon may run in another namespace than this process.
        let seen = here || settings.netns.is_some();
        (routed && seen).then_some((&settings.name, settings.netns.as_deref()))
    });
    let forwarded = block_on(kernel_forwarding::between_links(placed)).unwrap_or_default();
    all.extend(
        forwarded
            .into_iter()
            .map(|what| wrong(HostFeature::Forwarding, what)),
    );
    all
}

/// Problem of a link itself: it is lost, waiting, or running without something that was configured.
fn not_as_configured(link: &LinkInfo) -> Option<FeatureReport> {
    let name = &link.settings.name;
    let cause = link.cause.as_deref();
    let detail = match (&*link.state, cause) {
        ("running", None) => return None,
        ("running", Some(cause)) => format!("{name} is not as configured: {cause}"),
        (state, cause) => format!(
            "{name} is {state}: {}",
            cause.unwrap_or("no cause is known")
        ),
    };
    Some(FeatureReport {
        kind: HostFeature::Link,
        available: false,
        detail,
    })
}

/// Sends a request to the daemon at `socket`.
fn query_daemon<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, CallError> {
    let mut client = Client::connect(socket)?;
    client.hurry(ANSWER_PATIENCE);
    client.call(request)
}

fn feature(kind: HostFeature, available: bool, with: &str, without: &str) -> FeatureReport {
    FeatureReport {
        kind,
        available,
        detail: if available { with } else { without }.into(),
    }
}

fn capability(kind: HostFeature, wanted: Capability, with: &str, without: &str) -> FeatureReport {
    let has = caps::has_cap(None, CapSet::Effective, wanted).unwrap_or(false);
    let without = format!("{wanted} is missing: {without}");
    feature(kind, has, &format!("{wanted}: {with}"), &without)
}

/// How long start-up waits for a port that is about to be released.
const PORT_PATIENCE: Duration = Duration::from_secs(5);

/// Finds who holds the ports of these links. Seeing which program holds a port takes all of root's capabilities, so
/// this runs before they are dropped.
pub(super) fn port_holders(state: &DesiredState) -> BTreeMap<u16, PortHolder> {
    let ports = needed_ports(state).into_keys();
    let holder = |port| wait_until_free(|| taken(port), || whose(port), PORT_PATIENCE);
    ports
        .filter_map(|port| Some((port, holder(port)?)))
        .collect()
}

fn taken(port: u16) -> bool {
    crate::io::port_is_taken(port)
}

/// Queries the daemon at `socket`.
pub(super) fn answering(socket: &Path) -> Result<HostInfo, CallError> {
    query_daemon(socket, &Request::GetHost).map(|HostReply { host }| host)
}

/// Returns the holder of a port, unless it is this daemon, which holds it for its links.
pub(super) fn foreign_holder(port: u16, daemon: Option<&HostInfo>) -> Option<PortHolder> {
    let holder = taken(port).then(|| whose(port)).flatten()?;
    let own = daemon.is_some_and(|daemon| match &holder {
        PortHolder::Process { pid, .. } => u32::try_from(*pid) == Ok(daemon.pid),
        // Without the right to see other users' processes, trust the daemon's list.
        PortHolder::Hidden { .. } => daemon.ports.contains(&port),
        PortHolder::Device { .. } => false,
    });
    (!own).then_some(holder)
}

fn port(daemon: Option<&HostInfo>) -> FeatureReport {
    let holder = foreign_holder(GENEVE_DEFAULT_PORT, daemon);
    let (available, detail) = match (&holder, daemon) {
        (Some(holder), _) => (
            false,
            format!(
                "UDP port {GENEVE_DEFAULT_PORT} is taken by {holder}; {}",
                holder.remedy()
            ),
        ),
        (None, Some(daemon)) if daemon.ports.contains(&GENEVE_DEFAULT_PORT) => (
            true,
            format!(
                "UDP port {GENEVE_DEFAULT_PORT} is that of the running daemon (pid {})",
                daemon.pid
            ),
        ),
        (None, _) if taken(GENEVE_DEFAULT_PORT) => {
            (false, format!("UDP port {GENEVE_DEFAULT_PORT} is taken"))
        }
        (None, _) => (true, format!("UDP port {GENEVE_DEFAULT_PORT} is free")),
    };
    FeatureReport {
        kind: HostFeature::GenevePort,
        available,
        detail,
    }
}

fn whose(port: u16) -> Option<PortHolder> {
    block_on(async {
        let (connection, netlink, _) = rtnetlink::new_connection().ok()?;
        tokio::spawn(connection);
        holder(&netlink, port).await
    })?
}

fn user() -> FeatureReport {
    let found = User::from_name(SERVICE_USER).is_ok_and(|user| user.is_some());
    let hint = match geteuid().is_root() {
        true => {
            "; what is said here is what root may do, and \"geneved check --service\" says what that user may"
        }
        false => "",
    };
    feature(
        HostFeature::ServiceUser,
        found,
        &format!("the service's user geneved is there; its group may use the control socket{hint}"),
        "there is no user geneved, which the service runs as; the packages make it, or \"useradd --system geneved\"",
    )
}

fn configuration() -> FeatureReport {
    let (available, detail) = match File::open(DEFAULT_PATH) {
        Ok(_) => (
            true,
            format!("{DEFAULT_PATH} is there; \"geneved check default\" reads it"),
        ),
        Err(error) => (
            false,
            format!("{DEFAULT_PATH}: {error}; an empty file is enough to start with"),
        ),
    };
    FeatureReport {
        kind: HostFeature::Configuration,
        available,
        detail,
    }
}

fn daemon(socket: &Path, running: Result<HostInfo, CallError>) -> FeatureReport {
    let (available, detail) = match running {
        Ok(daemon) => (
            true,
            format!(
                "geneved {} answers at {}: pid {}, {}, {}",
                daemon.version,
                socket.display(),
                daemon.pid,
                counted(daemon.links, "link"),
                daemon.io
            ),
        ),
        Err(error) => (false, error.to_string()),
    };
    FeatureReport {
        kind: HostFeature::Daemon,
        available,
        detail,
    }
}
