//! What a link does beyond carrying packets: endpoints with types and labels, policy, NAT, services, classes.
//!
//! Owns how these fit a link and how long the options are that follow from them. What each of them
//! decides is its own module's; in which order they are asked is [`crate::datapath`]'s.

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

/// A user-defined option with the data that it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedOption {
    /// The option's class.
    pub class: OptionClass,
    /// The option's type.
    pub kind: OptionType,
    /// The data, a multiple of 4 bytes long, at most 124.
    pub data: Vec<u8>,
}

/// Another endpoint that a proxied one stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyTarget {
    /// Its overlay address.
    pub addr: IpAddr,
    /// The link of its VPC.
    pub link: LinkIndex,
}

/// What is configured of one overlay address, beyond the hosts that it is on.
#[derive(Clone, Debug, Default)]
pub struct EndpointConfig {
    /// What it is.
    pub kind: EndpointType,
    /// Its labels, where they are known.
    pub labels: Option<LabelSet>,
    /// The id of its QoS class.
    pub class: Option<u8>,
    /// The rate of what it sends.
    pub rate: Option<Arc<Bucket>>,
    /// What a proxied endpoint of this host stands for.
    pub target: Option<ProxyTarget>,
    /// A scaled endpoint that is here, too, and preferred here.
    pub colocated: bool,
    /// It lives on this host.
    pub local: bool,
    /// Its MAC address, where the configuration says so.
    pub lladdr: Option<Mac>,
    /// Options that its packets carry.
    pub options: Vec<AttachedOption>,
}

/// Everything that a link does beyond carrying packets. The default does nothing.
#[derive(Clone, Debug, Default)]
pub struct LinkFunctions {
    /// Endpoints by their overlay address.
    pub endpoints: HashMap<IpAddr, EndpointConfig>,
    /// The rules; `None` allows everything.
    pub policy: Option<Arc<Policy>>,
    /// Address translation.
    pub nat: Option<Arc<Nat>>,
    /// Virtual addresses with backends.
    pub services: Option<Arc<ServiceTable>>,
    /// QoS classes.
    pub classes: Vec<Arc<QosClass>>,
    /// The link's own rate on the way out.
    pub rate: Option<Arc<Bucket>>,
    /// The same on the way in: the two directions do not share a rate.
    pub rate_ingress: Option<Arc<Bucket>>,
    /// Options that every packet carries.
    pub options: Vec<AttachedOption>,
    /// Addresses and ports of this host in the VPC, a rule for all sources of each family: what stands in elsewhere for an
    /// endpoint of this VPC uses them.
    pub stand_ins: Option<Arc<Nat>>,
    /// Whether packets say what labels their source has.
    pub labels: bool,
    /// Whether a receiver must enforce labels (type 0x82 instead of 0x02).
    pub labels_critical: bool,
    /// Whether a route of the link leads to a gateway.
    pub gateway: bool,
}

impl LinkFunctions {
    /// The class with this id.
    #[inline]
    #[must_use]
    pub fn class(&self, id: u8) -> Option<&Arc<QosClass>> {
        self.classes.iter().find(|class| class.id == id)
    }

    /// What the proxied endpoint `addr` of this host stands for.
    #[must_use]
    pub fn target(&self, addr: IpAddr) -> Option<ProxyTarget> {
        self.endpoints.get(&addr)?.target
    }

    /// Whether what becomes of a packet in this direction may depend on its ports: where it does not, a fragment without
    /// them is decided by its addresses and its protocol.
    #[inline]
    #[must_use]
    pub fn needs_ports(&self, direction: Direction) -> bool {
        let policy = self.policy.as_ref();
        self.nat.is_some()
            || self.services.is_some()
            || policy.is_some_and(|policy| policy.asks_transport(direction))
    }

    /// Whether `addr` is nobody's but stands for others by translation: an outside address of NAT.
    #[must_use]
    pub fn translates(&self, addr: IpAddr) -> bool {
        let nat = self.nat.as_ref();
        nat.is_some_and(|nat| nat.has_outside(addr)) && !self.endpoints.contains_key(&addr)
    }

    /// Whether `addr` is nobody's and this host answers for it all the same: an outside address of NAT, or the virtual
    /// address of a service.
    #[must_use]
    pub fn answers_for(&self, addr: IpAddr) -> bool {
        let services = self.services.as_ref();
        let vip = services.is_some_and(|services| services.by_vip(addr));
        self.translates(addr) || vip && !self.endpoints.contains_key(&addr)
    }

    /// Bytes of the longest options that the link may send (RFC 8926 section 4.4.1).
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

    /// Whether the longest options fit a packet.
    #[must_use]
    pub fn options_fit(&self) -> bool {
        self.options_len() <= MAX_OPTIONS_LEN
    }
}

/// What the options of a link's packets may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptionLengths {
    /// Bytes of the user-defined options of every packet, with their headers.
    pub link: usize,
    /// The most bytes of those of one endpoint of this host.
    pub endpoint: usize,
    /// Whether any endpoint or route has a type.
    pub typed: bool,
    /// The most labels of an endpoint of this host, where packets carry labels.
    pub labels: Option<usize>,
    /// Whether there are QoS classes.
    pub class: bool,
    /// Whether packets are relayed to the backends of services.
    pub relays: bool,
    /// Whether packets are relayed to where address translation sends them.
    pub translates: bool,
}

impl OptionLengths {
    /// The longest options, in bytes.
    #[must_use]
    pub fn sum(&self) -> usize {
        let relays = self.relays || self.translates;
        let labels = match (self.labels, relays) {
            (None, _) => 0,
            // What is relayed keeps the labels of its source, which another host chose.
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

/// Bytes of user-defined options with their headers.
fn attached(list: &[AttachedOption]) -> usize {
    list.iter().map(|a| OPTION_HEADER_LEN + a.data.len()).sum()
}
