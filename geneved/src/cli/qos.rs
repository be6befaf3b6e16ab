//! `geneved qos`: classes of service.

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
use crate::config::words::{Change, QosWords, Verb};
use crate::control::protocol::{ClassInfo, Classes, Request};

type Key = Keyword<QosWords>;

named!();

const SETTINGS: [Key; 6] = [
    NAME,
    DEV,
    key!("id", "N", id).times(Times::Once),
    key!("rate", "{ RATE | none }", rate),
    key!("burst", "{ SIZE | none }", burst),
    key!("dscp", "{ DSCP | none }", dscp),
];

impl Subject for QosWords {
    const KIND: &'static str = "qos";
    const ADD: &'static [Key] = &SETTINGS;
    const SET: &'static [Key] = &grammar::settable(SETTINGS, 2);
    const DEL: &'static [Key] = &[NAME, DEV];

    const HONOURS: Honours = Honours::COUNTERS;

    type Info = ClassInfo;
    type Filter = Wanted;
    const SHOW: &'static [Keyword<Wanted>] = &[BY_NAME, BY_LINK];

    fn change(self, verb: Verb, _: &mut Context) -> Result<Change, CliError> {
        Ok(Change::qos(verb, self))
    }

    fn all(context: &mut Context, filter: &Wanted) -> Result<Vec<ClassInfo>, CliError> {
        let dev = filter.dev.clone();
        let request = Request::ListClasses { dev };
        Ok(context.call::<Classes>(&request)?.classes)
    }

    fn named(filter: &Wanted, _: &Style) -> Option<String> {
        filter.named()
    }

    fn name(info: &ClassInfo, _: &Style) -> String {
        info.class.name.to_string()
    }

    fn wants(_: &Wanted, _: &Style, _: &ClassInfo) -> bool {
        true
    }
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "qos",
    about: "classes: rates and code points",
    commands: &object::commands::<QosWords>(),
    usual: Some(object::SHOW),
    notes: "RATE := N{ bit | kbit | mbit | gbit | bps | kbps | mbps | ... } as in tc\nSIZE := N[ k | m | g ]    DSCP := { 0..63 | ef | af41 | cs5 | ... }\nid N := 0..255",
};

impl Record for ClassInfo {
    fn text(&self, style: &Style) -> String {
        let mut text = self.brief(style);
        if style.statistics > 0 {
            text += &format!(
                "\n    passed {} bytes, dropped {} bytes, marked {} bytes, backlog {} bytes",
                style.number(self.passed_bytes),
                style.number(self.dropped_bytes),
                style.number(self.marked_bytes),
                style.number(self.backlog_bytes)
            );
        }
        text
    }

    fn brief(&self, style: &Style) -> String {
        let c = &self.class;
        Line::new(style.name(&c.name))
            .value("dev", Some(style.name(&c.dev)))
            .value("id", c.id)
            .value("rate", c.rate)
            .value("burst", c.burst)
            .value("dscp", c.dscp)
            .end()
    }

    fn json(&self, _: &Style) -> Value {
        let counters = json!({
            "passed_bytes": self.passed_bytes,
            "dropped_bytes": self.dropped_bytes,
            "marked_bytes": self.marked_bytes,
            "backlog_bytes": self.backlog_bytes,
        });
        with(&self.class, &counters)
    }
}
