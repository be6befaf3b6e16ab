//! The configuration file: TOML to a validated desired state, every fault with its line.
//!
//! Reads `FILE` and, beside it, `conf.d/*.toml` in the order of their names. All faults of all
//! files are reported at once; with a single fault nothing is loaded.

use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::secret::Secret;
pub use super::settings::{DaemonSettings, Io, Segmentation, Timeouts};
use super::state::{Fabric, State, nearest};
use super::words::{
    Change, EndpointWords, FdbWords, LinkWords, NatWords, OptionWords, PolicyWords, QosWords,
    RouteWords, ServiceWords, Subject, Verb,
};

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/geneved/geneved.toml";
/// Where the control socket is unless the file or `--socket` says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/geneved/control.sock";
/// Where metrics are served if the control socket is where it usually is.
pub const DEFAULT_METRICS_SOCKET: &str = "/run/geneved/metrics.sock";

/// A configuration that is whole and consistent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `[daemon]`; read at start only.
    pub daemon: DaemonSettings,
    /// The content of the secret file.
    pub secret: Option<Secret>,
    /// Links and what belongs to them.
    pub state: State,
}

/// One fault, as `FILE:LINE:COLUMN: what`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// Line and column, both from 1; `None` where the file as a whole is meant.
    pub at: Option<(usize, usize)>,
    /// What is wrong, and what to do about it.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some((line, column)) = self.at {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.what)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    daemon: Option<Spanned<DaemonSettings>>,
    #[serde(default)]
    link: Vec<Spanned<LinkWords>>,
    #[serde(default)]
    route: Vec<Spanned<RouteWords>>,
    #[serde(default)]
    fdb: Vec<Spanned<FdbWords>>,
    #[serde(default)]
    endpoint: Vec<Spanned<EndpointWords>>,
    #[serde(default)]
    option: Vec<Spanned<OptionWords>>,
    #[serde(default)]
    qos: Vec<Spanned<QosWords>>,
    #[serde(default)]
    policy: Vec<Spanned<PolicyWords>>,
    #[serde(default)]
    nat: Vec<Spanned<NatWords>>,
    #[serde(default)]
    service: Vec<Spanned<ServiceWords>>,
}

/// Reads `path` and its `conf.d`.
///
/// # Errors
/// All faults of all files.
pub fn load(path: &Path) -> Result<Config, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut texts = Vec::new();
    for path in files(path) {
        match fs::read_to_string(&path) {
            Ok(text) => texts.push((path, text)),
            Err(error) => faults.push(unreadable(path, &error)),
        }
    }
    let config = assemble(&texts, &mut faults);
    if faults.is_empty() {
        Ok(config)
    } else {
        Err(faults)
    }
}

/// A configuration from texts that were read already, each with the path to name in faults.
///
/// # Errors
/// All faults of all texts.
pub fn parse(texts: &[(PathBuf, String)]) -> Result<Config, Vec<Fault>> {
    let mut faults = Vec::new();
    let config = assemble(texts, &mut faults);
    if faults.is_empty() {
        Ok(config)
    } else {
        Err(faults)
    }
}

/// The files that [`load`] reads.
#[must_use]
pub fn files(path: &Path) -> Vec<PathBuf> {
    let mut files = vec![path.to_owned()];
    let beside = path.parent().map(|p| p.join("conf.d"));
    if let Some(entries) = beside.and_then(|dir| fs::read_dir(dir).ok()) {
        let mut more: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        more.retain(|p| p.extension().is_some_and(|e| e == "toml"));
        more.sort();
        files.extend(more);
    }
    files
}

fn unreadable(file: PathBuf, error: &io::Error) -> Fault {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "; name another with --config FILE",
        io::ErrorKind::PermissionDenied => "; check its owner and mode",
        _ => "",
    };
    Fault {
        file,
        at: None,
        what: format!("cannot read it: {error}{hint}"),
    }
}

