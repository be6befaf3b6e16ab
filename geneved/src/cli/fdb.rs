//! `geneved fdb`: where MAC addresses are, in the words of `bridge fdb`.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::command::{Command, Object};
use super::context::Context;
use super::error::CliError;
use super::field::{addresses, key};
use super::grammar::{self, Keyword, Times};
use super::honours::Honours;
use super::object::{self, Subject};
use super::output::{Line, Record};
use super::style::Style;
use crate::config::value::{FdbMac, IfName};
use crate::config::words::{Change, FdbWords, Verb};
use crate::control::protocol::{Fdb, FdbInfo, FdbOrigin, Flushed, Request};

type Key = Keyword<FdbWords>;

const MAC: Key = key!("mac" | "lladdr", "MAC", mac).bare().times(Times::Once);
const DEV: Key = key!("dev" | "brport", "LINK", dev).times(Times::Once);
const DST: Key = Key::value(&["dst", "via"], "HOST[,HOST...]", |entry, list| {
    entry.dst.extend(addresses(list)?);
    Ok(())
});

/// Which entries are shown.
#[derive(Default)]
pub struct Wanted {
    mac: Option<FdbMac>,
    dev: Option<IfName>,
    dst: Option<IpAddr>,
}

const WANTED_DEV: Keyword<Wanted> = key!(Wanted; "dev" | "brport", "LINK", dev);

impl Subject for FdbWords {
    const KIND: &'static str = "fdb";
    const ADD: &'static [Key] = &[MAC, DEV, DST.times(Times::Once)];
    const DEL: &'static [Key] = &[MAC, DEV, DST];

    const HONOURS: Honours = Honours::STATISTICS.and(Honours::DETAILS);

    type Info = FdbInfo;
    type Filter = Wanted;
    const SHOW: &'static [Keyword<Wanted>] = &[
        key!(Wanted; "mac" | "lladdr", "MAC", mac).bare(),
        WANTED_DEV,
        key!(Wanted; "dst" | "via", "HOST", dst),
    ];

    fn change(self, verb: Verb, _: &mut Context) -> Result<Change, CliError> {
        Ok(Change::fdb(verb, self))
    }

    fn all(context: &mut Context, filter: &Wanted) -> Result<Vec<FdbInfo>, CliError> {
        let dev = filter.dev.clone();
        let request = Request::ListFdb { dev };
        Ok(context.call::<Fdb>(&request)?.fdb)
    }

    fn named(filter: &Wanted, _: &Style) -> Option<String> {
        filter.mac.map(|mac| mac.to_string())
    }

    fn name(info: &FdbInfo, _: &Style) -> String {
        info.mac.to_string()
    }

    fn wants(filter: &Wanted, _: &Style, info: &FdbInfo) -> bool {
        filter.mac.is_none_or(|mac| mac == info.mac)
            && filter.dst.is_none_or(|dst| Some(dst) == info.dst)
    }
}

const FLUSH: &[Keyword<Wanted>] = &[WANTED_DEV];

fn flush(context: &mut Context, words: &[String]) -> Result<(), CliError> {
    let mut wanted = Wanted::default();
    grammar::parse(FLUSH, words, &mut wanted)?;
    let request = Request::FlushFdb { dev: wanted.dev };
    context.call::<Flushed>(&request).map(drop)
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "fdb",
    about: "hosts of MAC addresses",
    commands: &{
        let [add, set, replace, del, show] = object::commands::<FdbWords>();
        let add = Command {
            names: &["add", "append"],
            ..add
        };
        let flush = Command::new(&["flush"], flush, || grammar::words(FLUSH));
        [add, set, replace, del, show, flush]
    },
    usual: Some(object::SHOW),
    notes: "MAC := { LLADDR | 00:00:00:00:00:00 }, the latter for what has no other way\nappend adds a host to the list of a group or of 00:00:00:00:00:00",
};

impl FdbInfo {
    fn is_permanent(&self) -> bool {
        self.origin != FdbOrigin::Learned
    }
}

impl Record for FdbInfo {
    fn text(&self, style: &Style) -> String {
        let mut text = Line::new(style.address(self.mac))
            .value("dev", Some(style.name(&self.dev)))
            .value("dst", self.dst.map(|host| style.address(host)))
            .end();
        if let (true, Some(used), Some(updated)) =
            (style.statistics > 0, self.used_s, self.updated_s)
        {
            text += &format!(" used {used}/{updated}");
        }
        text += " self";
        if self.is_permanent() {
            text += " permanent";
        }
        if style.details {
            text += &format!(" origin {}", self.origin.word());
        }
        text
    }

    fn json(&self, style: &Style) -> Value {
        let mut entry = json!({
            "mac": self.mac,
            "ifname": self.dev,
            "flags": ["self"],
            "state": if self.is_permanent() { "permanent" } else { "" },
            "origin": self.origin.word(),
        });
        if let Some(host) = self.dst {
            entry["dst"] = json!(host);
        }
        if let (true, Some(used), Some(updated)) =
            (style.statistics > 0, self.used_s, self.updated_s)
        {
            entry["used"] = json!(used);
            entry["updated"] = json!(updated);
        }
        entry
    }
}
