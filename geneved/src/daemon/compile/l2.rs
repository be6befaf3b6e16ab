//! Compiles Ethernet links; what was learned survives a change of configuration.

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

/// State of an Ethernet link that survives a new configuration.
pub(super) struct RetainedBridge {
    live: Arc<LearnedState>,
    /// Token bucket for flooded frames, and the rate it was created for.
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

/// Counts frames rather than bytes; the burst is one second's worth.
fn bucket(rate: u32) -> Arc<Bucket> {
    let rate = match rate {
        0 => u64::from(u32::MAX),
        rate => rate.into(),
    };
    Arc::new(Bucket::new(rate, rate))
}

impl Compiler {
    /// Compiles the bridge of an Ethernet link; `None` for other links.
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
