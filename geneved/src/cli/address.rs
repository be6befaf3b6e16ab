//! `geneved address`: individual addresses of a link's interface, with the syntax of `ip address`.

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

use super::command::ObjectDef;
use super::context::CommandContext;
use super::error::CliError;
use super::field::key;
use super::grammar::{Keyword, Repetition};
use super::link::in_netns;
use super::object::{self, CliObject};
use super::output::{OutputLine, Show};
use super::style::{FamilyOption, OutputStyle};
use super::supported_options::SupportedOptions;
use crate::config::args::{AddressArgs, ChangeVerb, ObjectChange};
use crate::config::value::{IfName, PrefixValue};
use crate::control::protocol::{LinkInfo, LinksReply, Request};

type AddressKeyword = Keyword<AddressArgs>;

const WORDS: [AddressKeyword; 2] = [
    key!(AddressArgs; "address" | "local", "PREFIX", prefix)
        .bare()
        .times(Repetition::Once),
    key!(AddressArgs; "dev", "LINK", dev).times(Repetition::Once),
];

/// Filter of `show`.
#[derive(Default)]
pub struct AddressFilter {
    prefix: Option<PrefixValue>,
    dev: Option<IfName>,
}

/// An address of a link.
#[derive(Clone, Debug, Deserialize)]
pub struct AddressInfo {
    prefix: IpNet,
    dev: IfName,
}

impl CliObject for AddressArgs {
    const KIND: &'static str = "address";
    const ADD: &'static [AddressKeyword] = &WORDS;
    const DEL: &'static [AddressKeyword] = &WORDS;
    const HONOURS: SupportedOptions = SupportedOptions::FAMILY.and(SupportedOptions::NETNS);
    const CHANGE_HONOURS: SupportedOptions = SupportedOptions::NETNS;

    type Info = AddressInfo;
    type Filter = AddressFilter;
    const SHOW: &'static [Keyword<AddressFilter>] = &[
        key!(AddressFilter; "address" | "to", "PREFIX", prefix).bare(),
        key!(AddressFilter; "dev", "LINK", dev),
    ];

    fn change(
        self,
        verb: ChangeVerb,
        context: &mut CommandContext,
    ) -> Result<ObjectChange, CliError> {
        if let Some(netns) = context.netns().map(str::to_owned) {
            super::link::is_in(context, &self.dev, &netns)?;
        }
        Ok(ObjectChange::address(verb, self))
    }

    fn named(filter: &AddressFilter, _: &OutputStyle) -> Option<String> {
        filter.prefix.map(|prefix| prefix.to_string())
    }

    fn name(info: &AddressInfo, _: &OutputStyle) -> String {
        info.prefix.to_string()
    }

    fn wants(_: &AddressFilter, style: &OutputStyle, info: &AddressInfo) -> bool {
        style.wants(info.prefix.addr())
    }

    fn all(
        context: &mut CommandContext,
        filter: &AddressFilter,
    ) -> Result<Vec<AddressInfo>, CliError> {
        let name = filter.dev.clone();
        let request = Request::ListLinks { name };
        let LinksReply { mut links } = context.call(&request)?;
        in_netns(context, filter.dev.as_ref(), &mut links)?;
        let of_link = |link: LinkInfo| {
            let dev = link.settings.name.clone();
            let all = link.settings.address.into_iter();
            all.map(move |prefix| AddressInfo {
                prefix: prefix.0,
                dev: dev.clone(),
            })
        };
        Ok(links.into_iter().flat_map(of_link).collect())
    }
}

/// Commands of the object.
pub const ADDRESS_OBJECT: ObjectDef = ObjectDef {
    name: "address",
    about: "addresses of links, one by one",
    commands: &[
        object::add::<AddressArgs>(),
        object::replace::<AddressArgs>(),
        object::del::<AddressArgs>(),
        object::show::<AddressArgs>(),
    ],
    usual: Some(3),
    notes: "PREFIX := ADDR/LENGTH\n\"geneved link set NAME address PREFIX\" replaces all of them, \"address none\" takes\nall of them away.",
};

impl Show for AddressInfo {
    fn text(&self, style: &OutputStyle) -> String {
        OutputLine::new(style.prefix(&self.prefix))
            .value("dev", Some(style.name(&self.dev)))
            .end()
    }

    fn json(&self, _: &OutputStyle) -> Value {
        json!({
            "ifname": self.dev,
            "family": FamilyOption::of(self.prefix.addr()).word(),
            "local": self.prefix.addr(),
            "prefixlen": self.prefix.prefix_len(),
        })
    }
}
