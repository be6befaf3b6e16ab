//! `geneved qos`: classes of service.

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
use crate::config::args::{ChangeVerb, ObjectChange, QosArgs};
use crate::control::protocol::{ClassInfo, ClassesReply, Request};

type QosKeyword = Keyword<QosArgs>;

named!(QosArgs);

const QOS_SETTINGS: [QosKeyword; 6] = [
    NAME,
    DEV,
    key!(QosArgs; "id", "N", id).times(Repetition::Once),
    key!(QosArgs; "rate", "{ RATE | none }", rate),
    key!(QosArgs; "burst", "{ SIZE | none }", burst),
    key!(QosArgs; "dscp", "{ DSCP | none }", dscp),
];

impl CliObject for QosArgs {
    const KIND: &'static str = "qos";
    const ADD: &'static [QosKeyword] = &QOS_SETTINGS;
    const SET: &'static [QosKeyword] = &grammar::settable(QOS_SETTINGS, 2);
    const DEL: &'static [QosKeyword] = &[NAME, DEV];

    const HONOURS: SupportedOptions = SupportedOptions::COUNTERS;

    type Info = ClassInfo;
    type Filter = NamedFilter;
    const SHOW: &'static [Keyword<NamedFilter>] = &[BY_NAME, BY_LINK];

    fn change(self, verb: ChangeVerb, _: &mut CommandContext) -> Result<ObjectChange, CliError> {
        Ok(ObjectChange::qos(verb, self))
    }

    fn all(context: &mut CommandContext, filter: &NamedFilter) -> Result<Vec<ClassInfo>, CliError> {
        let dev = filter.dev.clone();
        let request = Request::ListClasses { dev };
        Ok(context.call::<ClassesReply>(&request)?.classes)
    }

    fn named(filter: &NamedFilter, _: &OutputStyle) -> Option<String> {
        filter.named()
    }

    fn name(info: &ClassInfo, _: &OutputStyle) -> String {
        info.class.name.to_string()
    }

    fn wants(_: &NamedFilter, _: &OutputStyle, _: &ClassInfo) -> bool {
        true
    }
}

/// Commands of the object.
pub const QOS_OBJECT: ObjectDef = ObjectDef {
    name: "qos",
    about: "classes: rates and code points",
    commands: &object::commands::<QosArgs>(),
    usual: Some(object::SHOW_INDEX),
    notes: "RATE := N{ bit | kbit | mbit | gbit | bps | kbps | mbps | ... } as in tc\nSIZE := N[ k | m | g ]    DSCP := { 0..63 | ef | af41 | cs5 | ... }\nid N := 0..255",
};

impl Show for ClassInfo {
    fn text(&self, style: &OutputStyle) -> String {
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

    fn brief(&self, style: &OutputStyle) -> String {
        let c = &self.class;
        OutputLine::new(style.name(&c.name))
            .value("dev", Some(style.name(&c.dev)))
            .value("id", c.id)
            .value("rate", c.rate)
            .value("burst", c.burst)
            .value("dscp", c.dscp)
            .end()
    }

    fn json(&self, _: &OutputStyle) -> Value {
        let counters = json!({
            "passed_bytes": self.passed_bytes,
            "dropped_bytes": self.dropped_bytes,
            "marked_bytes": self.marked_bytes,
            "backlog_bytes": self.backlog_bytes,
        });
        with(&self.class, &counters)
    }
}
