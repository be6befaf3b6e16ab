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

use super::state::State;
use super::words::{Change, EndpointWords, LinkWords, RouteWords, Verb};

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/geneved/geneved.toml";
/// Where the control socket is unless the file or `--socket` says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/geneved/control.sock";

/// `io = "auto" | "io_uring" | "syscalls"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Io {
    /// io_uring where the kernel allows it, plain system calls otherwise.
    #[default]
    Auto,
    /// io_uring, or no start.
    IoUring,
    /// epoll and plain system calls.
    Syscalls,
}

/// `segmentation = "auto" | "off" | "gso" | "tunnel"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Segmentation {
    /// The best that the kernel has.
    #[default]
    Auto,
    /// One datagram a system call.
    Off,
    /// `UDP_SEGMENT`.
    Gso,
    /// Tunnel GSO through a device in the underlay.
    Tunnel,
}

/// `[daemon]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DaemonSettings {
    /// The backend of the packet path.
    pub io: Io,
    /// Threads of the packet path, 1 to 64.
    pub workers: u16,
    /// Who cuts super-packets.
    pub segmentation: Segmentation,
    /// The control socket.
    pub socket: PathBuf,
}

impl Default for DaemonSettings {
    fn default() -> Self {
        DaemonSettings {
            io: Io::default(),
            workers: 1,
            segmentation: Segmentation::default(),
            socket: PathBuf::from(DEFAULT_SOCKET),
        }
    }
}

/// A configuration that is whole and consistent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `[daemon]`; read at start only.
    pub daemon: DaemonSettings,
    /// Links, routes and endpoints.
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
    endpoint: Vec<Spanned<EndpointWords>>,
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

fn files(path: &Path) -> Vec<PathBuf> {
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
    let mut daemon_seen = false;
    let mut changes: Vec<(usize, Range<usize>, Change)> = Vec::new();
    for (index, (path, text)) in texts.iter().enumerate() {
        let file: File = match toml::from_str(text) {
            Ok(file) => file,
            Err(error) => {
                faults.push(Fault {
                    file: path.clone(),
                    at: error.span().map(|span| position(text, span.start)),
                    what: one_line(error.message()),
                });
                continue;
            }
        };
        if let Some(daemon) = file.daemon {
            let span = daemon.span();
            let mut fault = |what: &str| {
                let at = Some(position(text, span.start));
                faults.push(Fault {
                    file: path.clone(),
                    at,
                    what: what.to_owned(),
                });
            };
            if daemon_seen {
                fault("[daemon] was given in another file already; keep it in one");
            }
            if !(1..=64).contains(&daemon.get_ref().workers) {
                fault("[daemon]: workers must be from 1 to 64");
            }
            daemon_seen = true;
            config.daemon = daemon.into_inner();
        }
        let add = Verb::Add;
        changes.extend(
            file.link
                .into_iter()
                .map(|s| (index, s.span(), Change::link(add, s.into_inner()))),
        );
        changes.extend(
            file.route
                .into_iter()
                .map(|s| (index, s.span(), Change::route(add, s.into_inner()))),
        );
        changes.extend(
            file.endpoint
                .into_iter()
                .map(|s| (index, s.span(), Change::endpoint(add, s.into_inner()))),
        );
    }
    // A route may stand in a file before the one that has its link.
    changes.sort_by_key(|(_, _, change)| change.link.is_none());
    for (index, span, change) in changes {
        if let Err(refusal) = config.state.apply(&change) {
            let (path, text) = &texts[index];
            faults.push(Fault {
                file: path.clone(),
                at: Some(position(text, span.start)),
                what: refusal.to_string(),
            });
        }
    }
    config
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
    #[derive(Serialize)]
    struct Out<'a> {
        daemon: &'a DaemonSettings,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        link: Vec<LinkWords>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        route: Vec<RouteWords>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        endpoint: Vec<EndpointWords>,
    }
    let changes = state.changes();
    let out = Out {
        daemon,
        link: changes.iter().filter_map(|c| c.link.clone()).collect(),
        route: changes.iter().filter_map(|c| c.route.clone()).collect(),
        endpoint: changes.iter().filter_map(|c| c.endpoint.clone()).collect(),
    };
    toml::to_string(&out).expect("words have a form in TOML")
}
