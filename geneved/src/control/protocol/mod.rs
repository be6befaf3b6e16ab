//! What is said on the control socket: Varlink calls, replies and errors.
//!
//! Owns the types of the interface `io.geneved.Control1`, which `io.geneved.Control1.varlink`
//! describes for others. A change that an existing client could not read makes it `Control2`.

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

use crate::config::value::IfName;
use crate::config::words::{Change, EndpointWords, FlowFilter, TraceWords};
use crate::refusal::Refusal;

pub use self::capture::{CaptureWords, Captured, CapturedPacket};
pub use self::event::{
    ChangeKind, DropEvent, Event, HealthEvent, HostEvent, LogEvent, Monitored, Sample, Topic, What,
};
pub use self::fdb::{Fdb, FdbInfo, FdbOrigin};
pub use self::flow::{FlowInfo, Flows, Flushed, Side, Translated, Verdict};
pub use self::info::{
    FeatureInfo, HostInfo, LinkInfo, MtuSum, PathMtuInfo, RemoteInfo, RouteInfo, Traffic,
    UndeliveredInfo, UndeliveredPrefix, UnknownVniInfo,
};
pub use self::nat::{NatInfo, Nats};
pub use self::option::{OptionInfo, Options};
pub use self::policy::{Policies, PolicyInfo};
pub use self::qos::{ClassInfo, Classes};
pub use self::rates::{FlowRates, HostRates, LinkRates, Rated, Rates, WorkerRates};
pub use self::reload::Reloaded;
pub use self::service::{BackendInfo, Health, ServiceInfo, Services};
pub use self::trace::{Stage, Trace, TraceReport};

/// The interface's name.
pub const INTERFACE: &str = "io.geneved.Control1";
/// The interface's description, in Varlink's own language.
pub const DESCRIPTION: &str = include_str!("../io.geneved.Control1.varlink");
/// The interface that every Varlink service has.
pub const SERVICE_INTERFACE: &str = "org.varlink.service";

/// The longest call in bytes; a longer one ends the connection. A call with 10,000 links is half as long.
pub const MAX_MESSAGE: usize = 4 << 20;

/// A call as it is on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Interface and method.
    pub method: String,
    /// The method's arguments.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub parameters: Value,
    /// No reply is wanted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oneway: bool,
    /// Several replies are accepted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// A reply as it is on the wire.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// The result, or what belongs to the error.
    #[serde(default)]
    pub parameters: Value,
    /// Interface and name of the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Further replies to the same call follow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continues: bool,
}

/// What the daemon can be asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Make all of these changes, or none.
    Apply {
        /// In this order.
        changes: Vec<Change>,
    },
    /// All links, or one.
    ListLinks {
        /// Which one.
        name: Option<IfName>,
    },
    /// All routes, or those of a link.
    ListRoutes {
        /// Which link.
        dev: Option<IfName>,
    },
    /// The forwarding tables of all Ethernet links, or that of one.
    ListFdb {
        /// Which link.
        dev: Option<IfName>,
    },
    /// Forget what forwarding tables have learned.
    FlushFdb {
        /// Of which link; all of them, if none is named.
        dev: Option<IfName>,
    },
    /// All endpoints, or those of a link.
    ListEndpoints {
        /// Which link.
        dev: Option<IfName>,
    },
    /// All rules, or those of a link.
    ListPolicies {
        /// Which link.
        dev: Option<IfName>,
    },
    /// All translations, or those of a link.
    ListNats {
        /// Which link.
        dev: Option<IfName>,
    },
    /// All services, or those of a link.
    ListServices {
        /// Which link.
        dev: Option<IfName>,
    },
    /// All classes, or those of a link.
    ListClasses {
        /// Which link.
        dev: Option<IfName>,
    },
    /// All options that were defined.
    ListOptions,
    /// The flows that a filter lets through.
    ListFlows {
        /// Which ones.
        filter: FlowFilter,
        /// The most that are told of; 0 only counts.
        limit: u32,
    },
    /// Forget the flows that a filter lets through; their next packets are decided anew.
    FlushFlows {
        /// Which ones.
        filter: FlowFilter,
    },
    /// What would happen to a packet.
    Trace {
        /// The packet.
        packet: TraceWords,
    },
    /// How busy everything is.
    GetRates {
        /// The most flows that are told of.
        flows: u32,
        /// The busiest are those with most packets, rather than bytes.
        by_packets: bool,
    },
    /// What happens from now on, reply by reply.
    Monitor {
        /// What is asked for; everything, if nothing is named.
        topics: Vec<Topic>,
    },
    /// Packets from now on, some with each reply.
    Capture {
        /// Which ones.
        capture: CaptureWords,
    },
    /// The daemon's own state.
    GetHost,
    /// Forget what was learned of the ways to hosts.
    FlushHosts {
        /// Of which host; all of them, if none is named.
        address: Option<IpAddr>,
    },
    /// Read the configuration again.
    Reload {
        /// Only say what would be done.
        dry_run: bool,
    },
    /// The running state as a configuration.
    Save,
}

