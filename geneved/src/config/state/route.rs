//! Routes: the hosts behind inner prefixes.

use std::net::IpAddr;

use ipnet::IpNet;
use libgeneve::options::EndpointType;

use super::link::same_family;
use super::{DesiredState, LinkSpec, presence, put};
use crate::config::args::{ChangeVerb, RouteArgs};
use crate::config::value::{EndpointTypeValue, IfName, PrefixValue, tunnel_address};
use crate::refusal::Refusal;

/// A route to a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Hosts of the prefix, at least one.
    pub hosts: Vec<IpAddr>,
    /// `Simple`, or `Gateway` if the prefix is outside of the VPC.
    pub kind: EndpointType,
}

impl RouteSpec {
    /// Converts to the words that create it.
    #[must_use]
    pub fn words(&self, dev: &IfName, prefix: IpNet) -> RouteArgs {
        RouteArgs {
            prefix: PrefixValue(prefix),
            dev: dev.clone(),
            via: self.hosts.clone(),
            kind: (self.kind != EndpointType::Simple).then_some(EndpointTypeValue(self.kind)),
        }
    }
}

impl DesiredState {
    pub(super) fn change_route(
        &mut self,
        verb: ChangeVerb,
        words: &RouteArgs,
    ) -> Result<(), Refusal> {
        let RouteArgs {
            prefix,
            dev,
            via,
            kind,
        } = words;
        let link = self.link(dev)?;
        if prefix.has_host_bits() {
            return Err(Refusal::new(
                format!("route \"{prefix}\": bits beyond the prefix length are set"),
                format!("did you mean \"{}\"?", prefix.0.trunc()),
            ));
        }
        let object = format!("route \"{prefix}\" dev {dev}");
        self.check_route_mode(&object, link)?;
        let key = (dev.clone(), prefix.0);
        let there = self.routes.get(&key);
        let names = self.routes_of(dev).map(|(name, _)| name);
        presence(verb, there.is_some(), &object, ("route", prefix), names)?;
        if verb == ChangeVerb::Del {
            self.routes.remove(&key);
            return Ok(());
        }
        let there = there.filter(|_| verb == ChangeVerb::Set);
        let mut route = there.cloned().unwrap_or(RouteSpec {
            hosts: Vec::new(),
            kind: EndpointType::Simple,
        });
        put(&mut route.kind, kind.map(|word| word.0));
        if !via.is_empty() {
            route.hosts.clone_from(via);
        }
        if !matches!(route.kind, EndpointType::Simple | EndpointType::Gateway) {
            return Err(Refusal::new(
                format!("{object}: type \"{}\" is wrong for a prefix", route.kind),
                "\"simple\" or \"gateway\"; other types are those of an endpoint",
            ));
        }
        if route.kind != EndpointType::Simple {
            self.check_carried(dev, &object, "type")?;
        }
        check_hosts(&object, "via", link, &route.hosts)?;
        self.routes.insert(key, route);
        Ok(())
    }
}

pub(super) fn check_hosts(
    object: &str,
    word: &str,
    link: &LinkSpec,
    hosts: &[IpAddr],
) -> Result<(), Refusal> {
    if hosts.is_empty() {
        return Err(Refusal::new(
            format!("{object}: Not enough information: \"{word}\" argument is required."),
            format!("add \"{word} HOST\", the underlay address of the host that it is on"),
        ));
    }
    for (at, host) in hosts.iter().enumerate() {
        tunnel_address(*host)
            .map_err(|e| Refusal::new(format!("{object}: {word} \"{host}\" is wrong: {e}"), ""))?;
        if let Some(local) = link.local {
            same_family(&link.name, local, *host)?;
        }
        if hosts[..at].contains(host) {
            return Err(Refusal::new(
                format!("{object}: {word} \"{host}\" is duplicate"),
                "",
            ));
        }
    }
    Ok(())
}
