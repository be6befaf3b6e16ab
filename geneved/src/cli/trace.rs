//! `geneved trace`: what would happen to a packet, stage by stage.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::command::{Command, Verb};
use super::context::Context;
use super::error::CliError;
use super::field::{flag, key};
use super::grammar::{self, Keyword, Times};
use super::honours::Honours;
use super::output::{Line, Record};
use super::style::Style;
use crate::config::value::{DfWord, Direction, Icmp, IfName, LabelsWord, Proto, RawOption};
use crate::config::words::TraceWords;
use crate::control::protocol::{Request, Trace, TraceReport, Verdict};

#[derive(Default)]
struct Words {
    dev: Option<IfName>,
    direction: Option<Direction>,
    from: Option<IpAddr>,
    to: Option<IpAddr>,
    proto: Option<Proto>,
    sport: Option<u16>,
    dport: Option<u16>,
    icmp: Option<Icmp>,
    host: Option<IpAddr>,
    option: Vec<RawOption>,
    labels: Option<LabelsWord>,
    len: Option<u16>,
    df: Option<DfWord>,
}

type Key = Keyword<Words>;

const KEYS: [Key; 14] = [
    key!("dev", "LINK", dev).times(Times::Once),
    flag!("egress", direction = Some(Direction::Egress)).choice(1),
    flag!("ingress", direction = Some(Direction::Ingress)).choice(1),
    key!("from", "ADDR", from).times(Times::Once),
    key!("to", "ADDR", to).times(Times::Once),
    key!("proto", "PROTO", proto).times(Times::Once),
    key!("sport", "PORT", sport),
    key!("dport", "PORT", dport),
    key!("icmp", "TYPE[/CODE]", icmp),
    key!("host", "HOST", host),
    key!("option", "CLASS:TYPE[=HEX]", option).times(Times::Many),
    key!("labels", "K=V,...", labels),
    key!("len" | "length", "BYTES", len),
    key!("df", "{ set | unset }", df),
];

/// The command.
pub const VERB: Verb = Verb {
    name: "trace",
    about: "what would happen to a packet, stage by stage, and why",
    command: Command::new(&["trace"], run, || grammar::words(&KEYS)).honouring(Honours::BRIEF),
    notes: "PROTO := { tcp | udp | icmp | icmpv6 | sctp | N }\n\"host\", \"option\" and \"labels\" are what an incoming packet comes from and with;\n\"len\" is the length of the whole inner IP packet.",
};

fn run(context: &mut Context, words: &[String]) -> Result<(), CliError> {
    let mut packet = Words::default();
    grammar::parse(&KEYS, words, &mut packet)?;
    let request = Request::Trace {
        packet: packet.whole().ok_or_else(CliError::incomplete)?,
    };
    let Trace { report } = context.call(&request)?;
    context.print(&[&report as &dyn Record])
}

impl Words {
    fn whole(self) -> Option<TraceWords> {
        Some(TraceWords {
            dev: self.dev?,
            direction: self.direction?,
            from: self.from?,
            to: self.to?,
            proto: self.proto?,
            sport: self.sport,
            dport: self.dport,
            icmp: self.icmp,
            host: self.host,
            option: self.option,
            labels: self.labels,
            len: self.len,
            df: self.df,
        })
    }
}

impl Record for TraceReport {
    fn text(&self, style: &Style) -> String {
        let mut text = String::new();
        for stage in &self.stages {
            let line = format!("{:<10} {:<12} {}", stage.stage, stage.result, stage.detail);
            text += &format!("{}\n", line.trim_end());
        }
        text + &self.brief(style)
    }

    fn brief(&self, style: &Style) -> String {
        let good = matches!(self.verdict, Verdict::Forward | Verdict::Deliver);
        Line::new(style.health(good, self.verdict.word()))
            .flag(
                self.reason.as_deref().unwrap_or_default(),
                self.reason.is_some(),
            )
            .value("host", self.host.map(|h| style.address(h)))
            .value("class", self.class.as_ref())
            .values("option", &self.options)
            .end()
    }

    fn json(&self, _: &Style) -> Value {
        json!(self)
    }
}
