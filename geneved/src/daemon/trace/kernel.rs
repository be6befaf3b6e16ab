//! The kernel's part in a trace: it routes the packet into the link, to the host over the underlay, or from the link
//! to the outside.

use std::net::IpAddr;

use libgeneve::datapath::{TraceInput, TracePacket, TraceStage};
use libgeneve::flow::FlowKey;
use libgeneve::vpc::DeliveredAs;

use crate::config::state::LinkSpec;
use crate::config::value::ModeValue;
use crate::daemon::core::{Core, CoreState};
use crate::net::gateway::{Gateway, forwarding_setting};
use crate::net::host_path::{self, UnderlayDevices};

/// What happens to a datagram to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnderlayRoute {
    /// The kernel has a route.
    Routed,
    /// The kernel has a route, but recent ICMP errors say that nothing arrives.
    Unreachable,
    /// The kernel has no route, and refuses the datagram.
    NoRoute,
    /// It would loop, so it is not sent.
    Loop,
}

impl Core {
    /// The underlay path from this host to another.
    pub(super) async fn underlay(
        &self,
        inner: &CoreState,
        link: &LinkSpec,
        host: IpAddr,
        stages: &mut Vec<TraceStage>,
    ) -> UnderlayRoute {
        let mut tell = |result| {
            stages.push(TraceStage {
                stage: "underlay",
                result,
            });
        };
        if let Some(why) = inner.paths.loop_of(&link.name, host) {
            tell(format!("nothing is sent to {host}: {why}"));
            return UnderlayRoute::Loop;
        }
        let mut devices = UnderlayDevices::new();
        match host_path::query_host_path(self.netlink(), host, link.local, &mut devices).await {
            Err(error) => {
                let from = match link.local {
                    Some(local) => format!(" from {local}"),
                    None => String::new(),
                };
                tell(format!("the kernel has no route to {host}{from}: {error}"));
                return UnderlayRoute::NoRoute;
            }
            Ok(tunnel) => tell(format!("to {host} by {}, MTU {}", tunnel.dev(), tunnel.mtu)),
        }
        match inner
            .unreachable
            .of(host, self.engine().now(), inner.heard(host))
        {
            None => UnderlayRoute::Routed,
            Some((why, age)) => {
                tell(format!("nothing arrives at {host}: {why}, {age} s ago"));
                UnderlayRoute::Unreachable
            }
        }
    }
}

/// Whether this host's own packets to the destination would enter the link at all; `stays` means that the destination
/// is behind this host, so that they must not.
pub(super) async fn before(
    link: &LinkSpec,
    described: &TracePacket,
    stays: bool,
) -> Option<TraceStage> {
    let dst = described.key.dst;
    if link.mode != ModeValue::Ip || !matches!(described.trace_input, TraceInput::Egress) {
        return None;
    }
    let gateway = gateway_state(link, vec![dst]).await?;
    let leads = match gateway.route(dst) {
        _ if gateway.leads_in(dst) => return None,
        // This is as it should be; the decision says why.
        _ if stays => return None,
        Ok(dev) => format!("to {dev}"),
        Err(why) => format!("nowhere ({why})"),
    };
    let result = format!(
        "this host's packets to {dst} are routed {leads}, not to {}; \"{}\" changes that",
        link.name,
        gateway.route_command(dst)
    );
    Some(told(result))
}

/// What the kernel does with a packet from the wire that leaves the VPC through the link's interface.
pub(super) async fn after(
    link: &LinkSpec,
    key: &FlowKey,
    delivered: Option<DeliveredAs>,
    stages: &mut Vec<TraceStage>,
) {
    let own = link.addresses.iter().any(|net| net.addr() == key.dst);
    if link.mode != ModeValue::Ip || own {
        return;
    }
    if let Some(group @ (DeliveredAs::Broadcast | DeliveredAs::Multicast)) = delivered {
        stages.push(told(format!(
            "{} is {group}: whoever listens to it by {} gets it",
            key.dst, link.name
        )));
        return;
    }
    let Some(gateway) = gateway_state(link, vec![key.dst, key.src]).await else {
        return;
    };
    let (dst, src) = (key.dst, key.src);
    match gateway.route(dst) {
        Ok("lo") => return,
        _ if gateway.leads_in(dst) => stages.push(told(format!(
            "the kernel routes {dst} into {} again, where the packet came from",
            link.name
        ))),
        Ok(dev) if gateway.forwards(dst) => {
            stages.push(told(format!("the kernel forwards it to {dev}")));
        }
        Ok(_) => stages.push(told(format!(
            "the kernel does not forward it: {} is 0; \"{}\"",
            forwarding_setting(dst),
            gateway.forwarding_command(dst)
        ))),
        Err(why) => stages.push(told(format!("the kernel has no route to {dst}: {why}"))),
    }
    if !gateway.leads_in(src) {
        let leads = gateway.route(src).map_or("nowhere", |dev| dev);
        stages.push(told(format!(
            "replies to {src} are routed to {leads}, not to {}; \"{}\"",
            link.name,
            gateway.route_command(src)
        )));
    }
}

async fn gateway_state(link: &LinkSpec, addresses: Vec<IpAddr>) -> Option<Gateway> {
    let looked = Gateway::query(link.netns.clone(), link.name.to_string(), addresses).await;
    looked.ok()
}

fn told(result: String) -> TraceStage {
    TraceStage {
        stage: "kernel",
        result,
    }
}
