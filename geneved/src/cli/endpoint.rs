//! `geneved endpoint`: on which host an overlay address is, and what it is.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::error::CliError;
use super::field::{addresses, flag, key};
use super::grammar::{Keyword, Times};
use super::object::{self, Subject};
use super::output::{Line, Record, Style};
use super::{Context, Object};
use crate::config::value::{IfName, LabelsWord, MacWord, Name, NamedData, Rate, Target, TypeWord};
use crate::config::words::{Change, EndpointWords, Verb};
use crate::control::protocol::{Endpoints, Request};

#[derive(Default)]
struct Words {
    address: Option<IpAddr>,
    dev: Option<IfName>,
    host: Vec<IpAddr>,
    local: bool,
    kind: Option<TypeWord>,
    labels: Option<LabelsWord>,
    lladdr: Option<MacWord>,
    class: Option<Name>,
    rate: Option<Rate>,
    option: Vec<NamedData>,
    colocated: Option<bool>,
    target: Option<Target>,
}

type Key = Keyword<Words>;

const ADDRESS: Key = key!("address", "ADDR", address).bare().times(Times::Once);
const DEV: Key = key!("dev", "LINK", dev).times(Times::Once);

const SETTINGS: [Key; 13] = [
    ADDRESS,
    DEV,
    Key::value(&["host"], "HOST[,HOST...]", |w, v| {
        w.host.extend(addresses(v)?);
        Ok(())
    }),
    flag!("local", local = true),
    key!("type", "TYPE", kind),
    key!("labels", "K=V,...", labels),
    key!("lladdr", "MAC", lladdr),
    key!("class", "NAME", class),
    key!("rate", "RATE", rate),
    key!("option", "NAME=HEX", option).times(Times::Many),
    flag!("colocated", colocated = Some(true)),
    flag!("nocolocated", colocated = Some(false)),
    key!("target", "ADDR[@LINK]", target),
];

impl Subject for Words {
    const NAME: &'static str = "endpoint";
    const ADD: &'static [Key] = &SETTINGS;
    const DEL: &'static [Key] = &SETTINGS;
    const SHOW: &'static [Key] = &[ADDRESS.times(Times::Optional), DEV.times(Times::Optional)];

    fn change(self, verb: Verb) -> Result<Change, CliError> {
        let endpoint = EndpointWords {
            address: self.address.ok_or_else(CliError::incomplete)?,
            dev: self.dev.ok_or_else(CliError::incomplete)?,
            host: self.host,
            local: self.local,
            kind: self.kind,
            labels: self.labels,
            lladdr: self.lladdr,
            class: self.class,
            rate: self.rate,
            option: self.option,
            colocated: self.colocated,
            target: self.target,
        };
        Ok(Change::endpoint(verb, endpoint))
    }

    fn show(self, context: &mut Context) -> Result<(), CliError> {
        let request = Request::ListEndpoints { dev: self.dev };
        let Endpoints { mut endpoints } = context.call(&request)?;
        endpoints.retain(|e| self.address.is_none_or(|a| a == e.address));
        object::print(context, &endpoints);
        Ok(())
    }
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "endpoint",
    about: "hosts, types and labels of overlay addresses",
    commands: &object::commands::<Words>(),
    notes: "TYPE := { simple | scaled | gateway | proxied | host }\n\"host\" or \"local\" is given to add; a colocated scaled endpoint may have both,\na proxied one needs \"target\" or \"host\". \"labels none\" says that there are none.",
};

impl Record for EndpointWords {
    fn text(&self, style: &Style) -> String {
        let hosts: Vec<_> = self.host.iter().map(ToString::to_string).collect();
        let hosts = (!hosts.is_empty()).then(|| style.address(&hosts.join(",")));
        let mut line = Line::new(style.address(&self.address.to_string()))
            .value("dev", Some(style.name(self.dev.as_str())))
            .value("host", hosts)
            .flag("local", self.local && self.colocated != Some(true))
            .flag("colocated", self.colocated == Some(true))
            .value("type", self.kind)
            .value("target", self.target.as_ref())
            .value("labels", self.labels.as_ref())
            .value("class", self.class.as_ref())
            .value("rate", self.rate);
        for option in &self.option {
            line = line.value("option", Some(option));
        }
        line.end()
    }

    fn brief(&self, style: &Style) -> String {
        self.text(style)
    }

    fn json(&self, _: &Style) -> Value {
        let mut all = json!({
            "address": self.address,
            "dev": self.dev,
            "host": self.host,
            "local": self.local,
        });
        super::output::extend(&mut all, self);
        all
    }
}
