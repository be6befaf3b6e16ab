//! What is said on the control socket: Varlink calls, replies and errors.
//!
//! Owns the types of the interface `io.geneved.Control1`, which `io.geneved.Control1.varlink`
//! describes for others. A change that an existing client could not read makes it `Control2`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::state::Refusal;
use crate::config::value::IfName;
use crate::config::words::{Change, EndpointWords, LinkWords, RouteWords};

/// The interface's name.
pub const INTERFACE: &str = "io.geneved.Control1";
/// The interface's description, in Varlink's own language.
pub const DESCRIPTION: &str = include_str!("io.geneved.Control1.varlink");
/// The interface that every Varlink service has.
pub const SERVICE_INTERFACE: &str = "org.varlink.service";

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
    /// All endpoints, or those of a link.
    ListEndpoints {
        /// Which link.
        dev: Option<IfName>,
    },
    /// The daemon's own state.
    GetHost,
    /// Read the configuration again.
    Reload,
    /// The running state as a configuration.
    Save,
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
            "ListEndpoints" => {
                arguments::<Dev>(call.parameters).map(|Dev { dev }| Request::ListEndpoints { dev })
            }
            "GetHost" => Ok(Request::GetHost),
            "Reload" => Ok(Request::Reload),
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
            Request::ListEndpoints { dev } => {
                ("ListEndpoints", json(serde_json::to_value(Dev { dev })))
            }
            Request::GetHost => ("GetHost", Value::Null),
            Request::Reload => ("Reload", Value::Null),
            Request::Save => ("Save", Value::Null),
        };
        Call {
            method: format!("{INTERFACE}.{method}"),
            parameters,
            oneway: false,
            more: false,
        }
    }
}

/// The reply of `Apply` and `Reload`.
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
    pub endpoints: Vec<EndpointWords>,
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
}

/// A link as it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// Every setting, defaults included.
    pub settings: LinkWords,
    /// `running`, or `lost` when the interface vanished under the daemon.
    pub state: String,
    /// Why it is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The interface's number in its namespace.
    pub ifindex: u32,
    /// The kernel's flags, as `ip link` names them.
    pub flags: Vec<String>,
    /// The kernel's operational state, as `ip link` names it.
    pub operstate: String,
    /// The interface's MTU in bytes.
    pub mtu: u32,
    /// The interface's queue length in packets.
    pub txqlen: u32,
    /// How the MTU came about.
    pub mtu_sum: MtuSum,
    /// The backend that moves its packets.
    pub io: String,
    /// Its counters.
    pub traffic: Traffic,
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
pub struct Traffic {
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
}

/// A route as it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteInfo {
    /// The route.
    pub route: RouteWords,
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
    pub traffic: Traffic,
    /// The hosts that any link knows.
    pub remotes: Vec<RemoteInfo>,
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

/// Another host, and what was learned about the way to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteInfo {
    /// Its underlay address.
    pub address: IpAddr,
    /// The path MTU that the underlay reported, in bytes of outer IP packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_mtu: Option<u32>,
    /// Whether trains are sent with `UDP_SEGMENT`.
    pub gso: bool,
    /// The links that know it.
    pub links: Vec<IfName>,
}
