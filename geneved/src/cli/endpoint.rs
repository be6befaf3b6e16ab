//! `geneved endpoint`: on which host an overlay address is.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::error::CliError;
use super::grammar::{self, Keyword, Times};
use super::output::{Record, Style};
use super::{Command, Context, Object};
use crate::config::value::{IfName, ValueError};
use crate::config::words::{Change, EndpointWords, Verb};
use crate::control::protocol::{Endpoints, Request};

#[derive(Default)]
struct Words {
    address: Option<IpAddr>,
    dev: Option<IfName>,
    host: Vec<IpAddr>,
    local: bool,
}

type Key = Keyword<Words>;

const ADDRESS: Key = Key::value(&["address"], "ADDR", |w, v| {
    w.address = Some(
        v.parse()
            .map_err(|_| ValueError("not an IPv4 or IPv6 address".into()))?,
    );
    Ok(())
})
.bare()
.times(Times::Once);
const DEV: Key = Key::value(&["dev"], "LINK", |w, v| {
    w.dev = Some(v.parse()?);
    Ok(())
})
.times(Times::Once);
const HOST: Key = Key::value(&["host"], "HOST[,HOST...]", |w, v| {
    w.host.extend(super::route::hosts(v)?);
    Ok(())
});
const LOCAL: Key = Key::flag(&["local"], |w| w.local = true);

const ADD: [Key; 4] = [ADDRESS, DEV, HOST, LOCAL];
const SHOW: [Key; 2] = [ADDRESS.times(Times::Optional), DEV.times(Times::Optional)];

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "endpoint",
    about: "hosts of overlay addresses",
    commands: &[
        Command {
            names: &["add"],
            run: |c, w| change(c, Verb::Add, w),
            usage: || grammar::synopsis("geneved endpoint add", &ADD),
        },
        Command {
            names: &["set", "change"],
            run: |c, w| change(c, Verb::Set, w),
            usage: || grammar::synopsis("geneved endpoint set", &ADD),
        },
        Command {
            names: &["del", "delete"],
            run: |c, w| change(c, Verb::Del, w),
            usage: || grammar::synopsis("geneved endpoint del", &ADD),
        },
        Command {
            names: &["show", "list", "lst"],
            run: show,
            usage: || grammar::synopsis("geneved endpoint show", &SHOW),
        },
    ],
    notes: "Either \"host\" or \"local\" is given to add and set.",
};

fn change(context: &mut Context, verb: Verb, words: &[String]) -> Result<(), CliError> {
    let mut endpoint = Words::default();
    grammar::parse(&ADD, words, &mut endpoint)?;
    let (Some(address), Some(dev)) = (endpoint.address, endpoint.dev) else {
        return Err(CliError::Usage(
            "Command line is not complete. Try option \"help\"".into(),
        ));
    };
    let words = EndpointWords {
        address,
        dev,
        host: endpoint.host,
        local: endpoint.local,
        kind: None,
        labels: None,
        class: None,
        rate: None,
        option: Vec::new(),
        colocated: None,
        target: None,
    };
    context.apply(Change::endpoint(verb, words))
}

fn show(context: &mut Context, words: &[String]) -> Result<(), CliError> {
    let mut wanted = Words::default();
    grammar::parse(&SHOW, words, &mut wanted)?;
    let Endpoints { mut endpoints } = context.call(&Request::ListEndpoints { dev: wanted.dev })?;
    endpoints.retain(|e| wanted.address.is_none_or(|a| a == e.address));
    let records: Vec<&dyn Record> = endpoints.iter().map(|e| e as &dyn Record).collect();
    context.print(&records);
    Ok(())
}

impl Record for EndpointWords {
    fn text(&self, style: &Style) -> String {
        let hosts: Vec<_> = self.host.iter().map(ToString::to_string).collect();
        let place = match self.local {
            true => "local".to_owned(),
            false => format!("host {}", style.address(&hosts.join(","))),
        };
        format!(
            "{} dev {} {place}",
            style.address(&self.address.to_string()),
            style.name(self.dev.as_str())
        )
    }

    fn brief(&self, style: &Style) -> String {
        self.text(style)
    }

    fn json(&self, _: &Style) -> Value {
        json!({ "address": self.address, "dev": self.dev, "host": self.host, "local": self.local })
    }
}
