//! `geneved route`: hosts behind inner prefixes.

mod get;

use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

use super::command::ObjectDef;
use super::context::CommandContext;
use super::error::CliError;
use super::field::{addresses, key};
use super::grammar::{self, Keyword, Repetition};
use super::object::{self, CliObject};
use super::output::{OutputLine, Show};
use super::style::{FamilyOption, OutputStyle};
use super::supported_options::SupportedOptions;
use crate::config::args::{ChangeVerb, ObjectChange, RouteArgs};
use crate::config::value::{EndpointTypeValue, IfName, PrefixValue, ValueError};
use crate::control::protocol::{Request, RouteInfo, RoutesReply};

type RouteKeyword = Keyword<RouteArgs>;

const ROUTE_PREFIX: RouteKeyword = key!(RouteArgs; "to" | "prefix", "PREFIX", prefix)
    .bare()
    .times(Repetition::Once);
const ROUTE_DEV: RouteKeyword = key!(RouteArgs; "dev", "LINK", dev).times(Repetition::Once);
const VIA: RouteKeyword = RouteKeyword::value(&["via"], "HOST[,HOST...]", |route, list| {
    route.via.extend(addresses(list)?);
    Ok(())
});
const ROUTE_TYPE: RouteKeyword = key!(RouteArgs; "type", "{ simple | gateway }", kind);
/// `show` prints it, so commands must accept it.
const ROUTE_PROTO: RouteKeyword =
    RouteKeyword::value(&["proto"], "static", |_, origin| match origin {
        "static" => Ok(()),
        "remote" => Err(ValueError::new(
            "the route to a link's remote is made by \"geneved link set LINK remote ADDR\"",
        )),
        _ => Err(ValueError::new("only \"static\" routes can be made").expecting(&["static"])),
    });

/// Filter of `show`.
#[derive(Default)]
pub struct RouteFilter {
    prefix: Option<PrefixValue>,
    dev: Option<IfName>,
    via: Option<std::net::IpAddr>,
    kind: Option<EndpointTypeValue>,
    origin: Option<String>,
}

impl CliObject for RouteArgs {
    const KIND: &'static str = "route";
    const ADD: &'static [RouteKeyword] = &[
        ROUTE_PREFIX,
        ROUTE_DEV,
        VIA.times(Repetition::Once),
        ROUTE_TYPE,
        ROUTE_PROTO,
    ];
    const SET: &'static [RouteKeyword] = &[ROUTE_PREFIX, ROUTE_DEV, VIA, ROUTE_TYPE, ROUTE_PROTO];
    const DEL: &'static [RouteKeyword] = &[ROUTE_PREFIX, ROUTE_DEV, VIA, ROUTE_TYPE, ROUTE_PROTO];

    const HONOURS: SupportedOptions = SupportedOptions::FAMILY;
    const CHANGE_HONOURS: SupportedOptions = SupportedOptions::FAMILY;

    type Info = RouteInfo;
    type Filter = RouteFilter;
    const SHOW: &'static [Keyword<RouteFilter>] = &[
        key!(RouteFilter; "to" | "prefix", "PREFIX", prefix).bare(),
        key!(RouteFilter; "dev", "LINK", dev),
        key!(RouteFilter; "via", "HOST", via),
        key!(RouteFilter; "type", "{ simple | gateway }", kind),
        Keyword::<RouteFilter>::value(&["proto"], "{ static | remote }", |wanted, origin| {
            if !["static", "remote"].contains(&origin) {
                return Err(
                    ValueError::new("\"static\" or \"remote\"").expecting(&["static", "remote"])
                );
            }
            wanted.origin = Some(origin.to_owned());
            Ok(())
        }),
    ];

    fn change(
        mut self,
        verb: ChangeVerb,
        context: &mut CommandContext,
    ) -> Result<ObjectChange, CliError> {
        let style = context.style();
        self.prefix = of_family(self.prefix, &style);
        if !style.wants(self.prefix.0.addr()) {
            return Err(grammar::wrong(
                &self.prefix.to_string(),
                "it is not of the family that is named in front of \"route\"",
            ));
        }
        Ok(ObjectChange::route(verb, self))
    }

    fn all(context: &mut CommandContext, filter: &RouteFilter) -> Result<Vec<RouteInfo>, CliError> {
        let dev = filter.dev.clone();
        let request = Request::ListRoutes { dev };
        Ok(context.call::<RoutesReply>(&request)?.routes)
    }

    fn named(filter: &RouteFilter, style: &OutputStyle) -> Option<String> {
        filter
            .prefix
            .map(|prefix| destination(&of_family(prefix, style), style))
    }

    fn name(info: &RouteInfo, style: &OutputStyle) -> String {
        destination(&info.route.prefix, style)
    }

    fn wants(filter: &RouteFilter, style: &OutputStyle, info: &RouteInfo) -> bool {
        let route = &info.route;
        let simple = EndpointTypeValue(libgeneve::options::EndpointType::Simple);
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

/// Commands of the object.
pub const ROUTE_OBJECT: ObjectDef = ObjectDef {
    name: "route",
    about: "hosts behind inner prefixes",
    commands: &{
        let [add, set, replace, del, show] = object::commands::<RouteArgs>();
        [add, set, replace, del, show, get::COMMAND]
    },
    usual: Some(object::SHOW_INDEX),
    notes: "PREFIX := { ADDR[/LENGTH] | default }",
};

/// With `-6`, `default` means the IPv6 default route.
fn of_family(prefix: PrefixValue, style: &OutputStyle) -> PrefixValue {
    match style.family {
        Some(FamilyOption::Inet6) if prefix.0 == Ipv4Net::default().into() => {
            PrefixValue(Ipv6Net::default().into())
        }
        _ => prefix,
    }
}

/// Formats a prefix like `ip route`: `default` is the IPv4 default route, or with `-6` the IPv6 one, so that output
/// can be used as input.
pub(super) fn destination(prefix: &PrefixValue, style: &OutputStyle) -> String {
    match (prefix.0.prefix_len(), prefix.0) {
        (0, ipnet::IpNet::V4(_)) => "default".into(),
        (0, ipnet::IpNet::V6(_)) if style.family == Some(FamilyOption::Inet6) => "default".into(),
        (len, net) if len == net.max_prefix_len() => net.addr().to_string(),
        (_, net) => net.to_string(),
    }
}

impl Show for RouteInfo {
    fn text(&self, style: &OutputStyle) -> String {
        OutputLine::new(style.address(destination(&self.route.prefix, style)))
            .value("dev", Some(style.name(&self.route.dev)))
            .value("via", Some(style.addresses(&self.route.via)))
            .value("type", self.route.kind)
            .value("proto", Some(&self.origin))
            .end()
    }

    fn json(&self, style: &OutputStyle) -> Value {
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
