//! Services: a virtual address in front of backends, and the choice of a backend for a new flow.
//!
//! Owns the definition of a service, its validation, and the choice among its backends. It keeps no flows: the flow
//! table keeps an established flow on its backend, and asks [`Service::keeps`] after a configuration change. The
//! datapath rewrites packets, and the daemon runs health checks.

pub mod maglev;

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::net::IpAddr;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use self::maglev::{BalancingKey, MAX_MEMBERS, Maglev};
use crate::wire::ip::protocol::{TCP, UDP};

/// Backend of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Address in the VPC, of the virtual address's family.
    pub addr: IpAddr,
    /// Port, 1 to 65,535; `None` to use the service's.
    pub port: Option<u16>,
    /// Share of the new flows, relative to the other weights; 0 drains the backend: it keeps established flows and
    /// gets no new ones.
    pub weight: u32,
    /// Whether its health check passes. An unhealthy backend gets no new flows and keeps no established ones.
    pub healthy: bool,
}

/// Client affinity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Affinity {
    /// Each flow is placed by its 5-tuple.
    #[default]
    None,
    /// All flows from a client address go to one backend.
    Client,
}

/// Configuration of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Name, unique on the link.
    pub name: String,
    /// Virtual address.
    pub vip: IpAddr,
    /// The IP protocol number.
    pub protocol: u8,
    /// Virtual port: 1 to 65,535 for TCP and UDP, 0 for all other protocols.
    pub port: u16,
    /// Backends; at most [`MAX_MEMBERS`].
    pub backends: Vec<Backend>,
    /// Client affinity.
    pub affinity: Affinity,
}

/// Why a service is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// Two services have the same address, protocol and port.
    #[error(
        "services \"{first}\" and \"{second}\" both answer for {vip} protocol {protocol} port {port}"
    )]
    Duplicate {
        /// The first service.
        first: String,
        /// The other one.
        second: String,
        /// Their virtual address.
        vip: IpAddr,
        /// Their protocol.
        protocol: u8,
        /// Their port.
        port: u16,
    },
    /// Two services have the same name.
    #[error("there are two services named \"{0}\"")]
    Name(String),
    /// The port is missing, or given for a protocol without ports.
    #[error("service \"{service}\": {}", if *wanted { "TCP and UDP need a port, 1 to 65535" } else { "only TCP and UDP have ports" })]
    Port {
        /// The service.
        service: String,
        /// Whether its protocol has ports.
        wanted: bool,
    },
    /// The backend's address family differs from the virtual address's.
    #[error("service \"{service}\": backend {backend} is of another address family than {vip}")]
    Family {
        /// The service.
        service: String,
        /// The backend.
        backend: IpAddr,
        /// The virtual address.
        vip: IpAddr,
    },
    /// The backend is the service's own virtual address.
    #[error("service \"{service}\": backend {backend} is its own virtual address")]
    Itself {
        /// The service.
        service: String,
        /// The backend.
        backend: IpAddr,
    },
    /// The backend is listed twice.
    #[error("service \"{service}\": backend {backend} is listed twice")]
    Backend {
        /// The service.
        service: String,
        /// The backend.
        backend: IpAddr,
    },
    /// Too many backends.
    #[error("service \"{service}\": {count} backends; {MAX_MEMBERS} are the most")]
    TooMany {
        /// The service.
        service: String,
        /// How many it lists.
        count: usize,
    },
}

impl ServiceConfig {
    /// Returns the port of `backend` on the wire; 0 for protocols without ports.
    #[must_use]
    pub fn port_of(&self, backend: &Backend) -> u16 {
        backend.port.unwrap_or(self.port)
    }

    fn check(&self) -> Result<(), ServiceError> {
        let service = || self.name.clone();
        if self.backends.len() > MAX_MEMBERS {
            return Err(ServiceError::TooMany {
                service: service(),
                count: self.backends.len(),
            });
        }
        let wanted = matches!(self.protocol, TCP | UDP);
        let port_fits = (self.port != 0) == wanted;
        let backend_ports_fit = |b: &Backend| b.port.is_none_or(|port| wanted && port != 0);
        if !port_fits || !self.backends.iter().all(backend_ports_fit) {
            return Err(ServiceError::Port {
                service: service(),
                wanted,
            });
        }
        let mut seen = HashSet::with_capacity(self.backends.len());
        for backend in &self.backends {
            if backend.addr.is_ipv4() != self.vip.is_ipv4() {
                return Err(ServiceError::Family {
                    service: service(),
                    backend: backend.addr,
                    vip: self.vip,
                });
            }
            if backend.addr == self.vip {
                return Err(ServiceError::Itself {
                    service: service(),
                    backend: backend.addr,
                });
            }
            if !seen.insert((backend.addr, self.port_of(backend))) {
                return Err(ServiceError::Backend {
                    service: service(),
                    backend: backend.addr,
                });
            }
        }
        Ok(())
    }
}

