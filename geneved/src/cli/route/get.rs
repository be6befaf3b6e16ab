//! `geneved route get`: how an address of each VPC would be reached.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::super::command::Command;
use super::super::context::Context;
use super::super::error::CliError;
use super::super::field::key;
use super::super::grammar::{self, Keyword, Times};
use super::super::honours::Honours;
use super::super::object;
use super::super::output::{Line, Record};
use super::super::style::Style;
use super::destination;
use crate::config::value::{IfName, Prefix};
use crate::config::words::EndpointWords;
use crate::control::protocol::{Endpoints, LinkInfo, Links, Request, RouteInfo, Routes};

#[derive(Default)]
struct Words {
    address: Option<IpAddr>,
    dev: Option<IfName>,
}

const KEYS: [Keyword<Words>; 2] = [
    key!(Words; "to", "ADDR", address).bare().times(Times::Once),
    key!(Words; "dev" | "oif", "LINK", dev),
];

/// The command.
pub const COMMAND: Command =
    Command::new(&["get"], get, || grammar::words(&KEYS)).honouring(Honours::FAMILY);

/// How an address is reached in one VPC.
struct Way {
    address: IpAddr,
    dev: IfName,
    via: Vec<IpAddr>,
    /// What decided.
    prefix: IpNet,
    origin: String,
}

fn get(context: &mut Context, words: &[String]) -> Result<(), CliError> {
    let mut wanted = Words::default();
    grammar::parse(&KEYS, words, &mut wanted)?;
    let address = wanted.address.ok_or_else(CliError::incomplete)?;
    if !context.style().wants(address) {
        return Err(grammar::wrong(
            &address.to_string(),
            "it is not of the address family that the option asks for",
        ));
    }
    let dev = wanted.dev;
    let Links { mut links } = context.call(&Request::ListLinks { name: dev.clone() })?;
    let Routes { routes } = context.call(&Request::ListRoutes { dev: dev.clone() })?;
    let Endpoints { endpoints } = context.call(&Request::ListEndpoints { dev: dev.clone() })?;
    let endpoints: Vec<EndpointWords> = endpoints.into_iter().map(|e| e.endpoint).collect();
    links.retain(|link| dev.as_ref().is_none_or(|dev| *dev == link.settings.name));
    let ways = links
        .iter()
        .filter_map(|link| way(address, link, &routes, &endpoints));
    let ways: Vec<_> = ways.collect();
    if ways.is_empty() {
        let on = dev.map(|dev| format!(" dev {dev}")).unwrap_or_default();
        return Err(CliError::Refused(format!(
            "Error: no route to {address}{on}; see \"geneved route show\", or add one with \"geneved route add PREFIX dev LINK via HOST\""
        )));
    }
    object::print(context, &ways)
}

/// An address of the interface, or an endpoint, or the longest prefix.
fn way(
    address: IpAddr,
    link: &LinkInfo,
    routes: &[RouteInfo],
    endpoints: &[EndpointWords],
) -> Option<Way> {
    let dev = &link.settings.name;
    let way = |prefix, via: &[IpAddr], origin: &str| Way {
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

impl Record for Way {
    fn text(&self, style: &Style) -> String {
        let via = (!self.via.is_empty()).then(|| style.addresses(&self.via));
        Line::new(style.address(self.address))
            .value("dev", Some(style.name(&self.dev)))
            .value("via", via)
            .value("prefix", Some(destination(&Prefix(self.prefix), style)))
            .value("proto", Some(&self.origin))
            .end()
    }

    fn json(&self, style: &Style) -> Value {
        json!({
            "dst": self.address,
            "dev": self.dev,
            "via": self.via,
            "prefix": destination(&Prefix(self.prefix), style),
            "protocol": self.origin,
        })
    }
}
