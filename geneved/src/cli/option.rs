//! `geneved option`: Geneve options that users define.

use serde_json::{Value, json};

use super::command::Object;
use super::context::Context;
use super::error::CliError;
use super::field::{flag, key};
use super::grammar::{self, Keyword, Times};
use super::honours::Honours;
use super::object::{self, BY_NAME, Subject, Wanted};
use super::output::{Line, Record, with};
use super::style::Style;
use crate::config::words::{Change, OptionWords, Verb};
use crate::control::protocol::{OptionInfo, Options, Request};

type Key = Keyword<OptionWords>;

const NAME: Key = key!("name", "NAME", name).bare().times(Times::Once);

const SETTINGS: [Key; 5] = [
    NAME,
    key!("class", "CLASS", class).times(Times::Once),
    key!("type", "TYPE", kind).times(Times::Once),
    key!("len", "N", len).times(Times::Once),
    flag!("critical", critical = true),
];

impl Subject for OptionWords {
    const KIND: &'static str = "option";
    const ADD: &'static [Key] = &SETTINGS;
    const SET: &'static [Key] = &grammar::settable(SETTINGS, 1);
    const DEL: &'static [Key] = &[NAME];

    const HONOURS: Honours = Honours::COUNTERS;

    type Info = OptionInfo;
    type Filter = Wanted;
    const SHOW: &'static [Keyword<Wanted>] = &[BY_NAME];

    fn change(self, verb: Verb, _: &mut Context) -> Result<Change, CliError> {
        Ok(Change::option(verb, self))
    }

    fn all(context: &mut Context, _: &Wanted) -> Result<Vec<OptionInfo>, CliError> {
        let request = Request::ListOptions;
        Ok(context.call::<Options>(&request)?.options)
    }

    fn named(filter: &Wanted, _: &Style) -> Option<String> {
        filter.named()
    }

    fn name(info: &OptionInfo, _: &Style) -> String {
        info.option.name.to_string()
    }

    fn wants(_: &Wanted, _: &Style, _: &OptionInfo) -> bool {
        true
    }
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "option",
    about: "Geneve options of your own",
    commands: &object::commands::<OptionWords>(),
    usual: Some(object::SHOW),
    notes: "CLASS := { 0x0000..0xffff | aws | ovn | cilium }    TYPE := 0x00..0xff\nlen N := bytes of data, a multiple of 4 up to 124\n\"critical\" sets the type's high bit.",
};

impl Record for OptionInfo {
    fn text(&self, style: &Style) -> String {
        let o = &self.option;
        Line::new(style.name(&o.name))
            .value("class", o.class)
            .value("type", o.kind)
            .value("len", o.len)
            .flag("critical", o.critical)
            .value("rx", style.count(self.rx))
            .value("tx", style.count(self.tx))
            .end()
    }

    fn json(&self, _: &Style) -> Value {
        with(&self.option, &json!({ "rx": self.rx, "tx": self.tx }))
    }
}
