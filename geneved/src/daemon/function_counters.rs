//! Run-time counters of network functions.

use libgeneve::nat::PortUsage;
use libgeneve::options::KnownOption;
use libgeneve::qos::ClassStats;
use libgeneve::vpc::Link;
use std::sync::Arc;

use super::compile::proxies_into;
use super::core::{Core, CoreState};
use crate::config::value::{IfName, ObjectName};
use crate::io::TrafficDirection;

impl Core {
    /// Number of flows that a rule decided.
    pub(super) fn policy_hits(&self, inner: &CoreState, dev: &IfName, name: &ObjectName) -> u64 {
        inner.builder.compiler.hits(dev, name.as_str())
    }

    /// Ports of a NAT rule's pool: in use, and in total.
    pub(super) fn nat_ports(
        &self,
        inner: &CoreState,
        dev: &IfName,
        name: &ObjectName,
    ) -> (u64, u64) {
        let Some(link) = self.compiled(inner, dev) else {
            return (0, 0);
        };
        let nat = link.config.functions.nat.as_ref();
        let usage = nat.and_then(|nat| nat.usages().find(|(rule, _)| *rule == name.as_str()));
        usage.map_or((0, 0), |(_, usage)| (usage.in_use, usage.total))
    }

    /// Ports that stand for the clients of one link at proxied endpoints with targets on another: those in use, and
    /// the share of the link. By target link and client link.
    pub(super) fn proxy_ports(&self, inner: &CoreState) -> Vec<(IfName, IfName, PortUsage)> {
        let mut found = Vec::new();
        for (target, running) in &inner.running {
            let link = self.engine().tables().link(running.index).map(Arc::clone);
            let pools = link.and_then(|link| link.config.functions.stand_ins.clone());
            let Some(pools) = pools else { continue };
            for consumer in proxies_into(&inner.state, target) {
                let index = inner.running.get(consumer).map(|running| running.index);
                let usage = index.and_then(|index| pools.usage_of_share(index));
                found.extend(usage.map(|usage| (target.clone(), consumer.clone(), usage)));
            }
        }
        found
    }

    /// Byte counters of a class.
    pub(super) fn class_bytes(
        &self,
        inner: &CoreState,
        dev: &IfName,
        name: &ObjectName,
    ) -> ClassStats {
        let link = self.compiled(inner, dev);
        let classes = link
            .map(|l| l.config.functions.classes.clone())
            .unwrap_or_default();
        let class = classes.iter().find(|c| c.name == name.as_str());
        class.map_or_else(ClassStats::default, |c| c.tally.read())
    }

    /// Packets received and sent with a defined option.
    pub(super) fn option_packets(&self, inner: &CoreState, name: &ObjectName) -> (u64, u64) {
        let Some(place) = inner.state.options.keys().position(|n| n == name) else {
            return (0, 0);
        };
        let slot = KnownOption::Defined(u8::try_from(place).unwrap_or(u8::MAX)).slot();
        let mut sum = (0, 0);
        for running in inner.running.values() {
            let counters = self.engine().link_counters(running.index);
            sum.0 += counters.option(TrafficDirection::Ingress, slot);
            sum.1 += counters.option(TrafficDirection::Egress, slot);
        }
        sum
    }

    /// The compiled link, as the workers see it.
    fn compiled(&self, inner: &CoreState, dev: &IfName) -> Option<Arc<Link>> {
        let running = inner.running.get(dev)?;
        self.engine().tables().link(running.index).map(Arc::clone)
    }
}
