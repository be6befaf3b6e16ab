//! Checks what the kernel lacks for the NAT rules of a link: forwarding, and routes for the outside addresses into
//! the link.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4AddrRange, Ipv6AddrRange};

use crate::config::state::{LinkSpec, NatSpec};
use crate::config::value::ModeValue;
use crate::net::gateway::{Gateway, GatewayProblem};

/// Returns for each NAT rule of `link` what is missing, with the remedies.
pub(super) async fn missing(link: &LinkSpec, nats: &[&NatSpec]) -> Vec<Vec<String>> {
    let outside: Vec<_> = nats.iter().map(|nat| outside(link, nat)).collect();
    let all: Vec<IpAddr> = outside.iter().flatten().copied().collect();
    let nothing = vec![Vec::new(); nats.len()];
    if all.is_empty() {
        return nothing;
    }
    // A missing namespace has no routes; that its link does not run is reported elsewhere.
    match Gateway::query(link.netns.clone(), link.name.to_string(), all).await {
        Ok(gateway) => outside.iter().map(|of| words(&gateway, of)).collect(),
        Err(_) => nothing,
    }
}

/// Largest pool of which every address is checked.
const MAX_POOL_CHECKED: usize = 64;

/// The addresses that packets from outside are sent to for this NAT rule; only the first and the last of a long pool.
/// Empty for a rule that translates an address of this host for use by gateways elsewhere: its outside address is not
/// reached through this host.
fn outside(link: &LinkSpec, nat: &NatSpec) -> Vec<IpAddr> {
    if link.mode != ModeValue::Ip {
        return Vec::new();
    }
    let own = |addr: &IpAddr| link.addresses.iter().map(IpNet::addr).any(|a| a == *addr);
    match nat {
        NatSpec::Snat { source, .. } => {
            let mut all: Vec<_> = addresses(source.first, source.last)
                .take(MAX_POOL_CHECKED + 1)
                .collect();
            if all.len() > MAX_POOL_CHECKED {
                all = vec![source.first, source.last];
            }
            all
        }
        NatSpec::Dnat { to, .. } => vec![*to],
        NatSpec::Static { inside, .. } if own(inside) => Vec::new(),
        NatSpec::Static { outside, .. } => vec![*outside],
    }
}

fn addresses(first: IpAddr, last: IpAddr) -> Box<dyn Iterator<Item = IpAddr>> {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            Box::new(Ipv4AddrRange::new(first, last).map(IpAddr::V4))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            Box::new(Ipv6AddrRange::new(first, last).map(IpAddr::V6))
        }
        _ => Box::new(std::iter::empty()),
    }
}

fn words(gateway: &Gateway, outside: &[IpAddr]) -> Vec<String> {
    let lacks: Vec<GatewayProblem<'_>> = gateway.lacks(outside).collect();
    lacks.iter().map(ToString::to_string).collect()
}
