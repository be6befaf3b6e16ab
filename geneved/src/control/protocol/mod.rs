//! Messages of the control socket: Varlink calls, replies and errors.
//!
//! Defines the types of the interface `io.geneved.Control1`, which `io.geneved.Control1.varlink` describes for
//! clients. A change that existing clients cannot read requires `Control2`.

mod capture;
mod event;
mod fdb;
mod flow;
mod info;
mod nat;
mod option;
mod policy;
mod qos;
mod rates;
mod reload;
mod service;
mod trace;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::args::{EndpointArgs, FlowFilter, ObjectChange, TraceArgs};
use crate::config::value::IfName;
use crate::refusal::Refusal;

pub use self::capture::{CaptureArgs, CaptureReply, CapturedPacket};
pub use self::event::{
    ChangeKind, DropEvent, DropSample, Event, EventKind, HealthEvent, HostEvent, LogEvent,
    MonitorReply, Topic,
};
pub use self::fdb::{FdbInfo, FdbOrigin, FdbReply};
pub use self::flow::{
    DirectionCounts, FlowInfo, FlowsReply, FlushReply, TraceVerdict, TranslatedFlow,
};
pub use self::info::{
    FeatureInfo, HostInfo, LinkInfo, MtuSum, PathMtuInfo, RemoteInfo, RouteInfo, TrafficInfo,
    UndeliveredInfo, UndeliveredPrefix, UnknownVniInfo,
};
pub use self::nat::{NatInfo, NatsReply};
pub use self::option::{OptionInfo, OptionsReply};
pub use self::policy::{PoliciesReply, PolicyInfo};
pub use self::qos::{ClassInfo, ClassesReply};
pub use self::rates::{FlowRates, HostRates, LinkRates, Rates, RatesReply, WorkerRates};
pub use self::reload::ReloadReply;
pub use self::service::{BackendHealth, BackendInfo, ServiceInfo, ServicesReply};
pub use self::trace::{StageInfo, TraceReply, TraceReport};

/// Name of the interface.
pub const VARLINK_INTERFACE: &str = "io.geneved.Control1";
/// Description of the interface in Varlink's IDL.
pub const DESCRIPTION: &str = include_str!("../io.geneved.Control1.varlink");
/// The interface that every Varlink service implements.
pub const SERVICE_INTERFACE: &str = "org.varlink.service";

/// Maximum length of a call in bytes; a longer one ends the connection. A call with 10,000 links is half as long.
pub const MAX_MESSAGE: usize = 4 << 20;

/// A call, as sent on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Interface and method.
    pub method: String,
    /// Arguments of the method.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub parameters: Value,
    /// Whether the client wants no reply.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oneway: bool,
    /// Whether the client accepts several replies.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// A reply, as sent on the wire.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// The result, or the parameters of the error.
    #[serde(default)]
    pub parameters: Value,
    /// Interface and name of the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether further replies to the same call follow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continues: bool,
}

