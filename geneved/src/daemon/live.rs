//! What functions do right now: counters, flows, and traces of packets.

use std::net::IpAddr;

use super::core::{Core, Inner};
use crate::config::state::Refusal;
use crate::config::value::{IfName, Name};
use crate::config::words::{FlowFilter, TraceWords};
use crate::control::protocol::{Flows, Flushed, Health, Trace};

impl Core {
    /// How many flows a rule decided.
    pub(super) fn policy_hits(&self, _: &Inner, _dev: &IfName, _name: &Name) -> u64 {
        0
    }

    /// Ports of a translation's pool: handed out, and in all.
    pub(super) fn nat_ports(&self, _: &Inner, _dev: &IfName, _name: &Name) -> (u64, u64) {
        (0, 0)
    }

    /// How a backend whose weight is not 0 is, and why it is down.
    pub(super) fn backend_health(
        &self,
        _: &Inner,
        _dev: &IfName,
        _addr: IpAddr,
        _port: u16,
    ) -> (Health, Option<String>) {
        (Health::Unknown, None)
    }

    /// Bytes that passed a class, and that were over its rate.
    pub(super) fn class_bytes(&self, _: &Inner, _dev: &IfName, _name: &Name) -> (u64, u64) {
        (0, 0)
    }

    /// Packets that were received and sent with a defined option.
    pub(super) fn option_packets(&self, _: &Inner, _name: &Name) -> (u64, u64) {
        (0, 0)
    }

    /// The flows that a filter lets through, at most `limit`.
    pub(super) async fn list_flows(
        &self,
        filter: FlowFilter,
        _limit: u32,
    ) -> Result<Flows, Refusal> {
        let inner = self.inner().await;
        super::show::check(&inner, filter.dev.as_ref())?;
        Ok(Flows::default())
    }

    /// Forgets the flows that a filter lets through.
    pub(super) async fn flush_flows(&self, filter: FlowFilter) -> Result<Flushed, Refusal> {
        let inner = self.inner().await;
        super::show::check(&inner, filter.dev.as_ref())?;
        Ok(Flushed::default())
    }

    /// What would happen to a packet.
    pub(super) async fn trace(&self, packet: TraceWords) -> Result<Trace, Refusal> {
        let inner = self.inner().await;
        super::show::check(&inner, Some(&packet.dev))?;
        Err(Refusal::new(
            "this daemon keeps no flows, so it cannot trace",
            "",
        ))
    }
}
