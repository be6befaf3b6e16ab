//! Events that `Monitor` streams: configuration changes and run-time events.

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

/// A reply of `Monitor`, one of many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MonitorReply {
    /// The event.
    pub event: Event,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Timestamp in microseconds since 1970.
    pub time_us: u64,
    /// Kind of change, for objects of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ChangeKind>,
    /// The object, or the run-time event.
    #[serde(flatten)]
    pub what: EventKind,
}

macro_rules! topics {
    ($($(#[doc = $doc:literal])+ $word:ident($content:ty) = $name:literal,)+) => {
        /// Subject of an event.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum EventKind {
            $($(#[doc = $doc])+ $word($content),)+
        }

        /// Topic that a client can subscribe to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum Topic {
            $($(#[doc = $doc])+ $word,)+
        }

        impl Topic {
            /// All topics.
            pub const ALL: &'static [Topic] = &[$(Topic::$word,)+];

            /// Keyword of the topic.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Topic::$word => $name,)+ }
            }
        }

        impl EventKind {
            /// Topic of the event.
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
    /// A static FDB entry for one host.
    Fdb(FdbInfo) = "fdb",
    /// A rule.
    Policy(Box<PolicyInfo>) = "policy",
    /// A NAT rule.
    Nat(Box<NatInfo>) = "nat",
    /// A service.
    Service(Box<ServiceInfo>) = "service",
    /// A class.
    Qos(ClassInfo) = "qos",
    /// A user-defined option.
    Option(OptionInfo) = "option",
    /// Dropped packets.
    Drop(DropEvent) = "drop",
    /// A new flow that matched a rule with `log`.
    Log(LogEvent) = "log",
    /// A change of a backend's health.
    Health(HealthEvent) = "health",
    /// An event concerning this host or another one.
    Host(HostEvent) = "host",
    /// Number of events lost because this client did not read fast enough.
    Lost(u64) = "lost",
}

impl Topic {
    /// Whether the topic is a kind of configuration object.
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

/// Packets dropped for one reason within about a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropEvent {
    /// The link; absent for packets that belong to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<IfName>,
    /// Direction of the packets.
    pub direction: DirectionValue,
    /// Drop reason.
    pub reason: String,
    /// Number of packets.
    pub count: u64,
    /// For unknown-vni: the latest VNI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<u32>,
    /// One of the packets, if one was sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<DropSample>,
}

/// Headers of a sampled packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropSample {
    /// The source.
    pub src: IpAddr,
    /// The destination.
    pub dst: IpAddr,
    /// The protocol.
    pub proto: ProtocolValue,
    /// The source port; 0 if there is none.
    pub sport: u16,
    /// The destination port; 0 if there is none.
    pub dport: u16,
    /// Length of the inner packet in bytes.
    pub length: u32,
    /// Host that sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
}

/// A flow that matched a rule with `log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEvent {
    /// The link.
    pub dev: IfName,
    /// The rule; absent if it has changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<ObjectName>,
    /// Verdict of the rule.
    pub verdict: String,
    /// The source.
    pub src: IpAddr,
    /// The destination.
    pub dst: IpAddr,
    /// The protocol.
    pub proto: ProtocolValue,
    /// The source port; for ICMP queries the identifier.
    pub sport: u16,
    /// The destination port; for ICMP queries the identifier.
    pub dport: u16,
    /// Number of log events suppressed before this one.
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
    /// Services of the link that use the backend.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ObjectName>,
    /// The backend's overlay address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The new health.
    pub health: BackendHealth,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An event concerning a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEvent {
    /// Its underlay address; absent for the host that the daemon runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// What: `path-mtu`, `gso-off`, `tunnel-gso`, `whole`, `unreachable`, `reachable`, `underlay-loop`, `link-lost`, `link-waiting`, `link-ready`, `link-repaired`, `socket-lost`, `worker-lost`, `reloaded`.
    pub what: String,
    /// Details in words.
    pub detail: String,
}
