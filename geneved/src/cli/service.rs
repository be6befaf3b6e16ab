//! `geneved service`: virtual addresses and who serves them.

use serde_json::{Value, json};

use super::error::CliError;
use super::field::key;
use super::grammar::{Keyword, Times};
use super::object::{self, Subject};
use super::output::{Line, Record, Style, with};
use super::policy::{given, is_or_any};
use super::{Context, Object};
use crate::config::value::{AddrPort, ValueError};
use crate::config::words::{BackendWords, Change, ServiceWords, Verb};
use crate::control::protocol::{BackendInfo, Health, Request, ServiceInfo, Services};

type Key = Keyword<ServiceWords>;

const NAME: Key = key!("name", "NAME", name).bare().times(Times::Once);
const DEV: Key = key!("dev", "LINK", dev).times(Times::Once);
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
        .map_err(|_| ValueError("invalid weight: a number from 0 to 65535".into()))?;
    match w.backend.last_mut() {
        Some(backend) if backend.weight.is_none() => {
            backend.weight = Some(weight);
            Ok(())
        }
        Some(_) => Err(ValueError(
            "the backend before it has a weight already".into(),
        )),
        None => Err(ValueError("a weight stands behind its backend".into())),
    }
})
.times(Times::Many);
const AFFINITY: Key = key!("affinity", "{ none | client }", affinity);
const CHECK: Key = key!("check", "{ tcp | icmp | none }", check);
const INTERVAL: Key = key!("interval", "SECONDS", interval);
const TIMEOUT: Key = key!("timeout", "SECONDS", timeout);
const RISE: Key = key!("rise", "N", rise);
const FALL: Key = key!("fall", "N", fall);

impl Subject for ServiceWords {
    const NAME: &'static str = "service";
    const ADD: &'static [Key] = &[
        NAME,
        DEV,
        VIP.times(Times::Once),
        PROTO.times(Times::Once),
        PORT.times(Times::Once),
        BACKEND,
        WEIGHT,
        AFFINITY,
        CHECK,
        INTERVAL,
        TIMEOUT,
        RISE,
        FALL,
    ];
    const SET: &'static [Key] = &[
        NAME, DEV, VIP, PROTO, PORT, BACKEND, WEIGHT, AFFINITY, CHECK, INTERVAL, TIMEOUT, RISE,
        FALL,
    ];
    const DEL: &'static [Key] = &[NAME, DEV];
    const SHOW: &'static [Key] = &[NAME.times(Times::Optional), DEV.times(Times::Optional)];

    fn change(self, verb: Verb) -> Result<Change, CliError> {
        Ok(Change::service(verb, self))
    }

    fn show(self, context: &mut Context) -> Result<(), CliError> {
        let dev = given(self.dev);
        let Services { mut services } = context.call(&Request::ListServices { dev })?;
        services.retain(|s| is_or_any(&self.name, &s.service.name));
        object::print(context, &services);
        Ok(())
    }
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "service",
    about: "virtual addresses and their backends",
    commands: &object::commands::<ServiceWords>(),
    notes: "A weight is that of the backend before it, 1 if left out; 0 gives it nothing new.\nTo set, all backends are named again.\nA check is made every interval (2 s) and may take timeout (1 s): after fall (3)\nfailures a backend is down, after rise (2) answers it is up.",
};

const fn word(health: Health) -> &'static str {
    match health {
        Health::Up => "up",
        Health::Down => "down",
        Health::Unknown => "unknown",
        Health::Draining => "draining",
    }
}

fn backend(style: &Style, backend: &BackendInfo) -> String {
    let at = AddrPort {
        addr: backend.address,
        port: Some(backend.port),
    };
    let mut line = Line::new("backend")
        .word(&style.address(&at.to_string()))
        .value("weight", Some(backend.weight))
        .word(&style.health(backend.health != Health::Down, word(backend.health)))
        .end();
    if let Some(reason) = &backend.reason {
        line += &format!(": {reason}");
    }
    line
}

impl Record for ServiceInfo {
    fn text(&self, style: &Style) -> String {
        let mut text = self.brief(style);
        for one in &self.backends {
            text += &format!("\n    {}", backend(style, one));
        }
        text
    }

    fn brief(&self, style: &Style) -> String {
        let s = &self.service;
        Line::new(style.name(s.name.as_str()))
            .value("dev", Some(style.name(s.dev.as_str())))
            .value("vip", s.vip.map(|vip| style.address(&vip.to_string())))
            .value("proto", s.proto)
            .value("port", s.port)
            .value("affinity", s.affinity)
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