/// A request to the daemon.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Applies all of these changes, or none.
    Apply {
        /// The changes, in order.
        changes: Vec<ObjectChange>,
    },
    /// Lists all links, or one.
    ListLinks {
        /// Name of the link.
        name: Option<IfName>,
    },
    /// Lists all routes, or those of a link.
    ListRoutes {
        /// Which link.
        dev: Option<IfName>,
    },
    /// Lists the FDB entries of all Ethernet links, or of one.
    ListFdb {
        /// Which link.
        dev: Option<IfName>,
    },
    /// Removes learned FDB entries.
    FlushFdb {
        /// The link; all links if absent.
        dev: Option<IfName>,
    },
    /// Lists all endpoints, or those of a link.
    ListEndpoints {
        /// Which link.
        dev: Option<IfName>,
    },
    /// Lists all rules, or those of a link.
    ListPolicies {
        /// Which link.
        dev: Option<IfName>,
    },
    /// Lists all NAT rules, or those of a link.
    ListNats {
        /// Which link.
        dev: Option<IfName>,
    },
    /// Lists all services, or those of a link.
    ListServices {
        /// Which link.
        dev: Option<IfName>,
    },
    /// Lists all classes, or those of a link.
    ListClasses {
        /// Which link.
        dev: Option<IfName>,
    },
    /// Lists all defined options.
    ListOptions,
    /// Lists the flows that match a filter.
    ListFlows {
        /// Which ones.
        filter: FlowFilter,
        /// Maximum number of flows to return; 0 only counts.
        limit: u32,
    },
    /// Removes the flows that match a filter; their next packets are decided anew.
    FlushFlows {
        /// Which ones.
        filter: FlowFilter,
    },
    /// Traces a packet without sending it.
    Trace {
        /// The packet.
        packet: TraceArgs,
    },
    /// Returns counters and rates.
    GetRates {
        /// Maximum number of flows to return.
        flows: u32,
        /// Rank flows by packets rather than bytes.
        by_packets: bool,
    },
    /// Streams events.
    Monitor {
        /// Topics to subscribe to; all if empty.
        topics: Vec<Topic>,
    },
    /// Streams captured packets, several per reply.
    Capture {
        /// Which ones.
        capture: CaptureArgs,
    },
    /// The daemon's own state.
    GetHost,
    /// Forgets what was learned about the paths to hosts.
    FlushHosts {
        /// The host; all hosts if absent.
        address: Option<IpAddr>,
    },
    /// Reloads the configuration.
    Reload {
        /// Only report what would be done.
        dry_run: bool,
    },
    /// Returns the running state as a configuration.
    Save,
}

/// Whether a call has one reply or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyMode {
    /// One reply.
    Never,
    /// Many replies if the caller accepts them, otherwise one shorter reply.
    Allowed,
    /// Many replies.
    Always,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq)]
pub enum CallFailure {
    /// The daemon or the kernel refused; nothing was changed.
    Refused(Refusal),
    /// No such method.
    MethodNotFound(String),
    /// No such interface.
    InterfaceNotFound(String),
    /// The call has many replies, but the caller expects one.
    ExpectedMore,
    /// The maximum number of clients already receive such replies.
    Busy,
    /// The arguments do not fit. Which one is unknown, so this holds the whole error message.
    InvalidParameter(String),
}

