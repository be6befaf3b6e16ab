//! `geneved route get`: route lookup for an address in each VPC.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::super::command::CommandDef;
use super::super::context::CommandContext;
use super::super::error::CliError;
use super::super::field::key;
use super::super::grammar::{self, Keyword, Repetition};
use super::super::object;
use super::super::output::{OutputLine, Show};
use super::super::style::OutputStyle;
use super::super::supported_options::SupportedOptions;
use super::destination;
use crate::config::args::EndpointArgs;
use crate::config::value::{IfName, PrefixValue};
use crate::control::protocol::{
    EndpointsReply, LinkInfo, LinksReply, Request, RouteInfo, RoutesReply,
};

#[derive(Default)]
struct RouteGetCommand {
    address: Option<IpAddr>,
    dev: Option<IfName>,
}

const ROUTE_GET_KEYWORDS: [Keyword<RouteGetCommand>; 2] = [
    key!(RouteGetCommand; "to", "ADDR", address)
        .bare()
        .times(Repetition::Once),
    key!(RouteGetCommand; "dev" | "oif", "LINK", dev),
];

/// The command.
pub const COMMAND: CommandDef =
    CommandDef::new(&["get"], get, || grammar::words(&ROUTE_GET_KEYWORDS))
        .honouring(SupportedOptions::FAMILY);

/// Result of a route lookup in one VPC.
struct RouteGetResult {
    address: IpAddr,
    dev: IfName,
    via: Vec<IpAddr>,
    /// The matching prefix.
    prefix: IpNet,
    origin: String,
}

fn get(context: &mut CommandContext, words: &[String]) -> Result<(), CliError> {
    let mut wanted = RouteGetCommand::default();
    grammar::parse(&ROUTE_GET_KEYWORDS, words, &mut wanted)?;
    let address = wanted.address.ok_or_else(CliError::incomplete)?;
    if !context.style().wants(address) {
        return Err(grammar::wrong(
            &address.to_string(),
            "it is not of the address family that the option asks for",
        ));
    }
    let dev = wanted.dev;
    let LinksReply { mut links } = context.call(&Request::ListLinks { name: dev.clone() })?;
    let RoutesReply { routes } = context.call(&Request::ListRoutes { dev: dev.clone() })?;
    let EndpointsReply { endpoints } =
        context.call(&Request::ListEndpoints { dev: dev.clone() })?;
    let endpoints: Vec<EndpointArgs> = endpoints.into_iter().map(|e| e.endpoint).collect();
    links.retain(|link| dev.as_ref().is_none_or(|dev| *dev == link.settings.name));
    let ways = links
        .iter()
        .filter_map(|link| resolve(address, link, &routes, &endpoints));
    let ways: Vec<_> = ways.collect();
    if ways.is_empty() {
        let on = dev.map(|dev| format!(" dev {dev}")).unwrap_or_default();
        return Err(CliError::Refused(format!(
            "Error: no route to {address}{on}; see \"geneved route show\", or add one with \"geneved route add PREFIX dev LINK via HOST\""
        )));
    }
    object::print(context, &ways)
}

/// Looks up an interface address, an endpoint, or the longest matching prefix.
fn resolve(
    address: IpAddr,
    link: &LinkInfo,
    routes: &[RouteInfo],
    endpoints: &[EndpointArgs],
) -> Option<RouteGetResult> {
    let dev = &link.settings.name;
    let way = |prefix, via: &[IpAddr], origin: &str| RouteGetResult {
        address,
        dev: dev.clone(),
        via: via.to_vec(),
        prefix,
        origin: origin.to_owned(),
    };
    if link.settings.address.iter().any(|a| a.0.addr() == address) {
        return Some(way(address.into(), &[], "local"));
    }
    let mut of_link = endpoints.iter().filter(|e| e.dev == *dev);
    if let Some(endpoint) = of_link.find(|e| e.address == address) {
        let origin = if endpoint.local { "local" } else { "endpoint" };
        return Some(way(address.into(), &endpoint.host, origin));
    }
    let of_link = routes.iter().filter(|r| r.route.dev == *dev);
    of_link
        .filter(|r| r.route.prefix.0.contains(&address))
        .max_by_key(|r| r.route.prefix.0.prefix_len())
        .map(|r| way(r.route.prefix.0, &r.route.via, &r.origin))
}

impl Show for RouteGetResult {
    fn text(&self, style: &OutputStyle) -> String {
        let via = (!self.via.is_empty()).then(|| style.addresses(&self.via));
        OutputLine::new(style.address(self.address))
            .value("dev", Some(style.name(&self.dev)))
            .value("via", via)
            .value(
                "prefix",
                Some(destination(&PrefixValue(self.prefix), style)),
            )
            .value("proto", Some(&self.origin))
            .end()
    }

    fn json(&self, style: &OutputStyle) -> Value {
        json!({
            "dst": self.address,
            "dev": self.dev,
            "via": self.via,
            "prefix": destination(&PrefixValue(self.prefix), style),
            "protocol": self.origin,
        })
    }
}
