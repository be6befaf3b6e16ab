//! `geneved service`: virtual addresses and who serves them.

use serde_json::{Value, json};

use super::command::Object;
use super::context::Context;
use super::error::CliError;
use super::field::key;
use super::grammar::{self, Keyword, Times};
use super::honours::Honours;
use super::object::{self, BY_LINK, BY_NAME, Subject, Wanted, named};
use super::output::{Line, Record, with};
use super::style::Style;
use crate::config::value::{AddrPort, ValueError};
use crate::config::words::{BackendWords, Change, ServiceWords, Verb};
use crate::control::protocol::{BackendInfo, Health, Request, ServiceInfo, Services};

type Key = Keyword<ServiceWords>;

named!();
const VIP: Key = key!("vip", "ADDR", vip);
const PROTO: Key = key!("proto", "{ tcp | udp }", proto);
const PORT: Key = key!("port", "PORT", port);
const BACKEND: Key = Key::value(&["backend"], "ADDR[:PORT]", |w, v| {
    let at: AddrPort = v.parse()?;
    w.backend.push(BackendWords::from(at));
    Ok(())
})
.times(Times::Many);
const WEIGHT: Key = Key::value(&["weight"], "N", |w, v| {
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
.times(Times::Many);

const SETTINGS: [Key; 13] = [
    NAME,
    DEV,
    VIP.times(Times::Once),
    PROTO.times(Times::Once),
    PORT.times(Times::Once),
    BACKEND,
    WEIGHT,
    key!("affinity", "{ none | client }", affinity),
    key!("check", "{ tcp | icmp | none }", check),
    key!("interval", "SECONDS", interval),
    key!("timeout", "SECONDS", timeout),
    key!("rise", "N", rise),
    key!("fall", "N", fall),
];

impl Subject for ServiceWords {
    const KIND: &'static str = "service";
    const ADD: &'static [Key] = &SETTINGS;
    const SET: &'static [Key] = &grammar::settable(SETTINGS, 2);
    const DEL: &'static [Key] = &[NAME, DEV, BACKEND];

    const HONOURS: Honours = Honours::BRIEF
        .and(Honours::DETAILS)
        .and(Honours::STATISTICS)
        .and(Honours::NUMERIC);

    type Info = ServiceInfo;
    type Filter = Wanted;
    const SHOW: &'static [Keyword<Wanted>] = &[BY_NAME, BY_LINK];

    fn change(self, verb: Verb, _: &mut Context) -> Result<Change, CliError> {
        Ok(Change::service(verb, self))
    }

    fn all(context: &mut Context, filter: &Wanted) -> Result<Vec<ServiceInfo>, CliError> {
        let dev = filter.dev.clone();
        let request = Request::ListServices { dev };
        Ok(context.call::<Services>(&request)?.services)
    }

    fn named(filter: &Wanted, _: &Style) -> Option<String> {
        filter.named()
    }

    fn name(info: &ServiceInfo, _: &Style) -> String {
        info.service.name.to_string()
    }

    fn wants(_: &Wanted, _: &Style, _: &ServiceInfo) -> bool {
        true
    }
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "service",
    about: "virtual addresses and their backends",
    commands: &object::commands::<ServiceWords>(),
    usual: Some(object::SHOW),
    notes: "A weight is that of the backend before it, 1 if left out; 0 gives it nothing new.\nTo set, all backends are named again; del takes those away that are named.\nA check is made every interval (2 s) and may take timeout (1 s): after fall (3)\nfailures a backend is down, after rise (2) answers it is up.",
};

const fn word(health: Health) -> &'static str {
    match health {
        Health::Up => "up",
        Health::Down => "down",
        Health::Unknown => "unknown",
        Health::Draining => "draining",
    }
}

fn at(backend: &BackendInfo) -> AddrPort {
    AddrPort {
        addr: backend.address,
        port: Some(backend.port),
    }
}

impl Record for ServiceInfo {
    /// The first line makes the service again; below it stand backends that get nothing, or all with
    /// details or statistics.
    fn text(&self, style: &Style) -> String {
        let mut text = self.brief(style);
        let all = style.details || style.statistics > 0;
        for one in &self.backends {
            if !all && one.health != Health::Down {
                continue;
            }
            text += &Line::new("\n    backend")
                .word(&style.address(at(one)))
                .word(&style.health(one.health != Health::Down, word(one.health)))
                .end();
            if let Some(reason) = &one.reason {
                text += &format!(": {reason}");
            }
        }
        text
    }

    fn brief(&self, style: &Style) -> String {
        let s = &self.service;
        let line = Line::new(style.name(&s.name))
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

    fn json(&self, _: &Style) -> Value {
        with(&self.service, &json!({ "backend": self.backends }))
    }
}
