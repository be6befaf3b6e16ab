//! `geneved monitor`: what happens from now on.

use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::os::fd::AsFd;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::poll::PollFlags;
use serde_json::{Value, json};

use super::command::{Command, Verb};
use super::context::Context;
use super::error::CliError;
use super::grammar::{self, Keyword};
use super::honours::Honours;
use super::output::{self, Line, Record, render, with};
use super::style::Style;
use crate::config::value::Proto;
use crate::control::client::ClientError;
use crate::control::protocol::{
    ChangeKind, DropEvent, Event, Health, HealthEvent, HostEvent, LogEvent, Monitored, Request,
    Topic, What,
};
use crate::counted::noun;

#[derive(Default)]
struct Words {
    topics: Vec<Topic>,
}

type Key = Keyword<Words>;

macro_rules! topics {
    ($($word:literal $topic:ident)+) => {
        [$(Key::flag(&[$word], |w: &mut Words| w.topics.push(Topic::$topic))),+]
    };
}

const KEYS: [Key; 13] = topics! {
    "link" Link "route" Route "endpoint" Endpoint "fdb" Fdb "policy" Policy "nat" Nat "service" Service
    "qos" Qos "option" Option "drop" Drop "log" Log "health" Health "host" Host
};

/// The command.
pub const VERB: Verb = Verb {
    name: "monitor",
    about: "what is changed, dropped, logged and found out, as it happens",
    command: Command::new(&["monitor"], run, || grammar::words(&KEYS)).honouring(
        Honours::BRIEF
            .and(Honours::DETAILS)
            .and(Honours::COUNTERS)
            .and(Honours::NUMERIC)
            .and(Honours::TIME),
    ),
    notes: "Without a word, or with \"all\", everything is told.",
};

/// Prints what happens until the daemon ends or nobody reads.
fn run(context: &mut Context, words: &[String]) -> Result<(), CliError> {
    let mut wanted = Words::default();
    if words != ["all"] {
        grammar::parse(&KEYS, words, &mut wanted)?;
    }
    let style = context.style();
    let request = Request::Monitor {
        topics: wanted.topics,
    };
    let mut failed = None;
    let stdout = io::stdout();
    // Whoever has hung up is noticed although nothing happens.
    let stops = [(stdout.as_fd(), PollFlags::empty())];
    context.client()?.follow(&request, &stops, |reply| {
        let printed = serde_json::from_value(reply)
            .map_err(|error| strange(&error))
            .and_then(|Monitored { event }| output::write(show(&style, &event).as_bytes()));
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
    ClientError::Strange(format!("an event: {error}")).into()
}

/// One event as it is printed.
fn show(style: &Style, event: &Event) -> String {
    let text = render(style, &[&Timed { event }]);
    match style.json {
        true => text,
        false => stamp(style, event.time_us) + &text,
    }
}

/// `ip`'s time before a line, in local time, where it is wanted.
fn stamp(style: &Style, time_us: u64) -> String {
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

struct Timed<'a> {
    event: &'a Event,
}

impl Timed<'_> {
    fn record(&self) -> &dyn Record {
        match &self.event.what {
            What::Link(link) => &**link,
            What::Route(route) => route,
            What::Endpoint(endpoint) => endpoint,
            What::Fdb(entry) => entry,
            What::Policy(policy) => &**policy,
            What::Nat(nat) => &**nat,
            What::Service(service) => &**service,
            What::Qos(class) => class,
            What::Option(option) => option,
            What::Drop(drop) => drop,
            What::Log(log) => log,
            What::Health(health) => health,
            What::Host(host) => host,
            What::Lost(count) => count,
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

impl Record for Timed<'_> {
    fn text(&self, style: &Style) -> String {
        self.prefixed(&self.record().text(style))
    }

    fn brief(&self, style: &Style) -> String {
        self.prefixed(&self.record().brief(style))
    }

    fn json(&self, style: &Style) -> Value {
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

/// Who speaks to whom, as words of a filter.
fn between(line: Line, proto: Proto, src: (IpAddr, u16), dst: (IpAddr, u16)) -> Line {
    line.value("proto", Some(proto))
        .value("from", Some(proto.at(src.0, src.1)))
        .value("to", Some(proto.at(dst.0, dst.1)))
}

impl Record for DropEvent {
    fn text(&self, style: &Style) -> String {
        let mut line = Line::new("drop")
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

    fn brief(&self, style: &Style) -> String {
        self.text(style)
    }

    fn json(&self, _: &Style) -> Value {
        json!(self)
    }
}

impl Record for LogEvent {
    fn text(&self, style: &Style) -> String {
        let line = Line::new("log")
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

    fn brief(&self, style: &Style) -> String {
        self.text(style)
    }

    fn json(&self, _: &Style) -> Value {
        json!(self)
    }
}

impl Record for HealthEvent {
    fn text(&self, style: &Style) -> String {
        let word = match self.health {
            Health::Up => "up",
            Health::Down => "down",
            Health::Unknown => "unknown",
            Health::Draining => "draining",
        };
        let backend = std::net::SocketAddr::new(self.address, self.port);
        Line::new("health")
            .value("dev", Some(style.name(self.dev.as_str())))
            .values("service", self.services.iter().map(|name| style.name(name)))
            .value("backend", Some(style.address(backend)))
            .word(&style.health(self.health == Health::Up, word))
            .value("reason", self.reason.as_ref())
            .end()
    }

    fn brief(&self, style: &Style) -> String {
        self.text(style)
    }

    fn json(&self, _: &Style) -> Value {
        json!(self)
    }
}

impl Record for HostEvent {
    fn text(&self, style: &Style) -> String {
        let mut line = Line::new("host");
        if let Some(address) = self.address {
            line = line.word(&style.address(address));
        }
        line.word(&self.what).word(&self.detail).end()
    }

    fn brief(&self, style: &Style) -> String {
        self.text(style)
    }

    fn json(&self, _: &Style) -> Value {
        json!(self)
    }
}

/// Events that were lost.
impl Record for u64 {
    fn text(&self, style: &Style) -> String {
        format!(
            "lost {} {}, not read in time",
            style.number(*self),
            noun(*self, "event")
        )
    }

    fn brief(&self, style: &Style) -> String {
        self.text(style)
    }

    fn json(&self, _: &Style) -> Value {
        json!({ "lost": self })
    }
}
