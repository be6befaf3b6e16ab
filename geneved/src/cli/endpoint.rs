//! `geneved endpoint`: on which host an overlay address is, and what it is.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::command::Object;
use super::context::Context;
use super::error::CliError;
use super::field::{addresses, flag, key};
use super::grammar::{Keyword, Times};
use super::honours::Honours;
use super::object::{self, Subject};
use super::output::{Line, Record};
use super::style::Style;
use crate::config::value::{IfName, Name, OrNone, TypeWord};
use crate::config::words::{Change, EndpointWords, Verb};
use crate::control::protocol::{EndpointInfo, Endpoints, Request};

type Key = Keyword<EndpointWords>;

const ADDRESS: Key = key!("address", "ADDR", address).bare().times(Times::Once);
const DEV: Key = key!("dev", "LINK", dev).times(Times::Once);

const SETTINGS: [Key; 13] = [
    ADDRESS,
    DEV,
    Key::value(&["host"], "HOST[,HOST...]", |endpoint, list| {
        endpoint.host.extend(addresses(list)?);
        Ok(())
    }),
    flag!("local", local = true),
    key!("type", "TYPE", kind),
    key!("labels", "K=V,...", labels),
    key!("lladdr", "MAC", lladdr),
    key!("class", "{ CLASS | none }", class),
    key!("rate", "{ RATE | none }", rate),
    key!("option", "OPTION=HEX", option).times(Times::Many),
    flag!("colocated", colocated = Some(true)),
    flag!("nocolocated", colocated = Some(false)),
    key!("target", "ADDR[@LINK]", target),
];

/// Which endpoints are shown.
#[derive(Default)]
pub struct Wanted {
    address: Option<IpAddr>,
    dev: Option<IfName>,
    host: Option<IpAddr>,
    local: bool,
    kind: Option<TypeWord>,
    class: Option<OrNone<Name>>,
}

impl Subject for EndpointWords {
    const KIND: &'static str = "endpoint";
    const ADD: &'static [Key] = &SETTINGS;
    const DEL: &'static [Key] = &SETTINGS;

    const HONOURS: Honours = Honours::FAMILY.and(Honours::COUNTERS);

    type Info = EndpointInfo;
    type Filter = Wanted;
    const SHOW: &'static [Keyword<Wanted>] = &[
        key!(Wanted; "address", "ADDR", address).bare(),
        key!(Wanted; "dev", "LINK", dev),
        key!(Wanted; "host", "HOST", host),
        flag!(Wanted; "local", local = true),
        key!(Wanted; "type", "TYPE", kind),
        key!(Wanted; "class", "{ CLASS | none }", class),
    ];

    fn change(self, verb: Verb, _: &mut Context) -> Result<Change, CliError> {
        Ok(Change::endpoint(verb, self))
    }

    fn all(context: &mut Context, filter: &Wanted) -> Result<Vec<EndpointInfo>, CliError> {
        let dev = filter.dev.clone();
        let request = Request::ListEndpoints { dev };
        Ok(context.call::<Endpoints>(&request)?.endpoints)
    }

    fn named(filter: &Wanted, _: &Style) -> Option<String> {
        filter.address.map(|address| address.to_string())
    }

    fn name(info: &EndpointInfo, _: &Style) -> String {
        info.endpoint.address.to_string()
    }

    fn wants(filter: &Wanted, style: &Style, info: &EndpointInfo) -> bool {
        let info = &info.endpoint;
        let simple = TypeWord(libgeneve::options::EndpointType::Simple);
        style.wants(info.address)
            && filter.address.is_none_or(|a| a == info.address)
            && filter.host.is_none_or(|host| info.host.contains(&host))
            && (info.local || !filter.local)
            && filter
                .kind
                .is_none_or(|kind| kind == info.kind.unwrap_or(simple))
            && filter
                .class
                .as_ref()
                .is_none_or(|class| class == info.class.as_ref().unwrap_or(&OrNone::None))
    }
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "endpoint",
    about: "hosts, types and labels of overlay addresses",
    commands: &object::commands::<EndpointWords>(),
    usual: Some(object::SHOW),
    notes: "TYPE := { simple | scaled | gateway | proxied | host }\n\"host\" or \"local\" is given to add; a colocated scaled endpoint may have both,\na proxied one needs \"target\" or \"host\". \"labels none\" says that there are none.",
};

impl Record for EndpointInfo {
    fn text(&self, style: &Style) -> String {
        let mut text = self.endpoint.text(style);
        if style.statistics > 0 && self.total > 0 {
            let (in_use, total) = (style.number(self.in_use), style.number(self.total));
            text += &format!("\n    ports in use {in_use} of {total}");
        }
        text
    }

    fn json(&self, style: &Style) -> Value {
        let mut all = self.endpoint.json(style);
        if self.total > 0 {
            super::output::extend(
                &mut all,
                &json!({ "in_use": self.in_use, "total": self.total }),
            );
        }
        all
    }
}

impl Record for EndpointWords {
    fn text(&self, style: &Style) -> String {
        let hosts = (!self.host.is_empty()).then(|| style.addresses(&self.host));
        Line::new(style.address(self.address))
            .value("dev", Some(style.name(&self.dev)))
            .value("host", hosts)
            .flag("local", self.local && self.colocated != Some(true))
            .flag("colocated", self.colocated == Some(true))
            .value("type", self.kind)
            .value("target", self.target.as_ref())
            .value("labels", self.labels.as_ref())
            .value("lladdr", self.lladdr.map(|mac| style.address(mac)))
            .value("class", self.class.as_ref())
            .value("rate", self.rate)
            .values("option", &self.option)
            .end()
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