fn assemble(texts: &[(PathBuf, String)], faults: &mut Vec<Fault>) -> Config {
    let mut config = Config::default();
    let mut daemon_seen: Option<String> = None;
    let mut changes: Vec<(usize, Range<usize>, Change)> = Vec::new();
    for (index, (path, text)) in texts.iter().enumerate() {
        let file: File = match toml::from_str(text) {
            Ok(file) => file,
            Err(error) => {
                faults.push(Fault {
                    file: path.clone(),
                    at: error.span().map(|span| position(text, span.start)),
                    what: with_nearest(&one_line(error.message())),
                });
                continue;
            }
        };
        let span = file.daemon.as_ref().map(Spanned::span).unwrap_or_default();
        if let Some(daemon) = file.daemon {
            let daemon = daemon.into_inner();
            let mut wrong = daemon.faults();
            let (line, column) = position(text, span.start);
            let here = format!("{}:{line}:{column}", path.display());
            match &daemon_seen {
                Some(first) => wrong.push(format!(
                    "[daemon] exists already; the first one is at {first}; keep it in one file"
                )),
                None => daemon_seen = Some(here),
            }
            if let Some(secret) = daemon.label_secret_file.as_deref() {
                match Secret::read(secret) {
                    Ok(secret) => config.secret = Some(secret),
                    Err(refusal) => wrong.push(format!("[daemon]: {refusal}")),
                }
            }
            faults.extend(wrong.into_iter().map(|what| Fault {
                file: path.clone(),
                at: Some((line, column)),
                what,
            }));
            config.daemon = daemon;
        }
        collect(index, file.option, Change::option, &mut changes);
        collect(index, file.link, Change::link, &mut changes);
        collect(index, file.qos, Change::qos, &mut changes);
        collect(index, file.route, Change::route, &mut changes);
        collect(index, file.fdb, Change::fdb, &mut changes);
        collect(index, file.endpoint, Change::endpoint, &mut changes);
        collect(index, file.policy, Change::policy, &mut changes);
        collect(index, file.nat, Change::nat, &mut changes);
        collect(index, file.service, Change::service, &mut changes);
    }
    config.state = State::on(Fabric {
        // A secret that cannot be read is one fault, not one for each label.
        secret: config.daemon.label_secret_file.is_some(),
        option_class: config.daemon.option_class,
    });
    // An object may stand in a file before what it names.
    changes.sort_by_key(|(_, _, change)| rank(change));
    // Where each object stands that was accepted.
    let mut places: Vec<(Change, usize, usize)> = Vec::with_capacity(changes.len());
    for (index, span, change) in changes {
        let (path, text) = &texts[index];
        match config.state.apply(&change) {
            Ok(()) => places.push((change, index, span.start)),
            Err(refusal) => {
                let first = places.iter().find(|(c, ..)| c.names_the_same(&change));
                let what = match first {
                    Some((_, index, start)) => {
                        let (path, text) = &texts[*index];
                        let (line, column) = position(text, *start);
                        format!(
                            "{}; the first one is at {}:{line}:{column}",
                            refusal.reason,
                            path.display()
                        )
                    }
                    None => refusal.to_string(),
                };
                faults.push(Fault {
                    file: path.clone(),
                    at: Some(position(text, span.start)),
                    what,
                });
            }
        }
    }
    config
}

fn collect<T>(
    index: usize,
    words: Vec<Spanned<T>>,
    change: fn(Verb, T) -> Change,
    into: &mut Vec<(usize, Range<usize>, Change)>,
) {
    let add = |s: Spanned<T>| (index, s.span(), change(Verb::Add, s.into_inner()));
    into.extend(words.into_iter().map(add));
}

/// What only names what has a lower rank.
fn rank(change: &Change) -> u8 {
    match change.subject() {
        Some(Subject::Option(_)) => 0,
        Some(Subject::Link(_)) => 1,
        Some(Subject::Qos(_)) => 2,
        Some(Subject::Endpoint(e)) if e.target.is_some() => 4,
        _ => 3,
    }
}

/// Puts the key that is meant before the list of all: "unknown field `remot`, expected one of `name`, ...".
fn with_nearest(message: &str) -> String {
    let Some((unknown, expected)) = message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split_once("`, expected "))
    else {
        return message.to_owned();
    };
    // What is in backquotes is every other piece.
    let keys = expected.split('`').skip(1).step_by(2);
    match nearest(unknown, keys) {
        Some(near) => format!("unknown key \"{unknown}\"; did you mean \"{near}\"?"),
        None => format!(
            "unknown key \"{unknown}\"; expected {}",
            expected.replace('`', "\"")
        ),
    }
}

/// toml's messages may have several lines; a fault is one.
fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// A configuration as a file that loads back to it.
#[must_use]
pub fn save(daemon: &DaemonSettings, state: &State) -> String {
    #[derive(Default, Serialize)]
    struct Out {
        daemon: DaemonSettings,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        option: Vec<OptionWords>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        link: Vec<LinkWords>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        qos: Vec<QosWords>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        route: Vec<RouteWords>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        fdb: Vec<FdbWords>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        endpoint: Vec<EndpointWords>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        policy: Vec<PolicyWords>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        nat: Vec<NatWords>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        service: Vec<ServiceWords>,
    }
    let mut out = Out {
        daemon: daemon.clone(),
        ..Out::default()
    };
    for change in state.changes() {
        out.option.extend(change.option);
        out.link.extend(change.link);
        out.qos.extend(change.qos);
        out.route.extend(change.route);
        out.fdb.extend(change.fdb);
        out.endpoint.extend(change.endpoint);
        out.policy.extend(change.policy);
        out.nat.extend(change.nat);
        out.service.extend(change.service);
    }
    toml::to_string(&out).expect("words have a form in TOML")
}
