//! Services and their backends as they are shown.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::args::ServiceArgs;

/// The reply of `ListServices`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicesReply {
    /// By link, then by name.
    pub services: Vec<ServiceInfo>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// The service.
    pub service: ServiceArgs,
    /// Its backends, every value decided, in the order of their configuration.
    pub backends: Vec<BackendInfo>,
}

/// How a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendHealth {
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
    pub health: BackendHealth,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
