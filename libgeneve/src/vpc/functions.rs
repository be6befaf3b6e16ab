//! Functions of a link beyond carrying packets: endpoints with types and labels, policy, NAT, services, classes.
//!
//! Owns how they belong to a link, and the length of the options that they need. Each module decides for its own
//! function; [`crate::datapath`] has the order in which they are applied.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::LinkIndex;
use crate::label::{LabelSet, MAX_LABELS};
use crate::nat::Nat;
use crate::options::{ClassOption, EndpointOption, EndpointType, ServiceOption};
use crate::policy::{Direction, Policy};
use crate::qos::{Bucket, QosClass};
use crate::service::ServiceTable;
use crate::wire::ethernet::Mac;
use crate::wire::option::{MAX_OPTIONS_LEN, OPTION_HEADER_LEN, OptionClass, OptionType};

/// Bytes of a label on the wire.
const LABEL_OPTION_LEN: usize = 8;

/// A user-defined option with its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedOption {
    /// The option's class.
    pub class: OptionClass,
    /// The option's type.
    pub kind: OptionType,
    /// The data: 0 to 124 bytes, a multiple of 4.
    pub data: Vec<u8>,
}

/// The endpoint that a proxied endpoint stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyTarget {
    /// Its overlay address.
    pub addr: IpAddr,
    /// The link of its VPC.
    pub link: LinkIndex,
}

/// Configuration of one overlay address, apart from its hosts.
#[derive(Clone, Debug, Default)]
pub struct EndpointConfig {
    /// The endpoint's type.
    pub kind: EndpointType,
    /// Its labels, if known.
    pub labels: Option<LabelSet>,
    /// ID of its QoS class.
    pub class: Option<u8>,
    /// Rate limit for what it sends.
    pub rate: Option<Arc<Bucket>>,
    /// For a proxied endpoint of this host: the endpoint that it stands for.
    pub target: Option<ProxyTarget>,
    /// A scaled endpoint that is also on this host, which is preferred.
    pub colocated: bool,
    /// Whether it is on this host.
    pub local: bool,
    /// Its MAC address, if configured.
    pub lladdr: Option<Mac>,
    /// Options that are attached to its packets.
    pub options: Vec<AttachedOption>,
}

/// All functions of a link. The default has none.
#[derive(Clone, Debug, Default)]
pub struct LinkFunctions {
    /// Endpoints by their overlay address.
    pub endpoints: HashMap<IpAddr, EndpointConfig>,
    /// Policy; `None` allows everything.
    pub policy: Option<Arc<Policy>>,
    /// NAT rules and pools.
    pub nat: Option<Arc<Nat>>,
    /// Virtual addresses and their backends.
    pub services: Option<Arc<ServiceTable>>,
    /// QoS classes.
    pub classes: Vec<Arc<QosClass>>,
    /// The link's egress rate limit.
    pub rate: Option<Arc<Bucket>>,
    /// The link's ingress rate limit; the two directions do not share a bucket.
    pub rate_ingress: Option<Arc<Bucket>>,
    /// Options that are attached to every packet.
    pub options: Vec<AttachedOption>,
    /// Addresses and ports of this host in the VPC, one rule for all sources of each family: source NAT for packets that
    /// reach an endpoint of this VPC through a proxied endpoint of another.
    pub stand_ins: Option<Arc<Nat>>,
    /// Whether packets carry the labels of their source.
    pub labels: bool,
    /// Whether a receiver must enforce labels (type 0x82 instead of 0x02).
    pub labels_critical: bool,
    /// Whether a route of the link leads to a gateway.
    pub gateway: bool,
}

impl LinkFunctions {
    /// Returns the class with this ID.
    #[inline]
    #[must_use]
    pub fn class(&self, id: u8) -> Option<&Arc<QosClass>> {
        self.classes.iter().find(|class| class.id == id)
    }

    /// Returns the endpoint that the proxied endpoint `addr` of this host stands for.
    #[must_use]
    pub fn target(&self, addr: IpAddr) -> Option<ProxyTarget> {
        self.endpoints.get(&addr)?.target
    }

