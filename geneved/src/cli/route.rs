//! `geneved route`: which hosts an inner prefix is behind.

mod get;

use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

use super::command::Object;
use super::context::Context;
use super::error::CliError;
use super::field::{addresses, key};
use super::grammar::{self, Keyword, Times};
use super::honours::Honours;
use super::object::{self, Subject};
use super::output::{Line, Record};
use super::style::{Family, Style};
use crate::config::value::{IfName, Prefix, TypeWord, ValueError};
use crate::config::words::{Change, RouteWords, Verb};
use crate::control::protocol::{Request, RouteInfo, Routes};

type Key = Keyword<RouteWords>;

const PREFIX: Key = key!("to" | "prefix", "PREFIX", prefix)
    .bare()
    .times(Times::Once);
const DEV: Key = key!("dev", "LINK", dev).times(Times::Once);
const VIA: Key = Key::value(&["via"], "HOST[,HOST...]", |route, list| {
    route.via.extend(addresses(list)?);
    Ok(())
});
const TYPE: Key = key!("type", "{ simple | gateway }", kind);
/// `show` prints it, so that what it prints can be typed.
const PROTO: Key = Key::value(&["proto"], "static", |_, origin| match origin {
    "static" => Ok(()),
    "remote" => Err(ValueError::new(
        "the route to a link's remote is made by \"geneved link set LINK remote ADDR\"",
    )),
    _ => Err(ValueError::new("only \"static\" routes can be made").expecting(&["static"])),
});

/// Which routes are shown.
#[derive(Default)]
pub struct Wanted {
    prefix: Option<Prefix>,
    dev: Option<IfName>,
    via: Option<std::net::IpAddr>,
    kind: Option<TypeWord>,
    origin: Option<String>,
}

impl Subject for RouteWords {
    const KIND: &'static str = "route";
    const ADD: &'static [Key] = &[PREFIX, DEV, VIA.times(Times::Once), TYPE, PROTO];
    const SET: &'static [Key] = &[PREFIX, DEV, VIA, TYPE, PROTO];
    const DEL: &'static [Key] = &[PREFIX, DEV, VIA, TYPE, PROTO];

    const HONOURS: Honours = Honours::FAMILY;
    const CHANGE_HONOURS: Honours = Honours::FAMILY;

    type Info = RouteInfo;
    type Filter = Wanted;
    const SHOW: &'static [Keyword<Wanted>] = &[
        key!(Wanted; "to" | "prefix", "PREFIX", prefix).bare(),
        key!(Wanted; "dev", "LINK", dev),
        key!(Wanted; "via", "HOST", via),
        key!(Wanted; "type", "{ simple | gateway }", kind),
        Keyword::<Wanted>::value(&["proto"], "{ static | remote }", |wanted, origin| {
            if !["static", "remote"].contains(&origin) {
                return Err(
                    ValueError::new("\"static\" or \"remote\"").expecting(&["static", "remote"])
                );
            }
            wanted.origin = Some(origin.to_owned());
            Ok(())
        }),
    ];

    fn change(mut self, verb: Verb, context: &mut Context) -> Result<Change, CliError> {
        let style = context.style();
        self.prefix = of_family(self.prefix, &style);
        if !style.wants(self.prefix.0.addr()) {
            return Err(grammar::wrong(
                &self.prefix.to_string(),
                "it is not of the family that is named in front of \"route\"",
            ));
        }
        Ok(Change::route(verb, self))
    }

    fn all(context: &mut Context, filter: &Wanted) -> Result<Vec<RouteInfo>, CliError> {
        let dev = filter.dev.clone();
        let request = Request::ListRoutes { dev };
        Ok(context.call::<Routes>(&request)?.routes)
    }

    fn named(filter: &Wanted, style: &Style) -> Option<String> {
        filter
            .prefix
            .map(|prefix| destination(&of_family(prefix, style), style))
    }

    fn name(info: &RouteInfo, style: &Style) -> String {
        destination(&info.route.prefix, style)
    }

    fn wants(filter: &Wanted, style: &Style, info: &RouteInfo) -> bool {
        let route = &info.route;
        let simple = TypeWord(libgeneve::options::EndpointType::Simple);
        style.wants(route.prefix.0.addr())
            && filter
                .prefix
                .is_none_or(|p| of_family(p, style) == route.prefix)
            && filter.via.is_none_or(|via| route.via.contains(&via))
            && filter
                .kind
                .is_none_or(|kind| kind == route.kind.unwrap_or(simple))
            && filter
                .origin
                .as_ref()
                .is_none_or(|origin| *origin == info.origin)
    }
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "route",
    about: "hosts behind inner prefixes",
    commands: &{
        let [add, set, replace, del, show] = object::commands::<RouteWords>();
        [add, set, replace, del, show, get::COMMAND]
    },
    usual: Some(object::SHOW),
    notes: "PREFIX := { ADDR[/LENGTH] | default }",
};

/// With `-6` the default route is that of IPv6.
fn of_family(prefix: Prefix, style: &Style) -> Prefix {
    match style.family {
        Some(Family::Inet6) if prefix.0 == Ipv4Net::default().into() => {
            Prefix(Ipv6Net::default().into())
        }
        _ => prefix,
    }
}

/// A prefix as `ip route` has it: `default` is that of IPv4, or with `-6` that of IPv6, so that what is shown can be
/// typed.
pub(super) fn destination(prefix: &Prefix, style: &Style) -> String {
    match (prefix.0.prefix_len(), prefix.0) {
        (0, ipnet::IpNet::V4(_)) => "default".into(),
        (0, ipnet::IpNet::V6(_)) if style.family == Some(Family::Inet6) => "default".into(),
        (len, net) if len == net.max_prefix_len() => net.addr().to_string(),
        (_, net) => net.to_string(),
    }
}

impl Record for RouteInfo {
    fn text(&self, style: &Style) -> String {
        Line::new(style.address(destination(&self.route.prefix, style)))
            .value("dev", Some(style.name(&self.route.dev)))
            .value("via", Some(style.addresses(&self.route.via)))
            .value("type", self.route.kind)
            .value("proto", Some(&self.origin))
            .end()
    }

    fn json(&self, style: &Style) -> Value {
        let mut route = json!({
            "dst": destination(&self.route.prefix, style),
            "dev": self.route.dev,
            "via": self.route.via,
            "protocol": self.origin,
        });
        if let Some(kind) = self.route.kind {
            route["type"] = json!(kind);
        }
        route
    }
}
