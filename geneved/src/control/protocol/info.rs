//! Links, routes and the daemon itself, with their run-time state.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::args::{LinkArgs, RouteArgs};
use crate::config::value::{IfName, MacValue, PrefixValue};
use crate::plural::counted;

/// A link with its run-time state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// All settings, including defaults.
    pub settings: LinkArgs,
    /// `running`, `waiting` for something that it needs, or `lost` if the interface vanished under the daemon.
    pub state: String,
    /// Why it waits or is lost, or a problem while it runs, such as hosts that it cannot send to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Index of the interface in its namespace.
    pub ifindex: u32,
    /// MAC address, if its datagrams carry frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lladdr: Option<MacValue>,
    /// Kernel flags, as `ip link` names them.
    pub flags: Vec<String>,
    /// Operational state from the kernel, as `ip link` names it.
    pub operstate: String,
    /// Addresses of the interface, whoever assigned them, except the kernel's own link-local one.
    #[serde(default)]
    pub addresses: Vec<PrefixValue>,
    /// Packets not delivered because their destination is not behind the link, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undelivered: Option<UndeliveredInfo>,
    /// The interface's MTU in bytes.
    pub mtu: u32,
    /// The interface's queue length in packets.
    pub txqlen: u32,
    /// How the MTU was computed.
    pub mtu_sum: MtuSum,
    /// I/O backend.
    pub io: String,
    /// Counters of the link.
    pub traffic: TrafficInfo,
}

/// Packets received for a link within the last hour whose destinations are not behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndeliveredInfo {
    /// The prefixes with the most packets.
    pub prefixes: Vec<UndeliveredPrefix>,
    /// Whether there were other prefixes.
    pub others: bool,
    /// How to have them delivered: the command, and the setting for the file.
    pub remedy: String,
}

/// Packets for destinations in one prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndeliveredPrefix {
    /// The destination, or the /24 or /64 that several share.
    pub prefix: PrefixValue,
    /// Minimum number of packets.
    pub packets: u64,
    /// The most recent destination.
    pub last: IpAddr,
    /// How many seconds ago it came.
    pub age: u64,
}

impl UndeliveredInfo {
    /// Formats it as a sentence.
    #[must_use]
    pub fn sentence(&self, link: &str) -> String {
        let mut all: Vec<_> = self.prefixes.iter().map(ToString::to_string).collect();
        if self.others {
            all.push("others".into());
        }
        let last = all.pop().unwrap_or_default();
        let what = match all[..] {
            [] => last,
            _ => format!("{} and {last}", all.join(", ")),
        };
        format!(
            "dropped what came for link \"{link}\" because no such address is behind it: {what}; {}",
            self.remedy
        )
    }
}

impl fmt::Display for UndeliveredPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UndeliveredPrefix {
            prefix,
            packets,
            last,
            age,
        } = self;
        let packets = counted(*packets, "packet");
        let single = prefix.0.prefix_len() == prefix.0.max_prefix_len();
        let last = match single {
            true => String::new(),
            false => format!("to {last} "),
        };
        write!(f, "{packets} to {prefix} (the last {last}{age} s ago)")
    }
}

/// Computation of a tunnel MTU; all values in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MtuSum {
    /// The computation in words.
    pub text: String,
    /// MTU of the path to the host with the smallest one.
    pub underlay: u32,
    /// The host; absent if the link has none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// The outgoing interface to the host; absent if there is no route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// Room for inner packets.
    pub inner: u32,
}

/// Counters of a link, or of packets that belong to no link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficInfo {
    /// Packets received from the wire and delivered to the interface.
    pub rx_packets: u64,
    /// Their inner bytes.
    pub rx_bytes: u64,
    /// Packets received from the interface and sent.
    pub tx_packets: u64,
    /// Their inner bytes.
    pub tx_bytes: u64,
    /// Ingress drops by reason; only reasons that occurred.
    pub drops_ingress: BTreeMap<String, u64>,
    /// Egress drops by reason; only reasons that occurred.
    pub drops_egress: BTreeMap<String, u64>,
    /// Ingress packets that this host consumed, by answering or evaluating them, by kind.
    #[serde(default)]
    pub consumed_ingress: BTreeMap<String, u64>,
    /// Egress packets that this host consumed, by kind.
    #[serde(default)]
    pub consumed_egress: BTreeMap<String, u64>,
}

/// An active route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteInfo {
    /// The route.
    pub route: RouteArgs,
    /// `static`, or `remote` for the default route from a link's `remote`.
    pub origin: String,
}

/// State of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostInfo {
    /// geneved's version.
    pub version: String,
    /// The process id.
    pub pid: u32,
    /// Inode of the daemon's network namespace, which identifies it.
    #[serde(default)]
    pub netns_inode: u64,
    /// I/O backend.
    pub io: String,
    /// Why this backend was chosen.
    pub io_cause: String,
    /// Number of worker threads.
    pub workers: u32,
    /// Features that the kernel offers.
    pub features: Vec<FeatureInfo>,
    /// UDP ports that the daemon listens on.
    pub ports: Vec<u16>,
    /// Number of links.
    pub links: u32,
    /// Packets that belong to no link.
    pub traffic: TrafficInfo,
    /// VNIs without a link that were received most recently, at most 16, latest first.
    #[serde(default)]
    pub unknown_vnis: Vec<UnknownVniInfo>,
    /// ICMP errors about sent packets, by how they were handled; see the metric of that name.
    #[serde(default)]
    pub icmp_errors: BTreeMap<String, u64>,
    /// Hosts known to any link.
    pub remotes: Vec<RemoteInfo>,
}

/// A VNI without a link, and a host that used it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownVniInfo {
    /// The VNI.
    pub vni: u32,
    /// UDP port that it was received on.
    pub port: u16,
    /// Outer source address.
    pub host: IpAddr,
    /// Number of packets since it was added to this list.
    pub count: u64,
}

/// A feature that the packet path can use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureInfo {
    /// Its name.
    pub name: String,
    /// Whether this host supports it.
    pub available: bool,
    /// What was found, or what is missing and the fallback.
    pub detail: String,
}

/// An accepted path MTU report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathMtuInfo {
    /// Source address of the ICMP error, which may be forged.
    pub by: IpAddr,
    /// Reported MTU in bytes; smaller than the MTU in use if it is below the configured minimum.
    pub reported: u32,
    /// Why it is accepted: it quotes a packet of an existing flow (`flow`), or a longer datagram was recently sent
    /// from the quoted port (`length`).
    pub evidence: String,
    /// How many seconds ago it came.
    pub age_s: u64,
    /// Seconds until longer packets are tried again.
    pub left_s: u64,
}

/// Another host, and what was learned about the path to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteInfo {
    /// Its underlay address.
    pub address: IpAddr,
    /// Path MTU reported by the underlay, in bytes of outer IP packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu: Option<u32>,
    /// Who reported it, and how long it remains valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu_report: Option<PathMtuInfo>,
    /// Whether trains are sent with `UDP_SEGMENT`.
    pub gso: bool,
    /// Which datagrams are sent singly and with finished checksums because of the peer device of the underlay:
    /// `frames` or `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<String>,
    /// Why they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_cause: Option<String>,
    /// Why the host is unreachable: there is no route or a looping one, the kernel refuses to send, or an ICMP error
    /// said so and nothing was received from it since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
    /// Age of that finding in seconds, if it may be outdated; absent if it is current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable_age: Option<u64>,
    /// Links that know the host.
    pub links: Vec<IfName>,
}
