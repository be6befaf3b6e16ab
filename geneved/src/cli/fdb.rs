//! `geneved fdb`: locations of MAC addresses, with the syntax of `bridge fdb`.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::command::{CommandDef, ObjectDef};
use super::context::CommandContext;
use super::error::CliError;
use super::field::{addresses, key};
use super::grammar::{self, Keyword, Repetition};
use super::object::{self, CliObject};
use super::output::{OutputLine, Show};
use super::style::OutputStyle;
use super::supported_options::SupportedOptions;
use crate::config::args::{ChangeVerb, FdbArgs, ObjectChange};
use crate::config::value::{FdbMac, IfName};
use crate::control::protocol::{FdbInfo, FdbOrigin, FdbReply, FlushReply, Request};

type FdbKeyword = Keyword<FdbArgs>;

const FDB_MAC: FdbKeyword = key!(FdbArgs; "mac" | "lladdr", "MAC", mac)
    .bare()
    .times(Repetition::Once);
const FDB_DEV: FdbKeyword = key!(FdbArgs; "dev" | "brport", "LINK", dev).times(Repetition::Once);
const DST: FdbKeyword = FdbKeyword::value(&["dst", "via"], "HOST[,HOST...]", |entry, list| {
    entry.dst.extend(addresses(list)?);
    Ok(())
});

/// Filter of `show`.
#[derive(Default)]
pub struct FdbFilter {
    mac: Option<FdbMac>,
    dev: Option<IfName>,
    dst: Option<IpAddr>,
}

const WANTED_DEV: Keyword<FdbFilter> = key!(FdbFilter; "dev" | "brport", "LINK", dev);

impl CliObject for FdbArgs {
    const KIND: &'static str = "fdb";
    const ADD: &'static [FdbKeyword] = &[FDB_MAC, FDB_DEV, DST.times(Repetition::Once)];
    const DEL: &'static [FdbKeyword] = &[FDB_MAC, FDB_DEV, DST];

    const HONOURS: SupportedOptions = SupportedOptions::STATISTICS.and(SupportedOptions::DETAILS);

    type Info = FdbInfo;
    type Filter = FdbFilter;
    const SHOW: &'static [Keyword<FdbFilter>] = &[
        key!(FdbFilter; "mac" | "lladdr", "MAC", mac).bare(),
        WANTED_DEV,
        key!(FdbFilter; "dst" | "via", "HOST", dst),
    ];

    fn change(self, verb: ChangeVerb, _: &mut CommandContext) -> Result<ObjectChange, CliError> {
        Ok(ObjectChange::fdb(verb, self))
    }

    fn all(context: &mut CommandContext, filter: &FdbFilter) -> Result<Vec<FdbInfo>, CliError> {
        let dev = filter.dev.clone();
        let request = Request::ListFdb { dev };
        Ok(context.call::<FdbReply>(&request)?.fdb)
    }

    fn named(filter: &FdbFilter, _: &OutputStyle) -> Option<String> {
        filter.mac.map(|mac| mac.to_string())
    }

    fn name(info: &FdbInfo, _: &OutputStyle) -> String {
        info.mac.to_string()
    }

    fn wants(filter: &FdbFilter, _: &OutputStyle, info: &FdbInfo) -> bool {
        filter.mac.is_none_or(|mac| mac == info.mac)
            && filter.dst.is_none_or(|dst| Some(dst) == info.dst)
    }
}

const FDB_FLUSH: &[Keyword<FdbFilter>] = &[WANTED_DEV];

fn flush(context: &mut CommandContext, words: &[String]) -> Result<(), CliError> {
    let mut wanted = FdbFilter::default();
    grammar::parse(FDB_FLUSH, words, &mut wanted)?;
    let request = Request::FlushFdb { dev: wanted.dev };
    context.call::<FlushReply>(&request).map(drop)
}

/// Commands of the object.
pub const FDB_OBJECT: ObjectDef = ObjectDef {
    name: "fdb",
    about: "hosts of MAC addresses",
    commands: &{
        let [add, set, replace, del, show] = object::commands::<FdbArgs>();
        let add = CommandDef {
            names: &["add", "append"],
            ..add
        };
        let flush = CommandDef::new(&["flush"], flush, || grammar::words(FDB_FLUSH));
        [add, set, replace, del, show, flush]
    },
    usual: Some(object::SHOW_INDEX),
    notes: "MAC := { LLADDR | 00:00:00:00:00:00 }, the latter for what has no other way\nappend adds a host to the list of a group or of 00:00:00:00:00:00",
};

impl FdbInfo {
    fn is_permanent(&self) -> bool {
        self.origin != FdbOrigin::Learned
    }
}

impl Show for FdbInfo {
    fn text(&self, style: &OutputStyle) -> String {
        let mut text = OutputLine::new(style.address(self.mac))
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

    fn json(&self, style: &OutputStyle) -> Value {
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
