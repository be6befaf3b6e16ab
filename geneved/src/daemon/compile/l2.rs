//! What the packet path reads of an Ethernet link; what was learned outlives a change of configuration.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use libgeneve::l2::{BridgeConfig, FdbLimits, LearnedState, OwnerConfig};
use libgeneve::policy::PolicyDefaults;
use libgeneve::qos::Bucket;

use super::rules::default_action;
use super::{Compiler, lladdr};
use crate::config::state::{DesiredState, EndpointSpec, LinkSpec};
use crate::config::value::ModeValue;

/// What an Ethernet link keeps from one configuration to the next.
pub(super) struct RetainedBridge {
    live: Arc<LearnedState>,
    /// The bucket of what is flooded, and the rate that it was made for.
    flood: (u32, Arc<Bucket>),
}

impl RetainedBridge {
    fn new(key: [u64; 2], rate: u32) -> Self {
        RetainedBridge {
            live: Arc::new(LearnedState::new(key)),
            flood: (rate, bucket(rate)),
        }
    }
}

/// Frames, not bytes, are what it counts; a second's worth may come at once.
fn bucket(rate: u32) -> Arc<Bucket> {
    let rate = match rate {
        0 => u64::from(u32::MAX),
        rate => rate.into(),
    };
    Arc::new(Bucket::new(rate, rate))
}

impl Compiler {
    /// The bridge of a link, where it is one.
    pub(super) fn bridge(&mut self, state: &DesiredState, link: &LinkSpec) -> Option<BridgeConfig> {
        if link.mode != ModeValue::Ethernet {
            return None;
        }
        let bridging = link.bridging;
        let rate = bridging.flood_rate;
        let key = || self.keys.of(&format!("stations of {}", link.name));
        let kept = self.bridges.entry(link.name.clone());
        let kept = kept.or_insert_with(|| RetainedBridge::new(key(), rate));
        if kept.flood.0 != rate {
            kept.flood = (rate, bucket(rate));
        }
        let entries = state.fdb_of(&link.name);
        let entries = entries
            .filter(|(mac, _)| mac.is_multicast() || mac.is_unicast())
            .map(|(mac, entry)| (mac, entry.hosts.clone()));
        let owners = state.endpoints_of(&link.name);
        Some(BridgeConfig {
            mac: lladdr(link),
            learning: bridging.learning,
            limits: FdbLimits {
                entries: bridging.max_addresses,
                ageing: Duration::from_secs(bridging.ageing.into()),
            },
            entries: entries.collect(),
            flood: state.flood_list(link),
            flood_rate: Arc::clone(&kept.flood.1),
            owners: owners.map(|(addr, e)| owner(addr, e)).collect(),
            others: PolicyDefaults {
                ingress: default_action(link.ingress),
                egress: default_action(link.egress),
            },
            live: Arc::clone(&kept.live),
        })
    }
}

fn owner(addr: IpAddr, endpoint: &EndpointSpec) -> OwnerConfig {
    OwnerConfig {
        addr,
        mac: endpoint.lladdr,
        host: endpoint.hosts.first().copied(),
    }
}
