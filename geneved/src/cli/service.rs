//! `geneved service`: virtual addresses with their backends.

use serde_json::{Value, json};

use super::command::ObjectDef;
use super::context::CommandContext;
use super::error::CliError;
use super::field::key;
use super::grammar::{self, Keyword, Repetition};
use super::object::{self, BY_LINK, BY_NAME, CliObject, NamedFilter, named};
use super::output::{OutputLine, Show, with};
use super::style::OutputStyle;
use super::supported_options::SupportedOptions;
use crate::config::args::{BackendArgs, ChangeVerb, ObjectChange, ServiceArgs};
use crate::config::value::{AddrPort, ValueError};
use crate::control::protocol::{BackendHealth, BackendInfo, Request, ServiceInfo, ServicesReply};

type ServiceKeyword = Keyword<ServiceArgs>;

named!(ServiceArgs);
const SERVICE_VIP: ServiceKeyword = key!(ServiceArgs; "vip", "ADDR", vip);
const SERVICE_PROTO: ServiceKeyword = key!(ServiceArgs; "proto", "{ tcp | udp }", proto);
const SERVICE_PORT: ServiceKeyword = key!(ServiceArgs; "port", "PORT", port);
const BACKEND: ServiceKeyword = ServiceKeyword::value(&["backend"], "ADDR[:PORT]", |w, v| {
    let at: AddrPort = v.parse()?;
    w.backend.push(BackendArgs::from(at));
    Ok(())
})
.times(Repetition::Many);
const WEIGHT: ServiceKeyword = ServiceKeyword::value(&["weight"], "N", |w, v| {
    let weight = v
        .parse()
        .map_err(|_| ValueError::new("invalid weight: a number from 0 to 65535"))?;
    match w.backend.last_mut() {
        Some(backend) if backend.weight.is_none() => {
            backend.weight = Some(weight);
            Ok(())
        }
        Some(_) => Err(ValueError::new(
            "the backend before it has a weight already",
        )),
        None => Err(ValueError::new("a weight stands behind its backend")),
    }
})
.times(Repetition::Many);

const SERVICE_SETTINGS: [ServiceKeyword; 13] = [
    NAME,
    DEV,
    SERVICE_VIP.times(Repetition::Once),
    SERVICE_PROTO.times(Repetition::Once),
    SERVICE_PORT.times(Repetition::Once),
    BACKEND,
    WEIGHT,
    key!(ServiceArgs; "affinity", "{ none | client }", affinity),
    key!(ServiceArgs; "check", "{ tcp | icmp | none }", check),
    key!(ServiceArgs; "interval", "SECONDS", interval),
    key!(ServiceArgs; "timeout", "SECONDS", timeout),
    key!(ServiceArgs; "rise", "N", rise),
    key!(ServiceArgs; "fall", "N", fall),
];

impl CliObject for ServiceArgs {
    const KIND: &'static str = "service";
    const ADD: &'static [ServiceKeyword] = &SERVICE_SETTINGS;
    const SET: &'static [ServiceKeyword] = &grammar::settable(SERVICE_SETTINGS, 2);
    const DEL: &'static [ServiceKeyword] = &[NAME, DEV, BACKEND];

    const HONOURS: SupportedOptions = SupportedOptions::BRIEF
        .and(SupportedOptions::DETAILS)
        .and(SupportedOptions::STATISTICS)
        .and(SupportedOptions::NUMERIC);

    type Info = ServiceInfo;
    type Filter = NamedFilter;
    const SHOW: &'static [Keyword<NamedFilter>] = &[BY_NAME, BY_LINK];

    fn change(self, verb: ChangeVerb, _: &mut CommandContext) -> Result<ObjectChange, CliError> {
        Ok(ObjectChange::service(verb, self))
    }

    fn all(
        context: &mut CommandContext,
        filter: &NamedFilter,
    ) -> Result<Vec<ServiceInfo>, CliError> {
        let dev = filter.dev.clone();
        let request = Request::ListServices { dev };
        Ok(context.call::<ServicesReply>(&request)?.services)
    }

    fn named(filter: &NamedFilter, _: &OutputStyle) -> Option<String> {
        filter.named()
    }

    fn name(info: &ServiceInfo, _: &OutputStyle) -> String {
        info.service.name.to_string()
    }

    fn wants(_: &NamedFilter, _: &OutputStyle, _: &ServiceInfo) -> bool {
        true
    }
}

/// Commands of the object.
pub const SERVICE_OBJECT: ObjectDef = ObjectDef {
    name: "service",
    about: "virtual addresses and their backends",
    commands: &object::commands::<ServiceArgs>(),
    usual: Some(object::SHOW_INDEX),
    notes: "A weight is that of the backend before it, 1 if left out; 0 gives it nothing new.\nTo set, all backends are named again; del takes those away that are named.\nA check is made every interval (2 s) and may take timeout (1 s): after fall (3)\nfailures a backend is down, after rise (2) answers it is up.",
};

const fn word(health: BackendHealth) -> &'static str {
    match health {
        BackendHealth::Up => "up",
        BackendHealth::Down => "down",
        BackendHealth::Unknown => "unknown",
        BackendHealth::Draining => "draining",
    }
}

fn at(backend: &BackendInfo) -> AddrPort {
    AddrPort {
        addr: backend.address,
        port: Some(backend.port),
    }
}

impl Show for ServiceInfo {
    /// The first line recreates the service; the lines below show backends that receive no traffic, or with details
    /// or statistics all of them.
    fn text(&self, style: &OutputStyle) -> String {
        let mut text = self.brief(style);
        let all = style.details || style.statistics > 0;
        for one in &self.backends {
            if !all && one.health != BackendHealth::Down {
                continue;
            }
            text += &OutputLine::new("\n    backend")
                .word(&style.address(at(one)))
                .word(&style.health(one.health != BackendHealth::Down, word(one.health)))
                .end();
            if let Some(reason) = &one.reason {
                text += &format!(": {reason}");
            }
        }
        text
    }

    fn brief(&self, style: &OutputStyle) -> String {
        let s = &self.service;
        let line = OutputLine::new(style.name(&s.name))
            .value("dev", Some(style.name(&s.dev)))
            .value("vip", s.vip.map(|vip| style.address(vip)))
            .value("proto", s.proto.map(|proto| style.proto(proto)))
            .value("port", s.port);
        let backends = self.backends.iter();
        let line = backends.fold(line, |line, one| {
            line.value("backend", Some(style.address(at(one))))
                .value("weight", Some(one.weight))
        });
        line.value("affinity", s.affinity)
            .value("check", s.check)
            .value("interval", s.interval)
            .value("timeout", s.timeout)
            .value("rise", s.rise)
            .value("fall", s.fall)
            .end()
    }

    fn json(&self, _: &OutputStyle) -> Value {
        with(&self.service, &json!({ "backend": self.backends }))
    }
}
