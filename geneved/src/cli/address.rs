//! `geneved address`: the addresses of a link's interface, one by one, in the words of `ip address`.

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

use super::command::Object;
use super::context::Context;
use super::error::CliError;
use super::field::key;
use super::grammar::{Keyword, Times};
use super::honours::Honours;
use super::link::in_netns;
use super::object::{self, Subject};
use super::output::{Line, Record};
use super::style::{Family, Style};
use crate::config::value::{IfName, Prefix};
use crate::config::words::{AddressWords, Change, Verb};
use crate::control::protocol::{LinkInfo, Links, Request};

type Key = Keyword<AddressWords>;

const WORDS: [Key; 2] = [
    key!("address" | "local", "PREFIX", prefix)
        .bare()
        .times(Times::Once),
    key!("dev", "LINK", dev).times(Times::Once),
];

/// Which addresses are shown.
#[derive(Default)]
pub struct Wanted {
    prefix: Option<Prefix>,
    dev: Option<IfName>,
}

/// An address of a link.
#[derive(Clone, Debug, Deserialize)]
pub struct AddressInfo {
    prefix: IpNet,
    dev: IfName,
}

impl Subject for AddressWords {
    const KIND: &'static str = "address";
    const ADD: &'static [Key] = &WORDS;
    const DEL: &'static [Key] = &WORDS;
    const HONOURS: Honours = Honours::FAMILY.and(Honours::NETNS);
    const CHANGE_HONOURS: Honours = Honours::NETNS;

    type Info = AddressInfo;
    type Filter = Wanted;
    const SHOW: &'static [Keyword<Wanted>] = &[
        key!(Wanted; "address" | "to", "PREFIX", prefix).bare(),
        key!(Wanted; "dev", "LINK", dev),
    ];

    fn change(self, verb: Verb, context: &mut Context) -> Result<Change, CliError> {
        if let Some(netns) = context.netns().map(str::to_owned) {
            super::link::is_in(context, &self.dev, &netns)?;
        }
        Ok(Change::address(verb, self))
    }

    fn named(filter: &Wanted, _: &Style) -> Option<String> {
        filter.prefix.map(|prefix| prefix.to_string())
    }

    fn name(info: &AddressInfo, _: &Style) -> String {
        info.prefix.to_string()
    }

    fn wants(_: &Wanted, style: &Style, info: &AddressInfo) -> bool {
        style.wants(info.prefix.addr())
    }

    fn all(context: &mut Context, filter: &Wanted) -> Result<Vec<AddressInfo>, CliError> {
        let name = filter.dev.clone();
        let request = Request::ListLinks { name };
        let Links { mut links } = context.call(&request)?;
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

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "address",
    about: "addresses of links, one by one",
    commands: &[
        object::add::<AddressWords>(),
        object::replace::<AddressWords>(),
        object::del::<AddressWords>(),
        object::show::<AddressWords>(),
    ],
    usual: Some(3),
    notes: "PREFIX := ADDR/LENGTH\n\"geneved link set NAME address PREFIX\" replaces all of them, \"address none\" takes\nall of them away.",
};

impl Record for AddressInfo {
    fn text(&self, style: &Style) -> String {
        Line::new(style.prefix(&self.prefix))
            .value("dev", Some(style.name(&self.dev)))
            .end()
    }

    fn json(&self, _: &Style) -> Value {
        json!({
            "ifname": self.dev,
            "family": Family::of(self.prefix.addr()).word(),
            "local": self.prefix.addr(),
            "prefixlen": self.prefix.prefix_len(),
        })
    }
}
