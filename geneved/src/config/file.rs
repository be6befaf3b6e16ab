//! The configuration file: from TOML to a validated desired state, with a line number for every fault.
//!
//! Reads `FILE` and then `conf.d/*.toml` beside it, sorted by name. All faults of all files are reported at once; a
//! single fault prevents loading.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{
    ChangeVerb, EndpointArgs, FdbArgs, LinkArgs, NatArgs, ObjectArgs, ObjectChange, OptionArgs,
    PolicyArgs, QosArgs, RouteArgs, ServiceArgs,
};
use super::regular_file;
use super::secret::LabelSecret;
pub use super::settings::{DaemonSettings, IoSetting, SegmentationSetting, TimeoutSettings};
use super::state::{DesiredState, Fabric};
use super::toml_tables;
use super::value::{IfName, ModeValue};
use crate::refusal::RefusalCause;

/// Default path of the configuration.
pub const DEFAULT_PATH: &str = "/etc/geneved/geneved.toml";
/// Default path of the control socket.
pub const DEFAULT_SOCKET: &str = "/run/geneved/control.sock";
/// Default path of the metrics socket if the control socket is at its default path.
pub const DEFAULT_METRICS_SOCKET: &str = "/run/geneved/metrics.sock";

/// Maximum total size of all files; half a million endpoints need less.
pub const MAX_CONFIG_BYTES: usize = 64 << 20;

/// A complete and consistent configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `[daemon]`; only read at start.
    pub daemon: DaemonSettings,
    /// Content of the secret file.
    pub secret: Option<LabelSecret>,
    /// Links and the objects that belong to them.
    pub state: DesiredState,
}

/// One fault, displayed as `FILE:LINE:COLUMN: what`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// The file.
    pub file: PathBuf,
    /// Line and column, both from 1; `None` if the fault concerns the whole file.
    pub at: Option<(usize, usize)>,
    /// What is wrong, and how to fix it.
    pub what: String,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some((line, column)) = self.at {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.what)
    }
}

