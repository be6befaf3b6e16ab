//! Services and their backends as shown on the control socket.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::args::ServiceArgs;

/// The reply of `ListServices`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicesReply {
    /// Sorted by link, then by name.
    pub services: Vec<ServiceInfo>,
}

/// A service with the state of its backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// The service.
    pub service: ServiceArgs,
    /// Its backends with all values resolved, in configuration order.
    pub backends: Vec<BackendInfo>,
}

/// Health of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendHealth {
    /// Receives new flows.
    Up,
    /// Receives no new flows because it does not answer.
    Down,
    /// Not checked yet; receives new flows.
    Unknown,
    /// Keeps its flows but receives no new ones, because its weight is 0.
    Draining,
}

/// A backend of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendInfo {
    /// Its overlay address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its weight.
    pub weight: u16,
    /// Its health.
    pub health: BackendHealth,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
