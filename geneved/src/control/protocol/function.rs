//! Policy, NAT, services, classes, options and flows: what was configured and what it does.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::value::{FlowState, IfName, Name, Proto, RawOption};
use crate::config::words::{NatWords, OptionWords, PolicyWords, QosWords, ServiceWords};

/// The reply of `ListPolicies`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// By link, then in the order in which they are asked.
    pub policies: Vec<PolicyInfo>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInfo {
    /// The rule.
    pub policy: PolicyWords,
    /// How many flows it decided.
    pub hits: u64,
}

/// The reply of `ListNats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nats {
    /// By link, then by name.
    pub nats: Vec<NatInfo>,
}

/// A translation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatInfo {
    /// The translation.
    pub nat: NatWords,
    /// Ports of its pool that are handed out; 0 where it has none.
    pub in_use: u64,
    /// Ports that its pool has; 0 where it has none.
    pub total: u64,
    /// What the kernel of this host lacks for packets to pass between the VPC and the outside, each with its remedy.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// The reply of `ListServices`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    /// By link, then by name.
    pub services: Vec<ServiceInfo>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// The service.
    pub service: ServiceWords,
    /// Its backends, every value decided, in the order of their configuration.
    pub backends: Vec<BackendInfo>,
}

/// How a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It gets new flows.
    Up,
    /// It gets none: it does not answer.
    Down,
    /// It gets new flows until more is known.
    Unknown,
    /// It keeps its flows and gets no new ones: its weight is 0.
    Draining,
}

/// A backend of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendInfo {
    /// Its overlay address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its share.
    pub weight: u16,
    /// How it is.
    pub health: Health,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The reply of `ListClasses`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classes {
    /// By link, then by name.
    pub classes: Vec<ClassInfo>,
}

/// A class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassInfo {
    /// The class.
    pub class: QosWords,
    /// Inner bytes that passed.
    pub passed_bytes: u64,
    /// Inner bytes that were over its rate.
    pub dropped_bytes: u64,
    /// Inner bytes that passed with a congestion mark.
    pub marked_bytes: u64,
    /// Inner bytes that wait for the rate now.
    pub backlog_bytes: u64,
}

/// The reply of `ListOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// By name.
    pub options: Vec<OptionInfo>,
}

/// A defined option.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionInfo {
    /// The definition.
    pub option: OptionWords,
    /// Packets received with it.
    pub rx: u64,
    /// Packets sent with it.
    pub tx: u64,
}

/// The reply of `ListFlows`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// No more than were asked for.
    pub flows: Vec<FlowInfo>,
    /// How many the filter let through.
    pub total: u64,
}

/// A flow: two addresses that talk to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowInfo {
    /// The link.
    pub dev: IfName,
    /// Who began.
    pub src: IpAddr,
    /// Whom it asked for.
    pub dst: IpAddr,
    /// The protocol.
    pub proto: Proto,
    /// The source port; for an ICMP query its identifier.
    pub sport: u16,
    /// The destination port; for an ICMP query its identifier.
    pub dport: u16,
    /// What the packets are rewritten to, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated: Option<Translated>,
    /// How far it has got.
    pub state: FlowState,
    /// What happens to its packets.
    pub verdict: Verdict,
    /// Why they are dropped, as drop reasons are named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The other host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// Its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Name>,
    /// What went the way of the first packet.
    pub original: Side,
    /// What came back.
    pub reply: Side,
    /// Seconds since its first packet.
    pub age_s: u64,
    /// Seconds since its last packet.
    pub idle_s: u64,
    /// Seconds until it ends, unless another packet comes.
    pub expires_s: u64,
}

/// The other face of a flow that is rewritten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translated {
    /// The link of its replies.
    pub dev: IfName,
    /// The source.
    pub src: IpAddr,
    /// The destination.
    pub dst: IpAddr,
    /// The source port.
    pub sport: u16,
    /// The destination port.
    pub dport: u16,
}

/// One direction of a flow.
#[derive(Clone, Debug, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Packets.
    pub packets: u64,
    /// Inner bytes.
    pub bytes: u64,
}

/// What happens to a packet in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It goes to another host.
    Forward,
    /// It goes into the interface.
    Deliver,
    /// It is dropped.
    Drop,
    /// It is dropped, and the sender is told.
    Reject,
    /// It is sent to a host of which ICMP errors say that nothing arrives there; of flows this is not told.
    Unreachable,
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Forward => "forward",
            Verdict::Deliver => "deliver",
            Verdict::Drop => "drop",
            Verdict::Reject => "reject",
            Verdict::Unreachable => "unreachable",
        }
    }
}

/// The reply of `FlushFlows`.
#[derive(Clone, Debug, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    /// How many flows were forgotten.
    pub count: u64,
}

/// The reply of `Trace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// What would happen.
    pub report: TraceReport,
}

/// What would happen to a packet, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceReport {
    /// One stage after the other, up to the last one that had a say.
    pub stages: Vec<Stage>,
    /// What happens in the end.
    pub verdict: Verdict,
    /// Why it is dropped, as drop reasons are named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The host that it goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// Its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Name>,
    /// The options that it carries on the wire.
    pub options: Vec<RawOption>,
}

/// One stage of the journey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name: labels, flow, source, service, nat, route, rule, policy, class, options, exit, mtu, underlay, kernel, ...
    pub stage: String,
    /// What came of it, in words.
    pub result: String,
    /// More about it; may be empty.
    pub detail: String,
}
