//! `geneved monitor`: live events.

use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::poll::PollFlags;
use serde_json::{Value, json};

use super::command::{CommandDef, GlobalCommand};
use super::context::CommandContext;
use super::error::CliError;
use super::grammar::{self, Keyword};
use super::output::{self, OutputLine, Show, render, with};
use super::style::OutputStyle;
use super::supported_options::SupportedOptions;
use crate::config::value::ProtocolValue;
use crate::control::client::CallError;
use crate::control::protocol::{
    BackendHealth, ChangeKind, DropEvent, Event, EventKind, HealthEvent, HostEvent, LogEvent,
    MonitorReply, Request, Topic,
};
use crate::plural::noun;

#[derive(Default)]
struct MonitorCommand {
    topics: Vec<Topic>,
}

type MonitorKeyword = Keyword<MonitorCommand>;

macro_rules! topics {
    ($($word:literal $topic:ident)+) => {
        [$(MonitorKeyword::flag(&[$word], |w: &mut MonitorCommand| w.topics.push(Topic::$topic))),+]
    };
}

const MONITOR_KEYWORDS: [MonitorKeyword; 13] = topics! {
    "link" Link "route" Route "endpoint" Endpoint "fdb" Fdb "policy" Policy "nat" Nat "service" Service
    "qos" Qos "option" Option "drop" Drop "log" Log "health" Health "host" Host
};

/// The command.
pub const MONITOR_COMMAND: GlobalCommand = GlobalCommand {
    name: "monitor",
    about: "what is changed, dropped, logged and found out, as it happens",
    command: CommandDef::new(&["monitor"], run, || grammar::words(&MONITOR_KEYWORDS)).honouring(
        SupportedOptions::BRIEF
            .and(SupportedOptions::DETAILS)
            .and(SupportedOptions::COUNTERS)
            .and(SupportedOptions::NUMERIC)
            .and(SupportedOptions::TIME),
    ),
    notes: "Without a word, or with \"all\", everything is told.",
};

/// Prints events until the daemon ends or the reader hangs up.
fn run(context: &mut CommandContext, words: &[String]) -> Result<(), CliError> {
    let mut wanted = MonitorCommand::default();
    if words != ["all"] {
        grammar::parse(&MONITOR_KEYWORDS, words, &mut wanted)?;
    }
    let style = context.style();
    let request = Request::Monitor {
        topics: wanted.topics,
    };
    let mut failed = None;
    let stdout = io::stdout();
    // Detects that the reader has hung up even if nothing happens.
    let stops = [(stdout.as_fd(), PollFlags::empty())];
    context.client()?.follow(&request, &stops, |reply| {
        let printed = serde_json::from_value(reply)
            .map_err(|error| strange(&error))
            .and_then(|MonitorReply { event }| output::write(show(&style, &event).as_bytes()));
        match printed {
            Ok(()) if output::is_closed() => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(()), Err)
}

fn strange(error: &serde_json::Error) -> CliError {
    CallError::Strange(format!("an event: {error}")).into()
}

/// Formats an event.
fn show(style: &OutputStyle, event: &Event) -> String {
    let text = render(style, &[&TimedEvent { event }]);
    match style.json {
        true => text,
        false => stamp(style, event.time_us) + &text,
    }
}

/// Timestamp before a line, in `ip`'s format and local time, if requested.
fn stamp(style: &OutputStyle, time_us: u64) -> String {
    let time = || time(time_us).to_zoned(TimeZone::system());
    match (style.tshort, style.timestamp) {
        (true, _) => time().strftime("[%Y-%m-%dT%H:%M:%S.%6f] ").to_string(),
        (false, true) => time()
            .strftime("Timestamp: %a %b %e %H:%M:%S %Y %6f usec\n")
            .to_string(),
        (false, false) => String::new(),
    }
}

fn time(time_us: u64) -> Timestamp {
    let micros = i64::try_from(time_us).unwrap_or(i64::MAX);
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}

struct TimedEvent<'a> {
    event: &'a Event,
}

impl TimedEvent<'_> {
    fn record(&self) -> &dyn Show {
        match &self.event.what {
            EventKind::Link(link) => &**link,
            EventKind::Route(route) => route,
            EventKind::Endpoint(endpoint) => endpoint,
            EventKind::Fdb(entry) => entry,
            EventKind::Policy(policy) => &**policy,
            EventKind::Nat(nat) => &**nat,
            EventKind::Service(service) => &**service,
            EventKind::Qos(class) => class,
            EventKind::Option(option) => option,
            EventKind::Drop(drop) => drop,
            EventKind::Log(log) => log,
            EventKind::Health(health) => health,
            EventKind::Host(host) => host,
            EventKind::Lost(count) => count,
        }
    }

    fn deleted(&self) -> bool {
        self.event.change == Some(ChangeKind::Deleted)
    }

    fn prefixed(&self, text: &str) -> String {
        if self.deleted() {
            format!("Deleted {text}")
        } else {
            text.to_owned()
        }
    }
}

