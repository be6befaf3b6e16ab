//! `geneved option`: user-defined Geneve options.

use serde_json::{Value, json};

use super::command::ObjectDef;
use super::context::CommandContext;
use super::error::CliError;
use super::field::{flag, key};
use super::grammar::{self, Keyword, Repetition};
use super::object::{self, BY_NAME, CliObject, NamedFilter};
use super::output::{OutputLine, Show, with};
use super::style::OutputStyle;
use super::supported_options::SupportedOptions;
use crate::config::args::{ChangeVerb, ObjectChange, OptionArgs};
use crate::control::protocol::{OptionInfo, OptionsReply, Request};

type OptionKeyword = Keyword<OptionArgs>;

const OPTION_NAME: OptionKeyword = key!(OptionArgs; "name", "NAME", name)
    .bare()
    .times(Repetition::Once);

const OPTION_SETTINGS: [OptionKeyword; 5] = [
    OPTION_NAME,
    key!(OptionArgs; "class", "CLASS", class).times(Repetition::Once),
    key!(OptionArgs; "type", "TYPE", kind).times(Repetition::Once),
    key!(OptionArgs; "len", "N", len).times(Repetition::Once),
    flag!(OptionArgs; "critical", critical = true),
];

impl CliObject for OptionArgs {
    const KIND: &'static str = "option";
    const ADD: &'static [OptionKeyword] = &OPTION_SETTINGS;
    const SET: &'static [OptionKeyword] = &grammar::settable(OPTION_SETTINGS, 1);
    const DEL: &'static [OptionKeyword] = &[OPTION_NAME];

    const HONOURS: SupportedOptions = SupportedOptions::COUNTERS;

    type Info = OptionInfo;
    type Filter = NamedFilter;
    const SHOW: &'static [Keyword<NamedFilter>] = &[BY_NAME];

    fn change(self, verb: ChangeVerb, _: &mut CommandContext) -> Result<ObjectChange, CliError> {
        Ok(ObjectChange::option(verb, self))
    }

    fn all(context: &mut CommandContext, _: &NamedFilter) -> Result<Vec<OptionInfo>, CliError> {
        let request = Request::ListOptions;
        Ok(context.call::<OptionsReply>(&request)?.options)
    }

    fn named(filter: &NamedFilter, _: &OutputStyle) -> Option<String> {
        filter.named()
    }

    fn name(info: &OptionInfo, _: &OutputStyle) -> String {
        info.option.name.to_string()
    }

    fn wants(_: &NamedFilter, _: &OutputStyle, _: &OptionInfo) -> bool {
        true
    }
}

/// Commands of the object.
pub const OPTION_OBJECT: ObjectDef = ObjectDef {
    name: "option",
    about: "Geneve options of your own",
    commands: &object::commands::<OptionArgs>(),
    usual: Some(object::SHOW_INDEX),
    notes: "CLASS := { 0x0000..0xffff | aws | ovn | cilium }    TYPE := 0x00..0xff\nlen N := bytes of data, a multiple of 4 up to 124\n\"critical\" sets the type's high bit.",
};

impl Show for OptionInfo {
    fn text(&self, style: &OutputStyle) -> String {
        let o = &self.option;
        OutputLine::new(style.name(&o.name))
            .value("class", o.class)
            .value("type", o.kind)
            .value("len", o.len)
            .flag("critical", o.critical)
            .value("rx", style.count(self.rx))
            .value("tx", style.count(self.tx))
            .end()
    }

    fn json(&self, _: &OutputStyle) -> Value {
        with(&self.option, &json!({ "rx": self.rx, "tx": self.tx }))
    }
}
