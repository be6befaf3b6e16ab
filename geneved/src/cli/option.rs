//! `geneved option`: Geneve options that users define.

use serde_json::{Value, json};

use super::error::CliError;
use super::field::{flag, key};
use super::grammar::{Keyword, Times};
use super::object::{self, Subject};
use super::output::{Line, Record, Style, with};
use super::policy::is_or_any;
use super::{Context, Object};
use crate::config::words::{Change, OptionWords, Verb};
use crate::control::protocol::{OptionInfo, Options, Request};

type Key = Keyword<OptionWords>;

const NAME: Key = key!("name", "NAME", name).bare().times(Times::Once);

impl Subject for OptionWords {
    const NAME: &'static str = "option";
    const ADD: &'static [Key] = &[
        NAME,
        key!("class", "CLASS", class).times(Times::Once),
        key!("type", "TYPE", kind).times(Times::Once),
        key!("len", "N", len).times(Times::Once),
        flag!("critical", critical = true),
    ];
    const DEL: &'static [Key] = &[NAME];
    const SHOW: &'static [Key] = &[NAME.times(Times::Optional)];

    fn change(self, verb: Verb) -> Result<Change, CliError> {
        Ok(Change::option(verb, self))
    }

    fn show(self, context: &mut Context) -> Result<(), CliError> {
        let Options { mut options } = context.call(&Request::ListOptions)?;
        options.retain(|o| is_or_any(&self.name, &o.option.name));
        object::print(context, &options);
        Ok(())
    }
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "option",
    about: "Geneve options of your own",
    commands: &object::commands_without_set::<OptionWords>(),
    notes: "CLASS := { 0x0000..0xffff | aws | ovn | cilium }    TYPE := 0x00..0xff\nlen N := bytes of data, a multiple of 4 up to 124\n\"critical\" sets the type's high bit.",
};

impl Record for OptionInfo {
    fn text(&self, style: &Style) -> String {
        let o = &self.option;
        let count = |n| style.statistics.then(|| style.number(n));
        Line::new(style.name(o.name.as_str()))
            .value("class", o.class)
            .value("type", o.kind)
            .value("len", o.len)
            .flag("critical", o.critical)
            .value("rx", count(self.rx))
            .value("tx", count(self.tx))
            .end()
    }

    fn brief(&self, style: &Style) -> String {
        self.text(style)
    }

    fn json(&self, _: &Style) -> Value {
        with(&self.option, &json!({ "rx": self.rx, "tx": self.tx }))
    }
}