impl Show for TimedEvent<'_> {
    fn text(&self, style: &OutputStyle) -> String {
        self.prefixed(&self.record().text(style))
    }

    fn brief(&self, style: &OutputStyle) -> String {
        self.prefixed(&self.record().brief(style))
    }

    fn json(&self, style: &OutputStyle) -> Value {
        let mut all = json!({
            "timestamp": time(self.event.time_us).to_string(),
            "object": self.event.what.topic().word(),
        });
        if let Some(change) = self.event.change {
            all["change"] = json!(change);
        }
        if self.deleted() {
            all["deleted"] = json!(true);
        }
        with(&all, &self.record().json(style))
    }
}

/// Formats the addresses and ports of a flow as filter words.
fn between(
    line: OutputLine,
    proto: ProtocolValue,
    src: (IpAddr, u16),
    dst: (IpAddr, u16),
) -> OutputLine {
    line.value("proto", Some(proto))
        .value("from", Some(proto.at(src.0, src.1)))
        .value("to", Some(proto.at(dst.0, dst.1)))
}

impl Show for DropEvent {
    fn text(&self, style: &OutputStyle) -> String {
        let mut line = OutputLine::new("drop")
            .value("dev", self.dev.as_ref().map(|d| style.name(d.as_str())))
            .word(self.direction.word())
            .word(&style.health(false, &self.reason))
            .value("vni", self.vni)
            .value("count", Some(style.number(self.count)));
        if let Some(s) = &self.sample {
            line = between(line, s.proto, (s.src, s.sport), (s.dst, s.dport))
                .value("len", Some(s.length))
                .value("host", s.host);
        }
        line.end()
    }

    fn brief(&self, style: &OutputStyle) -> String {
        self.text(style)
    }

    fn json(&self, _: &OutputStyle) -> Value {
        json!(self)
    }
}

impl Show for LogEvent {
    fn text(&self, style: &OutputStyle) -> String {
        let line = OutputLine::new("log")
            .value("dev", Some(style.name(self.dev.as_str())))
            .value("rule", self.rule.as_ref())
            .word(&style.health(self.verdict == "allow", &self.verdict));
        between(
            line,
            self.proto,
            (self.src, self.sport),
            (self.dst, self.dport),
        )
        .value("suppressed", Some(self.suppressed).filter(|n| *n > 0))
        .end()
    }

    fn brief(&self, style: &OutputStyle) -> String {
        self.text(style)
    }

    fn json(&self, _: &OutputStyle) -> Value {
        json!(self)
    }
}

impl Show for HealthEvent {
    fn text(&self, style: &OutputStyle) -> String {
        let word = match self.health {
            BackendHealth::Up => "up",
            BackendHealth::Down => "down",
            BackendHealth::Unknown => "unknown",
            BackendHealth::Draining => "draining",
        };
        let backend = std::net::SocketAddr::new(self.address, self.port);
        OutputLine::new("health")
            .value("dev", Some(style.name(self.dev.as_str())))
            .values("service", self.services.iter().map(|name| style.name(name)))
            .value("backend", Some(style.address(backend)))
            .word(&style.health(self.health == BackendHealth::Up, word))
            .value("reason", self.reason.as_ref())
            .end()
    }

    fn brief(&self, style: &OutputStyle) -> String {
        self.text(style)
    }

    fn json(&self, _: &OutputStyle) -> Value {
        json!(self)
    }
}

impl Show for HostEvent {
    fn text(&self, style: &OutputStyle) -> String {
        let mut line = OutputLine::new("host");
        if let Some(address) = self.address {
            line = line.word(&style.address(address));
        }
        line.word(&self.what).word(&self.detail).end()
    }

    fn brief(&self, style: &OutputStyle) -> String {
        self.text(style)
    }

    fn json(&self, _: &OutputStyle) -> Value {
        json!(self)
    }
}

/// Number of lost events.
impl Show for u64 {
    fn text(&self, style: &OutputStyle) -> String {
        format!(
            "lost {} {}, not read in time",
            style.number(*self),
            noun(*self, "event")
        )
    }

    fn brief(&self, style: &OutputStyle) -> String {
        self.text(style)
    }

    fn json(&self, _: &OutputStyle) -> Value {
        json!({ "lost": self })
    }
}
