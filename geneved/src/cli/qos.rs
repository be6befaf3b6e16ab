//! `geneved qos`: classes of service.

use serde_json::{Value, json};

use super::error::CliError;
use super::field::key;
use super::grammar::{Keyword, Times};
use super::object::{self, Subject};
use super::output::{Line, Record, Style, with};
use super::policy::{given, is_or_any};
use super::{Context, Object};
use crate::config::words::{Change, QosWords, Verb};
use crate::control::protocol::{ClassInfo, Classes, Request};

type Key = Keyword<QosWords>;

const NAME: Key = key!("name", "NAME", name).bare().times(Times::Once);
const DEV: Key = key!("dev", "LINK", dev).times(Times::Once);
const ID: Key = key!("id", "N", id);
const RATE: Key = key!("rate", "RATE", rate);
const BURST: Key = key!("burst", "SIZE", burst);
const DSCP: Key = key!("dscp", "DSCP", dscp);

impl Subject for QosWords {
    const NAME: &'static str = "qos";
    const ADD: &'static [Key] = &[NAME, DEV, ID.times(Times::Once), RATE, BURST, DSCP];
    const SET: &'static [Key] = &[NAME, DEV, ID, RATE, BURST, DSCP];
    const DEL: &'static [Key] = &[NAME, DEV];
    const SHOW: &'static [Key] = &[NAME.times(Times::Optional), DEV.times(Times::Optional)];

    fn change(self, verb: Verb) -> Result<Change, CliError> {
        Ok(Change::qos(verb, self))
    }

    fn show(self, context: &mut Context) -> Result<(), CliError> {
        let dev = given(self.dev);
        let Classes { mut classes } = context.call(&Request::ListClasses { dev })?;
        classes.retain(|c| is_or_any(&self.name, &c.class.name));
        object::print(context, &classes);
        Ok(())
    }
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "qos",
    about: "classes: rates and code points",
    commands: &object::commands::<QosWords>(),
    notes: "RATE := N{ bit | kbit | mbit | gbit | bps | kbps | mbps | ... } as in tc\nSIZE := N[ k | m | g ]    DSCP := { 0..63 | ef | af41 | cs5 | ... }\nid N := 0..255",
};

impl Record for ClassInfo {
    fn text(&self, style: &Style) -> String {
        let mut text = self.brief(style);
        if style.statistics {
            text += &format!(
                "\n    passed {} bytes, dropped {} bytes",
                style.number(self.passed_bytes),
                style.number(self.dropped_bytes)
            );
        }
        text
    }

    fn brief(&self, style: &Style) -> String {
        let c = &self.class;
        Line::new(style.name(c.name.as_str()))
            .value("dev", Some(style.name(c.dev.as_str())))
            .value("id", c.id)
            .value("rate", c.rate)
            .value("burst", c.burst)
            .value("dscp", c.dscp)
            .end()
    }

    fn json(&self, _: &Style) -> Value {
        let counters =
            json!({ "passed_bytes": self.passed_bytes, "dropped_bytes": self.dropped_bytes });
        with(&self.class, &counters)
    }
}