    /// Whether the verdict on a packet in this direction may depend on its ports. If not, a fragment without ports is
    /// decided by its addresses and its protocol.
    #[inline]
    #[must_use]
    pub fn needs_ports(&self, direction: Direction) -> bool {
        let policy = self.policy.as_ref();
        self.nat.is_some()
            || self.services.is_some()
            || policy.is_some_and(|policy| policy.asks_transport(direction))
    }

    /// Whether `addr` is an outside address of NAT and not an endpoint.
    #[must_use]
    pub fn translates(&self, addr: IpAddr) -> bool {
        let nat = self.nat.as_ref();
        nat.is_some_and(|nat| nat.has_outside(addr)) && !self.endpoints.contains_key(&addr)
    }

    /// Whether this host answers for `addr` although no endpoint has it: an outside address of NAT, or the virtual
    /// address of a service.
    #[must_use]
    pub fn answers_for(&self, addr: IpAddr) -> bool {
        let services = self.services.as_ref();
        let vip = services.is_some_and(|services| services.by_vip(addr));
        self.translates(addr) || vip && !self.endpoints.contains_key(&addr)
    }

    /// Returns the length in bytes of the longest options that the link may send (RFC 8926 section 4.4.1).
    #[must_use]
    pub fn options_len(&self) -> usize {
        let local = || self.endpoints.values().filter(|e| e.local);
        let labels = local()
            .filter_map(|e| e.labels.as_ref())
            .map(|l| l.as_slice().len());
        OptionLengths {
            link: attached(&self.options),
            endpoint: local().map(|e| attached(&e.options)).max().unwrap_or(0),
            typed: self.gateway
                || self
                    .endpoints
                    .values()
                    .any(|e| e.kind != EndpointType::Simple),
            labels: self.labels.then(|| labels.max().unwrap_or(0)),
            class: !self.classes.is_empty(),
            relays: self.services.is_some(),
            translates: self.nat.is_some(),
        }
        .sum()
    }

    /// Whether the longest options fit into a header.
    #[must_use]
    pub fn options_fit(&self) -> bool {
        self.options_len() <= MAX_OPTIONS_LEN
    }
}

/// What determines the longest options of a link's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptionLengths {
    /// Bytes of the user-defined options of every packet, headers included.
    pub link: usize,
    /// Most bytes of user-defined options of one endpoint of this host, headers included.
    pub endpoint: usize,
    /// Whether any endpoint or route has a type other than simple.
    pub typed: bool,
    /// Most labels of one endpoint of this host, if packets carry labels.
    pub labels: Option<usize>,
    /// Whether there are QoS classes.
    pub class: bool,
    /// Whether packets are relayed to backends of services.
    pub relays: bool,
    /// Whether packets are relayed to translated destinations.
    pub translates: bool,
}

impl OptionLengths {
    /// Returns the length of the longest options, in bytes.
    #[must_use]
    pub fn sum(&self) -> usize {
        let relays = self.relays || self.translates;
        let labels = match (self.labels, relays) {
            (None, _) => 0,
            // A relayed packet keeps the labels of its source, which another host chose.
            (Some(_), true) => OPTION_HEADER_LEN + LABEL_OPTION_LEN * MAX_LABELS,
            (Some(most), false) => OPTION_HEADER_LEN + LABEL_OPTION_LEN * most,
        };
        let one = |there: bool, data: usize| if there { OPTION_HEADER_LEN + data } else { 0 };
        self.link
            + self.endpoint
            + labels
            + one(self.typed || relays, EndpointOption::LEN)
            + one(self.class, ClassOption::LEN)
            + one(self.relays, ServiceOption::LEN_V6)
    }
}

/// Bytes of user-defined options, headers included.
fn attached(list: &[AttachedOption]) -> usize {
    list.iter().map(|a| OPTION_HEADER_LEN + a.data.len()).sum()
}