impl From<Refusal> for CallFailure {
    fn from(refusal: Refusal) -> Self {
        CallFailure::Refused(refusal)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplyParams {
    changes: Vec<ObjectChange>,
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameParams {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<IfName>,
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DevParams {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dev: Option<IfName>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListFlowsParams {
    #[serde(default)]
    filter: FlowFilter,
    #[serde(default = "unlimited")]
    limit: u32,
}
fn unlimited() -> u32 {
    u32::MAX
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlushFlowsParams {
    #[serde(default)]
    filter: FlowFilter,
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RatesParams {
    #[serde(default)]
    flows: u32,
    #[serde(default)]
    by_packets: bool,
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MonitorParams {
    #[serde(default)]
    topics: Vec<Topic>,
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaptureParams {
    #[serde(default)]
    capture: CaptureArgs,
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadParams {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostParams {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TraceParams {
    packet: TraceArgs,
}

impl Request {
    /// Parses a call.
    ///
    /// # Errors
    /// If the method is unknown or its arguments do not fit.
    pub fn from_call(call: Call) -> Result<Self, CallFailure> {
        let Some((interface, method)) = call.method.rsplit_once('.') else {
            return Err(CallFailure::InterfaceNotFound(call.method));
        };
        if interface != VARLINK_INTERFACE {
            return Err(CallFailure::InterfaceNotFound(interface.to_owned()));
        }
        fn arguments<T: serde::de::DeserializeOwned>(parameters: Value) -> Result<T, CallFailure> {
            let parameters = match parameters {
                Value::Null => Value::Object(serde_json::Map::new()),
                other => other,
            };
            serde_json::from_value(parameters)
                .map_err(|e| CallFailure::InvalidParameter(e.to_string()))
        }
        match method {
            "Apply" => arguments::<ApplyParams>(call.parameters)
                .map(|ApplyParams { changes }| Request::Apply { changes }),
            "ListLinks" => arguments::<NameParams>(call.parameters)
                .map(|NameParams { name }| Request::ListLinks { name }),
            "ListRoutes" => arguments::<DevParams>(call.parameters)
                .map(|DevParams { dev }| Request::ListRoutes { dev }),
            "ListFdb" => arguments::<DevParams>(call.parameters)
                .map(|DevParams { dev }| Request::ListFdb { dev }),
            "FlushFdb" => arguments::<DevParams>(call.parameters)
                .map(|DevParams { dev }| Request::FlushFdb { dev }),
            "ListEndpoints" => arguments::<DevParams>(call.parameters)
                .map(|DevParams { dev }| Request::ListEndpoints { dev }),
            "ListPolicies" => arguments::<DevParams>(call.parameters)
                .map(|DevParams { dev }| Request::ListPolicies { dev }),
            "ListNats" => arguments::<DevParams>(call.parameters)
                .map(|DevParams { dev }| Request::ListNats { dev }),
            "ListServices" => arguments::<DevParams>(call.parameters)
                .map(|DevParams { dev }| Request::ListServices { dev }),
            "ListClasses" => arguments::<DevParams>(call.parameters)
                .map(|DevParams { dev }| Request::ListClasses { dev }),
            "ListOptions" => Ok(Request::ListOptions),
            "ListFlows" => arguments::<ListFlowsParams>(call.parameters)
                .map(|ListFlowsParams { filter, limit }| Request::ListFlows { filter, limit }),
            "FlushFlows" => arguments::<FlushFlowsParams>(call.parameters)
                .map(|FlushFlowsParams { filter }| Request::FlushFlows { filter }),
            "Trace" => arguments::<TraceParams>(call.parameters)
                .map(|TraceParams { packet }| Request::Trace { packet }),
            "GetRates" => arguments::<RatesParams>(call.parameters)
                .map(|RatesParams { flows, by_packets }| Request::GetRates { flows, by_packets }),
            "Monitor" => arguments::<MonitorParams>(call.parameters)
                .map(|MonitorParams { topics }| Request::Monitor { topics }),
            "Capture" => arguments::<CaptureParams>(call.parameters)
                .map(|CaptureParams { capture }| Request::Capture { capture }),
            "GetHost" => Ok(Request::GetHost),
            "FlushHosts" => arguments::<HostParams>(call.parameters)
                .map(|HostParams { address }| Request::FlushHosts { address }),
            "Reload" => arguments::<ReloadParams>(call.parameters)
                .map(|ReloadParams { dry_run }| Request::Reload { dry_run }),
            "Save" => Ok(Request::Save),
            _ => Err(CallFailure::MethodNotFound(call.method)),
        }
    }

    /// Converts the request to a call.
    #[must_use]
    pub fn to_call(&self) -> Call {
        let json = |value: Result<Value, _>| value.expect("words have a form in JSON");
        let (method, parameters) = match self.clone() {
            Request::Apply { changes } => {
                ("Apply", json(serde_json::to_value(ApplyParams { changes })))
            }
            Request::ListLinks { name } => {
                ("ListLinks", json(serde_json::to_value(NameParams { name })))
            }
            Request::ListRoutes { dev } => {
                ("ListRoutes", json(serde_json::to_value(DevParams { dev })))
            }
            Request::ListFdb { dev } => ("ListFdb", json(serde_json::to_value(DevParams { dev }))),
            Request::FlushFdb { dev } => {
                ("FlushFdb", json(serde_json::to_value(DevParams { dev })))
            }
            Request::ListEndpoints { dev } => (
                "ListEndpoints",
                json(serde_json::to_value(DevParams { dev })),
            ),
            Request::ListPolicies { dev } => (
                "ListPolicies",
                json(serde_json::to_value(DevParams { dev })),
            ),
            Request::ListNats { dev } => {
                ("ListNats", json(serde_json::to_value(DevParams { dev })))
            }
            Request::ListServices { dev } => (
                "ListServices",
                json(serde_json::to_value(DevParams { dev })),
            ),
            Request::ListClasses { dev } => {
                ("ListClasses", json(serde_json::to_value(DevParams { dev })))
            }
            Request::ListOptions => ("ListOptions", Value::Null),
            Request::ListFlows { filter, limit } => (
                "ListFlows",
                json(serde_json::to_value(ListFlowsParams { filter, limit })),
            ),
            Request::FlushFlows { filter } => (
                "FlushFlows",
                json(serde_json::to_value(FlushFlowsParams { filter })),
            ),
            Request::Trace { packet } => {
                ("Trace", json(serde_json::to_value(TraceParams { packet })))
            }
            Request::GetRates { flows, by_packets } => {
                let busiest = RatesParams { flows, by_packets };
                ("GetRates", json(serde_json::to_value(busiest)))
            }
            Request::Monitor { topics } => (
                "Monitor",
                json(serde_json::to_value(MonitorParams { topics })),
            ),
            Request::Capture { capture } => (
                "Capture",
                json(serde_json::to_value(CaptureParams { capture })),
            ),
            Request::GetHost => ("GetHost", Value::Null),
            Request::FlushHosts { address } => (
                "FlushHosts",
                json(serde_json::to_value(HostParams { address })),
            ),
            Request::Reload { dry_run } => (
                "Reload",
                json(serde_json::to_value(ReloadParams { dry_run })),
            ),
            Request::Save => ("Save", Value::Null),
        };
        Call {
            method: format!("{VARLINK_INTERFACE}.{method}"),
            parameters,
            oneway: false,
            more: self.streaming() != ReplyMode::Never,
        }
    }

    /// Whether the request has one reply or many.
    #[must_use]
    pub fn streaming(&self) -> ReplyMode {
        match self {
            Request::Monitor { .. } | Request::Capture { .. } => ReplyMode::Always,
            Request::ListFlows { .. } => ReplyMode::Allowed,
            _ => ReplyMode::Never,
        }
    }

    /// Whether the reply may be long because it covers every object of a kind.
    #[must_use]
    pub fn lists(&self) -> bool {
        !matches!(
            self,
            Request::Apply { .. }
                | Request::Trace { .. }
                | Request::FlushFdb { .. }
                | Request::FlushFlows { .. }
                | Request::Monitor { .. }
                | Request::Capture { .. }
                | Request::GetHost
                | Request::FlushHosts { .. }
                | Request::Reload { .. }
        )
    }
}

/// The reply of `Apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyReply {
    /// Summary of what was done, in one sentence.
    pub summary: String,
}

/// The reply of `ListLinks`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinksReply {
    /// Sorted by name.
    pub links: Vec<LinkInfo>,
}

/// The reply of `ListRoutes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoutesReply {
    /// Sorted by link, then by prefix.
    pub routes: Vec<RouteInfo>,
}

/// The reply of `ListEndpoints`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointsReply {
    /// Sorted by link, then by address.
    pub endpoints: Vec<EndpointInfo>,
}

/// An endpoint with its port usage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointInfo {
    /// The endpoint.
    pub endpoint: EndpointArgs,
    /// Source ports in use on behalf of clients of its link; 0 unless this host proxies it.
    pub in_use: u64,
    /// Source ports available to them; 0 unless this host proxies it.
    pub total: u64,
}

/// The reply of `GetHost`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostReply {
    /// The daemon's own state.
    pub host: HostInfo,
}

/// The reply of `Save`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaveReply {
    /// The configuration as TOML.
    pub text: String,
    /// The configuration as an object.
    #[serde(default)]
    pub config: Value,
}
