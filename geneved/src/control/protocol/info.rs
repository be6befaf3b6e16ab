//! Links, routes and the daemon itself, as they run.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::args::{LinkArgs, RouteArgs};
use crate::config::value::{IfName, MacValue, PrefixValue};
use crate::plural::counted;

/// A link as it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// Every setting, defaults included.
    pub settings: LinkArgs,
    /// `running`, `waiting` for what it cannot do without, or `lost` when the interface vanished under the daemon.
    pub state: String,
    /// Why it waits or is lost, or what is wrong with it while it runs, such as hosts to which it sends nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The interface's number in its namespace.
    pub ifindex: u32,
    /// Its own MAC address, where its datagrams carry frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lladdr: Option<MacValue>,
    /// The kernel's flags, as `ip link` names them.
    pub flags: Vec<String>,
    /// The kernel's operational state, as `ip link` names it.
    pub operstate: String,
    /// The addresses that the interface has, whoever gave them, but for the link-local one that the kernel makes.
    #[serde(default)]
    pub addresses: Vec<PrefixValue>,
    /// Packets that were not delivered because their destination is not behind the link, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undelivered: Option<UndeliveredInfo>,
    /// The interface's MTU in bytes.
    pub mtu: u32,
    /// The interface's queue length in packets.
    pub txqlen: u32,
    /// How the MTU came about.
    pub mtu_sum: MtuSum,
    /// The backend that moves its packets.
    pub io: String,
    /// Its counters.
    pub traffic: TrafficInfo,
}

/// Packets that came for a link within the last hour and whose destinations are not behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndeliveredInfo {
    /// By prefix; those with the most packets.
    pub prefixes: Vec<UndeliveredPrefix>,
    /// Whether there were others.
    pub others: bool,
    /// How they are all delivered: the command, and what the file needs.
    pub remedy: String,
}

/// Packets for destinations in one prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndeliveredPrefix {
    /// The destination, or the /24 or /64 of several.
    pub prefix: PrefixValue,
    /// How many came, at least.
    pub packets: u64,
    /// The latest destination.
    pub last: IpAddr,
    /// How many seconds ago it came.
    pub age: u64,
}

impl UndeliveredInfo {
    /// The same in words.
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

/// How a tunnel MTU came about; all in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MtuSum {
    /// The sum in words.
    pub text: String,
    /// MTU of the way to the host that allows the least.
    pub underlay: u32,
    /// The host; absent where the link has none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// The interface that the host is reached by; absent where there is no route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// What is left for inner packets.
    pub inner: u32,
}

/// Counters of a link, or of what belongs to no link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficInfo {
    /// Packets from the wire that were handed to the interface.
    pub rx_packets: u64,
    /// Their inner bytes.
    pub rx_bytes: u64,
    /// Packets from the interface that were sent.
    pub tx_packets: u64,
    /// Their inner bytes.
    pub tx_bytes: u64,
    /// Dropped on the way from the wire, by reason; only reasons that occurred.
    pub drops_ingress: BTreeMap<String, u64>,
    /// Dropped on the way to the wire, by reason; only reasons that occurred.
    pub drops_egress: BTreeMap<String, u64>,
    /// From the wire and for this host itself, which answered them or took note of them, by what they were.
    #[serde(default)]
    pub consumed_ingress: BTreeMap<String, u64>,
    /// From the interface and for this host itself.
    #[serde(default)]
    pub consumed_egress: BTreeMap<String, u64>,
}

/// A route as it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteInfo {
    /// The route.
    pub route: RouteArgs,
    /// `static`, or `remote` for the default route that a link's `remote` is.
    pub origin: String,
}

/// The daemon's own state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostInfo {
    /// geneved's version.
    pub version: String,
    /// The process id.
    pub pid: u32,
    /// The inode of the daemon's own network namespace, which tells namespaces apart.
    #[serde(default)]
    pub netns_inode: u64,
    /// The packet path's backend.
    pub io: String,
    /// Why it is this one.
    pub io_cause: String,
    /// Threads of the packet path.
    pub workers: u32,
    /// What the kernel offers.
    pub features: Vec<FeatureInfo>,
    /// UDP ports that are listened on.
    pub ports: Vec<u16>,
    /// How many links there are.
    pub links: u32,
    /// Packets that belong to no link.
    pub traffic: TrafficInfo,
    /// The VNIs of the latest of them that no link is for, 16 at most; the latest first.
    #[serde(default)]
    pub unknown_vnis: Vec<UnknownVniInfo>,
    /// ICMP errors about what was sent, by what was made of them; see the metric of that name.
    #[serde(default)]
    pub icmp_errors: BTreeMap<String, u64>,
    /// The hosts that any link knows.
    pub remotes: Vec<RemoteInfo>,
}

/// A VNI for which there is no link, and a host that used it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownVniInfo {
    /// The VNI.
    pub vni: u32,
    /// The UDP port that it came to.
    pub port: u16,
    /// The outer source.
    pub host: IpAddr,
    /// How many packets since it is among the latest.
    pub count: u64,
}

/// One thing that the packet path can use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureInfo {
    /// Its name.
    pub name: String,
    /// Whether this host has it.
    pub available: bool,
    /// What is there, or what is missing and what is done instead.
    pub detail: String,
}

/// A reported path MTU that is believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathMtuInfo {
    /// Whose address the ICMP error came from, which may be forged.
    pub by: IpAddr,
    /// What it said, in bytes; less than what is sent by where that is the least that is believed.
    pub reported: u32,
    /// Why it is believed: it quotes a packet of a flow that is there (`flow`), or a datagram that is longer left lately
    /// from the quoted port (`length`).
    pub evidence: String,
    /// How many seconds ago it came.
    pub age_s: u64,
    /// In how many seconds longer packets are tried again.
    pub left_s: u64,
}

/// Another host, and what was learned about the way to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteInfo {
    /// Its underlay address.
    pub address: IpAddr,
    /// The path MTU that the underlay reported, in bytes of outer IP packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu: Option<u32>,
    /// Who reported it, and until when it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu_report: Option<PathMtuInfo>,
    /// Whether trains are sent with `UDP_SEGMENT`.
    pub gso: bool,
    /// Which datagrams leave whole, each by itself and with finished checksums, because of who is at the other end of the
    /// underlay's device: `frames` or `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<String>,
    /// Why they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_cause: Option<String>,
    /// Why nothing arrives there: no route leads to it or one that leads back, the kernel refuses to send, or an ICMP error
    /// said so and nothing was heard from there since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
    /// How many seconds ago that was found out, where it may be over; absent where it is so now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable_age: Option<u64>,
    /// The links that know it.
    pub links: Vec<IfName>,
}
