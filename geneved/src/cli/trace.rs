//! `geneved trace`: what would happen to a packet, stage by stage.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::command::{CommandDef, GlobalCommand};
use super::context::CommandContext;
use super::error::CliError;
use super::field::{flag, key};
use super::grammar::{self, Keyword, Repetition};
use super::output::{OutputLine, Show};
use super::style::OutputStyle;
use super::supported_options::SupportedOptions;
use crate::config::args::TraceArgs;
use crate::config::value::{
    DfValue, DirectionValue, IcmpValue, IfName, LabelsValue, ProtocolValue, RawOption,
};
use crate::control::protocol::{Request, TraceReply, TraceReport, TraceVerdict};

#[derive(Default)]
struct TraceCommand {
    dev: Option<IfName>,
    direction: Option<DirectionValue>,
    from: Option<IpAddr>,
    to: Option<IpAddr>,
    proto: Option<ProtocolValue>,
    sport: Option<u16>,
    dport: Option<u16>,
    icmp: Option<IcmpValue>,
    host: Option<IpAddr>,
    option: Vec<RawOption>,
    labels: Option<LabelsValue>,
    len: Option<u16>,
    df: Option<DfValue>,
}

type TraceKeyword = Keyword<TraceCommand>;

const TRACE_KEYWORDS: [TraceKeyword; 14] = [
    key!(TraceCommand; "dev", "LINK", dev).times(Repetition::Once),
    flag!(TraceCommand; "egress", direction = Some(DirectionValue::Egress)).choice(1),
    flag!(TraceCommand; "ingress", direction = Some(DirectionValue::Ingress)).choice(1),
    key!(TraceCommand; "from", "ADDR", from).times(Repetition::Once),
    key!(TraceCommand; "to", "ADDR", to).times(Repetition::Once),
    key!(TraceCommand; "proto", "PROTO", proto).times(Repetition::Once),
    key!(TraceCommand; "sport", "PORT", sport),
    key!(TraceCommand; "dport", "PORT", dport),
    key!(TraceCommand; "icmp", "TYPE[/CODE]", icmp),
    key!(TraceCommand; "host", "HOST", host),
    key!(TraceCommand; "option", "CLASS:TYPE[=HEX]", option).times(Repetition::Many),
    key!(TraceCommand; "labels", "K=V,...", labels),
    key!(TraceCommand; "len" | "length", "BYTES", len),
    key!(TraceCommand; "df", "{ set | unset }", df),
];

/// The command.
pub const TRACE_COMMAND: GlobalCommand = GlobalCommand {
    name: "trace",
    about: "what would happen to a packet, stage by stage, and why",
    command: CommandDef::new(&["trace"], run, || grammar::words(&TRACE_KEYWORDS))
        .honouring(SupportedOptions::BRIEF),
    notes: "PROTO := { tcp | udp | icmp | icmpv6 | sctp | N }\n\"host\", \"option\" and \"labels\" are what an incoming packet comes from and with;\n\"len\" is the length of the whole inner IP packet.",
};

fn run(context: &mut CommandContext, words: &[String]) -> Result<(), CliError> {
    let mut packet = TraceCommand::default();
    grammar::parse(&TRACE_KEYWORDS, words, &mut packet)?;
    let request = Request::Trace {
        packet: packet.whole().ok_or_else(CliError::incomplete)?,
    };
    let TraceReply { report } = context.call(&request)?;
    context.print(&[&report as &dyn Show])
}

impl TraceCommand {
    fn whole(self) -> Option<TraceArgs> {
        Some(TraceArgs {
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

impl Show for TraceReport {
    fn text(&self, style: &OutputStyle) -> String {
        let mut text = String::new();
        for stage in &self.stages {
            let line = format!("{:<10} {:<12} {}", stage.stage, stage.result, stage.detail);
            text += &format!("{}\n", line.trim_end());
        }
        text + &self.brief(style)
    }

    fn brief(&self, style: &OutputStyle) -> String {
        let good = matches!(self.verdict, TraceVerdict::Forward | TraceVerdict::Deliver);
        OutputLine::new(style.health(good, self.verdict.word()))
            .flag(
                self.reason.as_deref().unwrap_or_default(),
                self.reason.is_some(),
            )
            .value("host", self.host.map(|h| style.address(h)))
            .value("class", self.class.as_ref())
            .values("option", &self.options)
            .end()
    }

    fn json(&self, _: &OutputStyle) -> Value {
        json!(self)
    }
}