/// Loads `path` and its `conf.d`.
///
/// # Errors
/// All faults of all files.
pub fn load(path: &Path) -> Result<Config, Vec<ConfigFault>> {
    let mut faults = Vec::new();
    let mut texts = Vec::new();
    let mut left = MAX_CONFIG_BYTES;
    for path in files(path) {
        match regular_file::read_to_string(&path, left) {
            Ok(Some(text)) => {
                left -= text.len();
                texts.push((path, text));
            }
            Ok(None) => {
                faults.push(ConfigFault {
                    file: path,
                    at: None,
                    what: format!(
                        "with it there are more than {} MiB of configuration",
                        MAX_CONFIG_BYTES >> 20
                    ),
                });
                break;
            }
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

/// Parses a configuration from texts in memory, each with the path to name in faults.
///
/// # Errors
/// All faults of all texts.
pub fn parse(texts: &[(PathBuf, String)]) -> Result<Config, Vec<ConfigFault>> {
    let mut faults = Vec::new();
    let config = assemble(texts, &mut faults);
    if faults.is_empty() {
        Ok(config)
    } else {
        Err(faults)
    }
}

/// Returns the files that [`load`] reads.
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

fn unreadable(file: PathBuf, error: &io::Error) -> ConfigFault {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "; name another: \"run --config FILE\", \"check FILE\"",
        io::ErrorKind::PermissionDenied => "; check its owner and mode",
        _ => "",
    };
    ConfigFault {
        file,
        at: None,
        what: format!("cannot read it: {error}{hint}"),
    }
}

/// Faults as text index, offset and message, sorted for display.
type LocatedFault = Vec<(usize, usize, String)>;

fn assemble(texts: &[(PathBuf, String)], faults: &mut Vec<ConfigFault>) -> Config {
    let mut config = Config::default();
    let mut found = LocatedFault::new();
    let mut daemon_seen: Option<String> = None;
    let mut changes: Vec<(usize, usize, ObjectChange)> = Vec::new();
    let mut broken: Vec<Option<String>> = Vec::new();
    let mut garbled = false;
    let lines: Vec<_> = texts.iter().map(|(_, text)| LineIndex::of(text)).collect();
    for (index, (path, text)) in texts.iter().enumerate() {
        let tables = toml_tables::read(text);
        garbled |= tables.garbled > 0;
        let line = |at: usize| lines[index].position(at).0;
        // Tables recovered from lines that are not valid TOML are guesses.
        let (no_toml, others) = tables.faults.split_at(tables.garbled);
        let guessed: Vec<_> = no_toml.iter().map(|(at, _)| line(at.start)).collect();
        let told = others
            .iter()
            .filter(|(at, _)| !guessed.contains(&line(at.start)));
        let place = |(at, what): &(std::ops::Range<usize>, String)| (index, at.start, what.clone());
        found.extend(no_toml.iter().chain(told).map(place));
        if let Some(daemon) = tables.daemon {
            let mut wrong = daemon.settings.faults();
            let (line, column) = lines[index].position(daemon.span.start);
            let here = format!("{}:{line}:{column}", path.display());
            match &daemon_seen {
                Some(first) => wrong.push((
                    String::new(),
                    format!(
                        "[daemon] exists already; the first one is at {first}; keep it in one file"
                    ),
                )),
                None => daemon_seen = Some(here),
            }
            if let Some(secret) = daemon.settings.label_secret_file.as_deref() {
                match LabelSecret::read(secret) {
                    Ok(secret) => config.secret = Some(secret),
                    Err(refusal) => {
                        wrong.push(("label-secret-file".into(), format!("[daemon]: {refusal}")));
                    }
                }
            }
            let place = |(key, what): (String, String)| (index, daemon.at(&key).start, what);
            found.extend(wrong.into_iter().map(place));
            config.daemon = daemon.settings;
        }
        let place =
            |(at, change): (std::ops::Range<usize>, ObjectChange)| (index, at.start, change);
        changes.extend(tables.changes.into_iter().map(place));
        broken.extend(tables.broken);
    }
    config.state = DesiredState::on(Fabric {
        // An unreadable secret is one fault, not one for each label.
        secret: config.daemon.label_secret_file.is_some(),
        option_class: config.daemon.option_class,
    });
    // With parts of a file lost, a reference to a missing object proves nothing.
    if !garbled {
        let places = (texts, &lines[..]);
        judge(places, &mut config.state, changes, broken, &mut found);
    }
    found.sort_by_key(|(index, at, _)| (*index, *at));
    faults.extend(found.into_iter().map(|(index, at, what)| ConfigFault {
        file: texts[index].0.clone(),
        at: Some(lines[index].position(at)),
        what,
    }));
    config
}

/// Applies the objects to the state one by one. What does not fit is a fault, unless the cause is an object that is
/// `broken`.
fn judge(
    (texts, lines): (&[(PathBuf, String)], &[LineIndex<'_>]),
    state: &mut DesiredState,
    mut changes: Vec<(usize, usize, ObjectChange)>,
    broken: Vec<Option<String>>,
    found: &mut LocatedFault,
) {
    let nameless = broken.contains(&None);
    let mut broken: HashSet<String> = broken.into_iter().flatten().collect();
    for name in &broken {
        stand_in(state, name, None);
    }
    // An object may precede in the file those that it refers to.
    changes.sort_by_key(|(_, _, change)| rank(change));
    // Positions of the objects accepted so far.
    let mut places: Vec<(ObjectChange, usize, usize)> = Vec::with_capacity(changes.len());
    for (index, at, change) in changes {
        let refusal = match state.apply(&change) {
            Ok(()) => {
                places.push((change, index, at));
                continue;
            }
            Err(refusal) => refusal,
        };
        let object = refusal.cause.object();
        if object.is_some_and(|name| broken.contains(name))
            || (nameless && matches!(refusal.cause, RefusalCause::NoLink(_)))
        {
            continue;
        }
        let first = match refusal.cause {
            RefusalCause::Exists(_) => places.iter().find(|(c, ..)| c.names_the_same(&change)),
            _ => None,
        };
        if let (Some(ObjectArgs::Link(link)), None) = (change.subject(), first) {
            stand_in(state, link.name.as_str(), link.mode);
            broken.insert(link.name.to_string());
        }
        let what = match first {
            Some((_, index, start)) => {
                let path = &texts[*index].0;
                let (line, column) = lines[*index].position(*start);
                format!(
                    "{}; the first one is at {}:{line}:{column}",
                    refusal.reason,
                    path.display()
                )
            }
            None => refusal.to_string(),
        };
        found.push((index, at, what));
    }
}

/// Puts a placeholder in place of a link with faults, so that the objects on it can be checked.
fn stand_in(state: &mut DesiredState, name: &str, mode: Option<ModeValue>) {
    const HIGHEST: u32 = (1 << 24) - 1;
    let Ok(name) = name.parse::<IfName>() else {
        return;
    };
    let used = u32::try_from(state.links.len()).unwrap_or(0);
    let link = LinkArgs {
        id: (HIGHEST - used).to_string().parse().ok(),
        mode,
        name,
        ..LinkArgs::default()
    };
    // If the placeholder does not fit either, the objects on the link are not checked.
    let _ = state.apply(&ObjectChange::link(ChangeVerb::Add, link));
}

/// Rank of a change: objects refer only to objects of lower rank.
fn rank(change: &ObjectChange) -> u8 {
    match change.subject() {
        Some(ObjectArgs::Option(_)) => 0,
        Some(ObjectArgs::Link(_)) => 1,
        Some(ObjectArgs::Qos(_)) => 2,
        Some(ObjectArgs::Endpoint(e)) if e.target.is_some() => 4,
        _ => 3,
    }
}

/// Line starts of a text.
struct LineIndex<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> LineIndex<'t> {
    fn of(text: &'t str) -> Self {
        let later = text.match_indices('\n').map(|(at, _)| at + 1);
        LineIndex {
            text,
            starts: std::iter::once(0).chain(later).collect(),
        }
    }

    /// Line and column of an offset, both from 1.
    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        let before = self.text.get(start..offset).unwrap_or("");
        (line, before.chars().count() + 1)
    }
}

/// A configuration as the tables and keys of a file.
#[derive(Debug, Default, Serialize)]
pub struct ConfigDocument {
    daemon: DaemonSettings,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    option: Vec<OptionArgs>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    link: Vec<LinkArgs>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    qos: Vec<QosArgs>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    route: Vec<RouteArgs>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fdb: Vec<FdbArgs>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    endpoint: Vec<EndpointArgs>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policy: Vec<PolicyArgs>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nat: Vec<NatArgs>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    service: Vec<ServiceArgs>,
}

/// Formats a configuration as a file that loads back to it.
#[must_use]
pub fn save(daemon: &DaemonSettings, state: &DesiredState) -> String {
    toml::to_string(&in_tables(daemon, state)).expect("words have a form in TOML")
}

/// Converts a configuration to the tables of that file.
#[must_use]
pub fn in_tables(daemon: &DaemonSettings, state: &DesiredState) -> ConfigDocument {
    let mut out = ConfigDocument {
        daemon: daemon.clone(),
        ..ConfigDocument::default()
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
    out
}