/// Service as the packet path uses it.
#[derive(Debug)]
pub struct Service {
    /// Configuration that it was built from.
    pub config: ServiceConfig,
    /// `None` if no backend is available: healthy and not drained.
    table: Option<Maglev>,
}

impl Service {
    fn new(config: ServiceConfig) -> Self {
        let members: Vec<([u8; 18], u32)> = config
            .backends
            .iter()
            .map(|backend| {
                let weight = if backend.healthy { backend.weight } else { 0 };
                (identity(backend.addr, config.port_of(backend)), weight)
            })
            .collect();
        Service {
            table: Maglev::new(&members),
            config,
        }
    }

    /// Picks the backend for a new flow from `client`, and its index in the list; `None` if none is healthy and not
    /// drained. All hosts that know the same backends make the same choice. `client_port` is 0 for protocols without
    /// ports.
    #[inline]
    #[must_use]
    pub fn pick(&self, client: IpAddr, client_port: u16) -> Option<(usize, &Backend)> {
        let flow = BalancingKey {
            client,
            dst: self.config.vip,
            protocol: self.config.protocol,
            client_port,
            dst_port: self.config.port,
        };
        let hash = match self.config.affinity {
            Affinity::None => flow.hash(),
            Affinity::Client => flow.client_hash(),
        };
        let index = self.table.as_ref()?.pick(hash);
        Some((index, self.config.backends.get(index)?))
    }

    /// Whether an established flow may stay with the backend at this address and port (0 for protocols without
    /// ports): it is listed and healthy, drained or not.
    #[must_use]
    pub fn keeps(&self, addr: IpAddr, port: u16) -> bool {
        let this = |b: &Backend| b.addr == addr && self.config.port_of(b) == port;
        self.config.backends.iter().any(|b| b.healthy && this(b))
    }

    /// Whether a backend is available to new flows.
    #[must_use]
    pub fn available(&self) -> bool {
        self.table.is_some()
    }
}

/// Identity of a backend, the same on all hosts.
fn identity(addr: IpAddr, port: u16) -> [u8; 18] {
    let mut id = [0; 18];
    let addr = match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped(),
        IpAddr::V6(addr) => addr,
    };
    id[..16].copy_from_slice(&addr.octets());
    id[16..].copy_from_slice(&port.to_be_bytes());
    id
}

type FixedHasher = BuildHasherDefault<SipHasher13>;

/// Services of one link.
#[derive(Debug, Default)]
pub struct ServiceTable {
    by_key: HashMap<(IpAddr, u8, u16), Arc<Service>, FixedHasher>,
    vips: HashSet<IpAddr, FixedHasher>,
}

impl ServiceTable {
    /// Compiles the services of a link. Unchanged services are taken from `previous`, because building a table takes
    /// about a millisecond.
    ///
    /// # Errors
    /// The first service that is invalid or conflicts with another one.
    pub fn new(
        configs: impl IntoIterator<Item = ServiceConfig>,
        previous: Option<&ServiceTable>,
    ) -> Result<Self, ServiceError> {
        let mut services = ServiceTable::default();
        let mut names = HashSet::new();
        for config in configs {
            config.check()?;
            if !names.insert(config.name.clone()) {
                return Err(ServiceError::Name(config.name));
            }
            let key = (config.vip, config.protocol, config.port);
            if let Some(first) = services.by_key.get(&key) {
                return Err(ServiceError::Duplicate {
                    first: first.config.name.clone(),
                    second: config.name,
                    vip: config.vip,
                    protocol: config.protocol,
                    port: config.port,
                });
            }
            let known = previous
                .and_then(|p| p.by_key.get(&key))
                .filter(|known| known.config == config);
            let service = known.map_or_else(|| Arc::new(Service::new(config)), Arc::clone);
            services.vips.insert(key.0);
            services.by_key.insert(key, service);
        }
        Ok(services)
    }

    /// Returns the service at this destination; `port` is 0 for protocols without ports.
    #[inline]
    #[must_use]
    pub fn find(&self, dst: IpAddr, protocol: u8, port: u16) -> Option<&Arc<Service>> {
        if self.by_key.is_empty() {
            return None;
        }
        self.by_key.get(&(dst, protocol, port))
    }

    /// Whether any service has this virtual address.
    #[inline]
    #[must_use]
    pub fn by_vip(&self, addr: IpAddr) -> bool {
        !self.vips.is_empty() && self.vips.contains(&addr)
    }

    /// All services, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_key.values()
    }

    /// Whether the link has no services.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