/// Whether a call is answered by one reply or by many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streaming {
    /// By one.
    Never,
    /// By many where the caller accepts them, otherwise by one with less in it.
    Allowed,
    /// By many.
    Always,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The daemon or the kernel refused; nothing was changed.
    Refused(Refusal),
    /// No such method.
    MethodNotFound(String),
    /// No such interface.
    InterfaceNotFound(String),
    /// The call is answered by many replies, and the caller expects one.
    ExpectedMore,
    /// As many clients get such replies as can.
    Busy,
    /// The arguments do not fit; which one is not known, so the whole complaint is named.
    InvalidParameter(String),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Refused(refusal)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changes {
    changes: Vec<Change>,
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Name {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<IfName>,
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dev {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dev: Option<IfName>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
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
struct Filter {
    #[serde(default)]
    filter: FlowFilter,
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Busiest {
    #[serde(default)]
    flows: u32,
    #[serde(default)]
    by_packets: bool,
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Topics {
    #[serde(default)]
    topics: Vec<Topic>,
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Capture {
    #[serde(default)]
    capture: CaptureWords,
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rehearsal {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remote {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
}
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Packet {
    packet: TraceWords,
}

impl Request {
    /// Reads a call.
    ///
    /// # Errors
    /// The method is unknown or its arguments do not fit.
    pub fn from_call(call: Call) -> Result<Self, Failure> {
        let Some((interface, method)) = call.method.rsplit_once('.') else {
            return Err(Failure::InterfaceNotFound(call.method));
        };
        if interface != INTERFACE {
            return Err(Failure::InterfaceNotFound(interface.to_owned()));
        }
        fn arguments<T: serde::de::DeserializeOwned>(parameters: Value) -> Result<T, Failure> {
            let parameters = match parameters {
                Value::Null => Value::Object(serde_json::Map::new()),
                other => other,
            };
            serde_json::from_value(parameters).map_err(|e| Failure::InvalidParameter(e.to_string()))
        }
        match method {
            "Apply" => arguments::<Changes>(call.parameters)
                .map(|Changes { changes }| Request::Apply { changes }),
            "ListLinks" => {
                arguments::<Name>(call.parameters).map(|Name { name }| Request::ListLinks { name })
            }
            "ListRoutes" => {
                arguments::<Dev>(call.parameters).map(|Dev { dev }| Request::ListRoutes { dev })
            }
            "ListFdb" => {
                arguments::<Dev>(call.parameters).map(|Dev { dev }| Request::ListFdb { dev })
            }
            "FlushFdb" => {
                arguments::<Dev>(call.parameters).map(|Dev { dev }| Request::FlushFdb { dev })
            }
            "ListEndpoints" => {
                arguments::<Dev>(call.parameters).map(|Dev { dev }| Request::ListEndpoints { dev })
            }
            "ListPolicies" => {
                arguments::<Dev>(call.parameters).map(|Dev { dev }| Request::ListPolicies { dev })
            }
            "ListNats" => {
                arguments::<Dev>(call.parameters).map(|Dev { dev }| Request::ListNats { dev })
            }
            "ListServices" => {
                arguments::<Dev>(call.parameters).map(|Dev { dev }| Request::ListServices { dev })
            }
            "ListClasses" => {
                arguments::<Dev>(call.parameters).map(|Dev { dev }| Request::ListClasses { dev })
            }
            "ListOptions" => Ok(Request::ListOptions),
            "ListFlows" => arguments::<Which>(call.parameters)
                .map(|Which { filter, limit }| Request::ListFlows { filter, limit }),
            "FlushFlows" => arguments::<Filter>(call.parameters)
                .map(|Filter { filter }| Request::FlushFlows { filter }),
            "Trace" => arguments::<Packet>(call.parameters)
                .map(|Packet { packet }| Request::Trace { packet }),
            "GetRates" => arguments::<Busiest>(call.parameters)
                .map(|Busiest { flows, by_packets }| Request::GetRates { flows, by_packets }),
            "Monitor" => arguments::<Topics>(call.parameters)
                .map(|Topics { topics }| Request::Monitor { topics }),
            "Capture" => arguments::<Capture>(call.parameters)
                .map(|Capture { capture }| Request::Capture { capture }),
            "GetHost" => Ok(Request::GetHost),
            "FlushHosts" => arguments::<Remote>(call.parameters)
                .map(|Remote { address }| Request::FlushHosts { address }),
            "Reload" => arguments::<Rehearsal>(call.parameters)
                .map(|Rehearsal { dry_run }| Request::Reload { dry_run }),
            "Save" => Ok(Request::Save),
            _ => Err(Failure::MethodNotFound(call.method)),
        }
    }

    /// The call for this request.
    #[must_use]
    pub fn to_call(&self) -> Call {
        let json = |value: Result<Value, _>| value.expect("words have a form in JSON");
        let (method, parameters) = match self.clone() {
            Request::Apply { changes } => {
                ("Apply", json(serde_json::to_value(Changes { changes })))
            }
            Request::ListLinks { name } => ("ListLinks", json(serde_json::to_value(Name { name }))),
            Request::ListRoutes { dev } => ("ListRoutes", json(serde_json::to_value(Dev { dev }))),
            Request::ListFdb { dev } => ("ListFdb", json(serde_json::to_value(Dev { dev }))),
            Request::FlushFdb { dev } => ("FlushFdb", json(serde_json::to_value(Dev { dev }))),
            Request::ListEndpoints { dev } => {
                ("ListEndpoints", json(serde_json::to_value(Dev { dev })))
            }
            Request::ListPolicies { dev } => {
                ("ListPolicies", json(serde_json::to_value(Dev { dev })))
            }
            Request::ListNats { dev } => ("ListNats", json(serde_json::to_value(Dev { dev }))),
            Request::ListServices { dev } => {
                ("ListServices", json(serde_json::to_value(Dev { dev })))
            }
            Request::ListClasses { dev } => {
                ("ListClasses", json(serde_json::to_value(Dev { dev })))
            }
            Request::ListOptions => ("ListOptions", Value::Null),
            Request::ListFlows { filter, limit } => (
                "ListFlows",
                json(serde_json::to_value(Which { filter, limit })),
            ),
            Request::FlushFlows { filter } => {
                ("FlushFlows", json(serde_json::to_value(Filter { filter })))
            }
            Request::Trace { packet } => ("Trace", json(serde_json::to_value(Packet { packet }))),
            Request::GetRates { flows, by_packets } => {
                let busiest = Busiest { flows, by_packets };
                ("GetRates", json(serde_json::to_value(busiest)))
            }
            Request::Monitor { topics } => {
                ("Monitor", json(serde_json::to_value(Topics { topics })))
            }
            Request::Capture { capture } => {
                ("Capture", json(serde_json::to_value(Capture { capture })))
            }
            Request::GetHost => ("GetHost", Value::Null),
            Request::FlushHosts { address } => {
                ("FlushHosts", json(serde_json::to_value(Remote { address })))
            }
            Request::Reload { dry_run } => {
                ("Reload", json(serde_json::to_value(Rehearsal { dry_run })))
            }
            Request::Save => ("Save", Value::Null),
        };
        Call {
            method: format!("{INTERFACE}.{method}"),
            parameters,
            oneway: false,
            more: self.streaming() != Streaming::Never,
        }
    }

    /// Whether it is answered by many replies.
    #[must_use]
    pub fn streaming(&self) -> Streaming {
        match self {
            Request::Monitor { .. } | Request::Capture { .. } => Streaming::Always,
            Request::ListFlows { .. } => Streaming::Allowed,
            _ => Streaming::Never,
        }
    }

    /// Whether its reply may be long: it has something of every object of a kind.
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
pub struct Applied {
    /// What was done, in one sentence.
    pub summary: String,
}

/// The reply of `ListLinks`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Links {
    /// In the order of their names.
    pub links: Vec<LinkInfo>,
}

/// The reply of `ListRoutes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Routes {
    /// By link, then by prefix.
    pub routes: Vec<RouteInfo>,
}

/// The reply of `ListEndpoints`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Endpoints {
    /// By link, then by address.
    pub endpoints: Vec<EndpointInfo>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointInfo {
    /// The endpoint.
    pub endpoint: EndpointWords,
    /// Ports that stand for clients of its link where its target is; 0 where it is not proxied by this host.
    pub in_use: u64,
    /// Ports that may stand for them; 0 where it is not proxied by this host.
    pub total: u64,
}

/// The reply of `GetHost`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// The daemon's own state.
    pub host: HostInfo,
}

/// The reply of `Save`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// TOML.
    pub text: String,
    /// The same as an object.
    #[serde(default)]
    pub config: Value,
}
