//! What `Monitor` streams: changes of the configuration, and what happens meanwhile.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::fdb::FdbInfo;
use super::info::{LinkInfo, RouteInfo};
use super::nat::NatInfo;
use super::option::OptionInfo;
use super::policy::PolicyInfo;
use super::qos::ClassInfo;
use super::service::{BackendHealth, ServiceInfo};
use crate::config::args::EndpointArgs;
pub use crate::config::difference::ChangeKind;
use crate::config::value::{DirectionValue, IfName, ObjectName, ProtocolValue};

/// The reply of `Monitor`, one of many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MonitorReply {
    /// What happened.
    pub event: Event,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, in microseconds since 1970.
    pub time_us: u64,
    /// What became of an object of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ChangeKind>,
    /// The object, or what happened.
    #[serde(flatten)]
    pub what: EventKind,
}

macro_rules! topics {
    ($($(#[doc = $doc:literal])+ $word:ident($content:ty) = $name:literal,)+) => {
        /// What an event is about.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum EventKind {
            $($(#[doc = $doc])+ $word($content),)+
        }

        /// A kind of event that can be asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum Topic {
            $($(#[doc = $doc])+ $word,)+
        }

        impl Topic {
            /// Every topic.
            pub const ALL: &'static [Topic] = &[$(Topic::$word,)+];

            /// The word for it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Topic::$word => $name,)+ }
            }
        }

        impl EventKind {
            /// What it is about.
            #[must_use]
            pub const fn topic(&self) -> Topic {
                match self { $(EventKind::$word(_) => Topic::$word,)+ }
            }
        }
    };
}

topics! {
    /// A link.
    Link(Box<LinkInfo>) = "link",
    /// A route.
    Route(RouteInfo) = "route",
    /// An endpoint.
    Endpoint(EndpointArgs) = "endpoint",
    /// A MAC address that is configured, and one host that it is on.
    Fdb(FdbInfo) = "fdb",
    /// A rule.
    Policy(Box<PolicyInfo>) = "policy",
    /// A translation.
    Nat(Box<NatInfo>) = "nat",
    /// A service.
    Service(Box<ServiceInfo>) = "service",
    /// A class.
    Qos(ClassInfo) = "qos",
    /// An option.
    Option(OptionInfo) = "option",
    /// Packets that were not forwarded.
    Drop(DropEvent) = "drop",
    /// A new flow, decided by a rule that logs.
    Log(LogEvent) = "log",
    /// The health of a backend.
    Health(HealthEvent) = "health",
    /// This host, or another one.
    Host(HostEvent) = "host",
    /// Events that this client did not take in time and will not see.
    Lost(u64) = "lost",
}

impl Topic {
    /// Whether it is a kind of object of the configuration.
    #[must_use]
    pub const fn is_configuration(self) -> bool {
        match self {
            Topic::Link
            | Topic::Route
            | Topic::Endpoint
            | Topic::Fdb
            | Topic::Policy
            | Topic::Nat
            | Topic::Service
            | Topic::Qos
            | Topic::Option => true,
            Topic::Drop | Topic::Log | Topic::Health | Topic::Host | Topic::Lost => false,
        }
    }
}

/// Packets that were dropped for one reason in about a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropEvent {
    /// The link; absent for packets of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<IfName>,
    /// Which way they went.
    pub direction: DirectionValue,
    /// Why, as drop reasons are named.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// unknown-vni: the latest VNI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// One of them, where one was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<DropSample>,
}

/// Who wanted to speak to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropSample {
    /// The source.
    pub src: IpAddr,
    /// The destination.
    pub dst: IpAddr,
    /// The protocol.
    pub proto: ProtocolValue,
    /// The source port; 0 where there is none.
    pub sport: u16,
    /// The destination port; 0 where there is none.
    pub dport: u16,
    /// Length of the inner packet in bytes.
    pub length: u32,
    /// The host that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
}

/// A flow that a rule with `log` decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEvent {
    /// The link.
    pub dev: IfName,
    /// The rule; absent where it has changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<ObjectName>,
    /// What it decided.
    pub verdict: String,
    /// The source.
    pub src: IpAddr,
    /// The destination.
    pub dst: IpAddr,
    /// The protocol.
    pub proto: ProtocolValue,
    /// The source port; for an ICMP query its identifier.
    pub sport: u16,
    /// The destination port; for an ICMP query its identifier.
    pub dport: u16,
    /// How many further ones were left out before this one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suppressed: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A backend of a service went up or down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthEvent {
    /// The link.
    pub dev: IfName,
    /// The services of the link that it is a backend of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ObjectName>,
    /// The backend's overlay address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// How it is.
    pub health: BackendHealth,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Something that was learned of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEvent {
    /// Its underlay address; absent for the host that the daemon runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// What: `path-mtu`, `gso-off`, `tunnel-gso`, `whole`, `unreachable`, `reachable`, `underlay-loop`, `link-lost`, `link-waiting`, `link-ready`, `link-repaired`, `socket-lost`, `worker-lost`, `reloaded`.
    pub what: String,
    /// The rest, in words.
    pub detail: String,
}
