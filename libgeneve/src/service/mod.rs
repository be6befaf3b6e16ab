//! Services: a virtual address in front of backends, and which backend a new flow gets.
//!
//! Owns the definition of a service, its check, and the choice among its backends. It keeps no flows:
//! that an established flow stays with its backend is the flow table's doing, which asks
//! [`Service::keeps`] after a change of configuration. Rewriting the packet is the datapath's work,
//! and finding out whether a backend is healthy is the daemon's.

pub mod maglev;

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::net::IpAddr;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use self::maglev::{FlowId, MAX_MEMBERS, Maglev};
use crate::wire::ip::protocol::{TCP, UDP};

/// One of the addresses that answer for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its address in the VPC, of the virtual address's family.
    pub addr: IpAddr,
    /// Its port, 1 to 65,535; `None` where it is the service's.
    pub port: Option<u16>,
    /// Its part of the new flows, in proportion to the other weights; 0 drains it: established flows stay, new ones do not come.
    pub weight: u32,
    /// Whether its health check passes. One that fails gets no new flows and keeps no established ones.
    pub healthy: bool,
}

/// Whether flows of one client belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Affinity {
    /// Every flow is placed by its 5-tuple.
    #[default]
    None,
    /// All flows of a client address reach one backend.
    Client,
}

/// What a service is, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Its name, unique on the link.
    pub name: String,
    /// The virtual address that clients ask for.
    pub vip: IpAddr,
    /// The IP protocol number.
    pub protocol: u8,
    /// The port that clients ask for: 1 to 65,535 for TCP and UDP, 0 for all others.
    pub port: u16,
    /// What answers; at most [`MAX_MEMBERS`].
    pub backends: Vec<Backend>,
    /// Whether flows of one client belong together.
    pub affinity: Affinity,
}

/// Why a service is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// Two services would answer for one address, protocol and port.
    #[error(
        "services \"{first}\" and \"{second}\" both answer for {vip} protocol {protocol} port {port}"
    )]
    Duplicate {
        /// The service that comes first.
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
    /// Two services have one name.
    #[error("there are two services named \"{0}\"")]
    Name(String),
    /// A port is missing, or is there although the protocol has none.
    #[error("service \"{service}\": {}", if *wanted { "TCP and UDP need a port, 1 to 65535" } else { "only TCP and UDP have ports" })]
    Port {
        /// The service.
        service: String,
        /// Whether its protocol has ports.
        wanted: bool,
    },
    /// A backend is of another address family than the virtual address.
    #[error("service \"{service}\": backend {backend} is of another address family than {vip}")]
    Family {
        /// The service.
        service: String,
        /// The backend.
        backend: IpAddr,
        /// The virtual address.
        vip: IpAddr,
    },
    /// A backend is the service's own virtual address.
    #[error("service \"{service}\": backend {backend} is its own virtual address")]
    Itself {
        /// The service.
        service: String,
        /// The backend.
        backend: IpAddr,
    },
    /// A backend is listed twice.
    #[error("service \"{service}\": backend {backend} is listed twice")]
    Backend {
        /// The service.
        service: String,
        /// The backend.
        backend: IpAddr,
    },
    /// The list of backends is too long.
    #[error("service \"{service}\": {count} backends; {MAX_MEMBERS} are the most")]
    TooMany {
        /// The service.
        service: String,
        /// How many it lists.
        count: usize,
    },
}

impl ServiceConfig {
    /// The port of `backend` on the wire; 0 for protocols without ports.
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

/// One service, ready for the packet path.
#[derive(Debug)]
pub struct Service {
    /// What it was built from.
    pub config: ServiceConfig,
    /// `None` where no backend is healthy and not drained.
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

    /// The backend of a new flow from `client`, and its place in the list; `None` where none is healthy and
    /// not drained. All hosts that know the same backends choose alike. `client_port` is 0 for protocols
    /// without ports.
    #[inline]
    #[must_use]
    pub fn pick(&self, client: IpAddr, client_port: u16) -> Option<(usize, &Backend)> {
        let flow = FlowId {
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

    /// Whether an established flow may stay with the backend at this address and port (0 for protocols
    /// without ports): it is listed and healthy, drained or not.
    #[must_use]
    pub fn keeps(&self, addr: IpAddr, port: u16) -> bool {
        let this = |b: &Backend| b.addr == addr && self.config.port_of(b) == port;
        self.config.backends.iter().any(|b| b.healthy && this(b))
    }

    /// Whether new flows find a backend.
    #[must_use]
    pub fn available(&self) -> bool {
        self.table.is_some()
    }
}

/// What tells a backend from others, on all hosts alike.
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

type Fixed = BuildHasherDefault<SipHasher13>;

/// The services of one link.
#[derive(Debug, Default)]
pub struct Services {
    by_key: HashMap<(IpAddr, u8, u16), Arc<Service>, Fixed>,
    vips: HashSet<IpAddr, Fixed>,
}

impl Services {
    /// Compiles the services of a link. One that is in `previous` just as it is here is taken from there, as
    /// building a table takes about a millisecond.
    ///
    /// # Errors
    /// The first service that contradicts itself or another one.
    pub fn new(
        configs: impl IntoIterator<Item = ServiceConfig>,
        previous: Option<&Services>,
    ) -> Result<Self, ServiceError> {
        let mut services = Services::default();
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

    /// The service that answers for this destination; `port` is 0 for protocols without ports.
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

    /// Every service, in no order.
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
