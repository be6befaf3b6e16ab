//! `geneved flow`: current flows.
use serde_json::{Value, json};

use super::command::{CommandDef, ObjectDef};
use super::context::CommandContext;
use super::error::CliError;
use super::field::key;
use super::grammar::{self, Keyword};
use super::object;
use super::output::{self, OutputLine, Show};
use super::style::OutputStyle;
use super::supported_options::SupportedOptions;
use crate::config::args::FlowFilter;
use crate::control::protocol::{
    DirectionCounts, FlowInfo, FlowsReply, FlushReply, Request, TraceVerdict,
};
use crate::plural::counted;

/// A million flows would be hundreds of megabytes of text.
const USUAL_LIMIT: u32 = 10_000;

#[derive(Default)]
struct FlowCommand {
    filter: FlowFilter,
    limit: Option<u32>,
}

type FlowKeyword = Keyword<FlowCommand>;

const FILTER: [FlowKeyword; 7] = [
    key!(FlowCommand; "dev", "LINK", filter.dev),
    key!(FlowCommand; "from", "PREFIX", filter.from),
    key!(FlowCommand; "to", "PREFIX", filter.to),
    key!(FlowCommand; "proto", "PROTO", filter.proto),
    key!(FlowCommand; "sport", "PORT", filter.sport),
    key!(FlowCommand; "dport", "PORT", filter.dport),
    key!(FlowCommand; "state", "STATE", filter.state),
];
const FLOW_SHOW: [FlowKeyword; 8] = {
    let [a, b, c, d, e, f, g] = FILTER;
    [a, b, c, d, e, f, g, key!(FlowCommand; "limit", "N", limit)]
};

/// Commands of the object.
pub const FLOW_OBJECT: ObjectDef = ObjectDef {
    name: "flow",
    about: "who talks to whom right now",
    commands: &[
        CommandDef::new(object::SHOW_NAMES, show, || grammar::words(&FLOW_SHOW)).honouring(
            SupportedOptions::BRIEF
                .and(SupportedOptions::COUNTERS)
                .and(SupportedOptions::NUMERIC)
                .and(SupportedOptions::FAMILY),
        ),
        CommandDef::new(&["flush"], flush, || grammar::words(&FILTER)),
    ],
    usual: Some(0),
    notes: "PREFIX := ADDR[/LENGTH]    PROTO := { tcp | udp | icmp | icmpv6 | sctp | N }\nSTATE := { half-open | established | closed | datagram | refused }\nFlows that are flushed are decided anew with their next packet.\nlimit N := 10000 if left out",
};

fn show(context: &mut CommandContext, words: &[String]) -> Result<(), CliError> {
    let mut wanted = FlowCommand::default();
    grammar::parse(&FLOW_SHOW, words, &mut wanted)?;
    let request = Request::ListFlows {
        filter: wanted.filter,
        limit: wanted.limit.unwrap_or(USUAL_LIMIT),
    };
    let (mut flows, mut total) = (Vec::new(), 0);
    context.gather_replies(&request, |reply: FlowsReply| {
        flows.extend(reply.flows);
        total = reply.total;
    })?;
    let told = u64::try_from(flows.len()).unwrap_or(u64::MAX);
    let style = context.style();
    flows.retain(|flow| style.wants(flow.src));
    object::print(context, &flows)?;
    if told < total {
        output::tell(format_args!(
            "{told} of {total} flows are shown; name which ones, or \"limit N\""
        ));
    }
    Ok(())
}

fn flush(context: &mut CommandContext, words: &[String]) -> Result<(), CliError> {
    let mut wanted = FlowCommand::default();
    grammar::parse(&FILTER, words, &mut wanted)?;
    let filter = wanted.filter;
    let FlushReply { count } = context.call(&Request::FlushFlows { filter })?;
    context.print(&[&FlushedFlows(count)])
}

struct FlushedFlows(u64);

impl Show for FlushedFlows {
    fn text(&self, _: &OutputStyle) -> String {
        format!("{} flushed", counted(self.0, "flow"))
    }

    fn json(&self, _: &OutputStyle) -> Value {
        json!({ "flushed": self.0 })
    }
}

impl Show for FlowInfo {
    fn text(&self, style: &OutputStyle) -> String {
        let between = |src, sport, dst, dport| {
            let (src, dst) = (self.proto.at(src, sport), self.proto.at(dst, dport));
            format!("{} > {}", style.address(src), style.address(dst))
        };
        let carried = matches!(self.verdict, TraceVerdict::Forward | TraceVerdict::Deliver);
        let mut text = OutputLine::new(style.proto(self.proto))
            .word(&between(self.src, self.sport, self.dst, self.dport))
            .value("dev", Some(style.name(&self.dev)))
            .word(self.state.word())
            .word(&style.health(carried, self.verdict.word()))
            .flag(
                self.reason.as_deref().unwrap_or_default(),
                self.reason.is_some(),
            )
            .value("host", self.host.map(|h| style.address(h)))
            .value("class", self.class.as_ref())
            .value("expires", Some(format_args!("{}s", self.expires_s)))
            .end();
        if let Some(t) = &self.translated {
            text += &format!(
                "\n    nat {} dev {}",
                between(t.src, t.sport, t.dst, t.dport),
                style.name(&t.dev)
            );
        }
        if style.statistics > 0 {
            let side = |side: &DirectionCounts| {
                let (packets, bytes) = (style.number(side.packets), style.number(side.bytes));
                format!("{packets} packets {bytes} bytes")
            };
            text += &format!(
                "\n    original {} reply {} age {}s idle {}s",
                side(&self.original),
                side(&self.reply),
                self.age_s,
                self.idle_s
            );
        }
        text
    }

    fn brief(&self, style: &OutputStyle) -> String {
        self.text(&style.plain())
            .lines()
            .next()
            .unwrap_or_default()
            .into()
    }

    fn json(&self, _: &OutputStyle) -> Value {
        json!(self)
    }
}
