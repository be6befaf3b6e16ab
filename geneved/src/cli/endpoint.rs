//! `geneved endpoint`: hosts and properties of overlay addresses.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::command::ObjectDef;
use super::context::CommandContext;
use super::error::CliError;
use super::field::{addresses, flag, key};
use super::grammar::{Keyword, Repetition};
use super::object::{self, CliObject};
use super::output::{OutputLine, Show};
use super::style::OutputStyle;
use super::supported_options::SupportedOptions;
use crate::config::args::{ChangeVerb, EndpointArgs, ObjectChange};
use crate::config::value::{EndpointTypeValue, IfName, ObjectName, OrNone};
use crate::control::protocol::{EndpointInfo, EndpointsReply, Request};

type EndpointKeyword = Keyword<EndpointArgs>;

const ADDRESS: EndpointKeyword = key!(EndpointArgs; "address", "ADDR", address)
    .bare()
    .times(Repetition::Once);
const ENDPOINT_DEV: EndpointKeyword =
    key!(EndpointArgs; "dev", "LINK", dev).times(Repetition::Once);

const ENDPOINT_SETTINGS: [EndpointKeyword; 13] = [
    ADDRESS,
    ENDPOINT_DEV,
    EndpointKeyword::value(&["host"], "HOST[,HOST...]", |endpoint, list| {
        endpoint.host.extend(addresses(list)?);
        Ok(())
    }),
    flag!(EndpointArgs; "local", local = true),
    key!(EndpointArgs; "type", "TYPE", kind),
    key!(EndpointArgs; "labels", "K=V,...", labels),
    key!(EndpointArgs; "lladdr", "MAC", lladdr),
    key!(EndpointArgs; "class", "{ CLASS | none }", class),
    key!(EndpointArgs; "rate", "{ RATE | none }", rate),
    key!(EndpointArgs; "option", "OPTION=HEX", option).times(Repetition::Many),
    flag!(EndpointArgs; "colocated", colocated = Some(true)),
    flag!(EndpointArgs; "nocolocated", colocated = Some(false)),
    key!(EndpointArgs; "target", "ADDR[@LINK]", target),
];

/// Filter of `show`.
#[derive(Default)]
pub struct EndpointFilter {
    address: Option<IpAddr>,
    dev: Option<IfName>,
    host: Option<IpAddr>,
    local: bool,
    kind: Option<EndpointTypeValue>,
    class: Option<OrNone<ObjectName>>,
}

impl CliObject for EndpointArgs {
    const KIND: &'static str = "endpoint";
    const ADD: &'static [EndpointKeyword] = &ENDPOINT_SETTINGS;
    const DEL: &'static [EndpointKeyword] = &ENDPOINT_SETTINGS;

    const HONOURS: SupportedOptions = SupportedOptions::FAMILY.and(SupportedOptions::COUNTERS);

    type Info = EndpointInfo;
    type Filter = EndpointFilter;
    const SHOW: &'static [Keyword<EndpointFilter>] = &[
        key!(EndpointFilter; "address", "ADDR", address).bare(),
        key!(EndpointFilter; "dev", "LINK", dev),
        key!(EndpointFilter; "host", "HOST", host),
        flag!(EndpointFilter; "local", local = true),
        key!(EndpointFilter; "type", "TYPE", kind),
        key!(EndpointFilter; "class", "{ CLASS | none }", class),
    ];

    fn change(self, verb: ChangeVerb, _: &mut CommandContext) -> Result<ObjectChange, CliError> {
        Ok(ObjectChange::endpoint(verb, self))
    }

    fn all(
        context: &mut CommandContext,
        filter: &EndpointFilter,
    ) -> Result<Vec<EndpointInfo>, CliError> {
        let dev = filter.dev.clone();
        let request = Request::ListEndpoints { dev };
        Ok(context.call::<EndpointsReply>(&request)?.endpoints)
    }

    fn named(filter: &EndpointFilter, _: &OutputStyle) -> Option<String> {
        filter.address.map(|address| address.to_string())
    }

    fn name(info: &EndpointInfo, _: &OutputStyle) -> String {
        info.endpoint.address.to_string()
    }

    fn wants(filter: &EndpointFilter, style: &OutputStyle, info: &EndpointInfo) -> bool {
        let info = &info.endpoint;
        let simple = EndpointTypeValue(libgeneve::options::EndpointType::Simple);
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

/// Commands of the object.
pub const ENDPOINT_OBJECT: ObjectDef = ObjectDef {
    name: "endpoint",
    about: "hosts, types and labels of overlay addresses",
    commands: &object::commands::<EndpointArgs>(),
    usual: Some(object::SHOW_INDEX),
    notes: "TYPE := { simple | scaled | gateway | proxied | host }\n\"host\" or \"local\" is given to add; a colocated scaled endpoint may have both,\na proxied one needs \"target\" or \"host\". \"labels none\" says that there are none.",
};

impl Show for EndpointInfo {
    fn text(&self, style: &OutputStyle) -> String {
        let mut text = self.endpoint.text(style);
        if style.statistics > 0 && self.total > 0 {
            let (in_use, total) = (style.number(self.in_use), style.number(self.total));
            text += &format!("\n    ports in use {in_use} of {total}");
        }
        text
    }

    fn json(&self, style: &OutputStyle) -> Value {
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

impl Show for EndpointArgs {
    fn text(&self, style: &OutputStyle) -> String {
        let hosts = (!self.host.is_empty()).then(|| style.addresses(&self.host));
        OutputLine::new(style.address(self.address))
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

    fn json(&self, _: &OutputStyle) -> Value {
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
