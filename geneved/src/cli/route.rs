//! `geneved route`: which hosts an inner prefix is behind.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::error::CliError;
use super::grammar::{self, Keyword, Times};
use super::output::{Record, Style};
use super::{Command, Context, Object};
use crate::config::value::{IfName, Prefix, ValueError};
use crate::config::words::{Change, RouteWords, Verb};
use crate::control::protocol::{Request, RouteInfo, Routes};

#[derive(Default)]
struct Words {
    prefix: Option<Prefix>,
    dev: Option<IfName>,
    via: Vec<IpAddr>,
}

type Key = Keyword<Words>;

const PREFIX: Key = Key::value(&["prefix", "to"], "PREFIX", |w, v| {
    w.prefix = Some(v.parse()?);
    Ok(())
})
.bare()
.times(Times::Once);
const DEV: Key = Key::value(&["dev"], "LINK", |w, v| {
    w.dev = Some(v.parse()?);
    Ok(())
})
.times(Times::Once);
const VIA: Key = Key::value(&["via"], "HOST[,HOST...]", |w, v| {
    w.via.extend(hosts(v)?);
    Ok(())
});

const ADD: [Key; 3] = [PREFIX, DEV, VIA.times(Times::Once)];
const DEL: [Key; 3] = [PREFIX, DEV, VIA];
const SHOW: [Key; 2] = [PREFIX.times(Times::Optional), DEV.times(Times::Optional)];

/// `HOST[,HOST...]`.
pub fn hosts(list: &str) -> Result<Vec<IpAddr>, ValueError> {
    list.split(',')
        .map(|host| {
            host.parse()
                .map_err(|_| ValueError("not an IPv4 or IPv6 address".into()))
        })
        .collect()
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "route",
    about: "hosts behind inner prefixes",
    commands: &[
        Command {
            names: &["add"],
            run: |c, w| change(c, Verb::Add, &ADD, w),
            usage: || grammar::synopsis("geneved route add", &ADD),
        },
        Command {
            names: &["set", "change"],
            run: |c, w| change(c, Verb::Set, &ADD, w),
            usage: || grammar::synopsis("geneved route set", &ADD),
        },
        Command {
            names: &["del", "delete"],
            run: |c, w| change(c, Verb::Del, &DEL, w),
            usage: || grammar::synopsis("geneved route del", &DEL),
        },
        Command {
            names: &["show", "list", "lst"],
            run: show,
            usage: || grammar::synopsis("geneved route show", &SHOW),
        },
    ],
    notes: "PREFIX := { ADDR[/LENGTH] | default }",
};

fn change(
    context: &mut Context,
    verb: Verb,
    keys: &[Key],
    words: &[String],
) -> Result<(), CliError> {
    let mut route = Words::default();
    grammar::parse(keys, words, &mut route)?;
    let (Some(prefix), Some(dev)) = (route.prefix, route.dev) else {
        return Err(CliError::Usage(
            "Command line is not complete. Try option \"help\"".into(),
        ));
    };
    context.apply(Change::route(
        verb,
        RouteWords {
            prefix,
            dev,
            via: route.via,
            kind: None,
        },
    ))
}

fn show(context: &mut Context, words: &[String]) -> Result<(), CliError> {
    let mut wanted = Words::default();
    grammar::parse(&SHOW, words, &mut wanted)?;
    let Routes { mut routes } = context.call(&Request::ListRoutes { dev: wanted.dev })?;
    routes.retain(|r| wanted.prefix.is_none_or(|p| p == r.route.prefix));
    let records: Vec<&dyn Record> = routes.iter().map(|r| r as &dyn Record).collect();
    context.print(&records);
    Ok(())
}

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
        format!(
            "{} dev {} via {} proto {}",
            style.address(&destination(&self.route.prefix)),
            style.name(self.route.dev.as_str()),
            style.address(&via.join(",")),
            self.origin
        )
    }

    fn brief(&self, style: &Style) -> String {
        self.text(style)
    }

    fn json(&self, _: &Style) -> Value {
        json!({
            "dst": destination(&self.route.prefix),
            "dev": self.route.dev,
            "via": self.route.via,
            "protocol": self.origin,
        })
    }
}
