//! `geneved route`: which hosts an inner prefix is behind.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::error::CliError;
use super::field::{addresses, key};
use super::grammar::{Keyword, Times};
use super::object::{self, Subject};
use super::output::{Line, Record, Style};
use super::{Context, Object};
use crate::config::value::{IfName, Prefix, TypeWord};
use crate::config::words::{Change, RouteWords, Verb};
use crate::control::protocol::{Request, RouteInfo, Routes};

#[derive(Default)]
struct Words {
    prefix: Option<Prefix>,
    dev: Option<IfName>,
    via: Vec<IpAddr>,
    kind: Option<TypeWord>,
}

type Key = Keyword<Words>;

const PREFIX: Key = key!("prefix" | "to", "PREFIX", prefix)
    .bare()
    .times(Times::Once);
const DEV: Key = key!("dev", "LINK", dev).times(Times::Once);
const VIA: Key = Key::value(&["via"], "HOST[,HOST...]", |w, v| {
    w.via.extend(addresses(v)?);
    Ok(())
});
const TYPE: Key = key!("type", "{ simple | gateway }", kind);

impl Subject for Words {
    const NAME: &'static str = "route";
    const ADD: &'static [Key] = &[PREFIX, DEV, VIA.times(Times::Once), TYPE];
    const SET: &'static [Key] = &[PREFIX, DEV, VIA, TYPE];
    const DEL: &'static [Key] = &[PREFIX, DEV, VIA];
    const SHOW: &'static [Key] = &[PREFIX.times(Times::Optional), DEV.times(Times::Optional)];

    fn change(self, verb: Verb) -> Result<Change, CliError> {
        let route = RouteWords {
            prefix: self.prefix.ok_or_else(CliError::incomplete)?,
            dev: self.dev.ok_or_else(CliError::incomplete)?,
            via: self.via,
            kind: self.kind,
        };
        Ok(Change::route(verb, route))
    }

    fn show(self, context: &mut Context) -> Result<(), CliError> {
        let Routes { mut routes } = context.call(&Request::ListRoutes { dev: self.dev })?;
        routes.retain(|r| self.prefix.is_none_or(|p| p == r.route.prefix));
        object::print(context, &routes);
        Ok(())
    }
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "route",
    about: "hosts behind inner prefixes",
    commands: &object::commands::<Words>(),
    notes: "PREFIX := { ADDR[/LENGTH] | default }",
};

fn destination(prefix: &Prefix) -> String {
    match (prefix.0.prefix_len(), prefix.0) {
        (0, ipnet::IpNet::V4(_)) => "default".into(),
        (len, net) if len == net.max_prefix_len() => net.addr().to_string(),
        (_, net) => net.to_string(),
    }
}

impl Record for RouteInfo {
    fn text(&self, style: &Style) -> String {
        let via: Vec<_> = self.route.via.iter().map(ToString::to_string).collect();
        Line::new(style.address(&destination(&self.route.prefix)))
            .value("dev", Some(style.name(self.route.dev.as_str())))
            .value("via", Some(style.address(&via.join(","))))
            .value("type", self.route.kind)
            .value("proto", Some(&self.origin))
            .end()
    }

    fn brief(&self, style: &Style) -> String {
        self.text(style)
    }

    fn json(&self, _: &Style) -> Value {
        let mut route = json!({
            "dst": destination(&self.route.prefix),
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
