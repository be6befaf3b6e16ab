//! `[daemon]`: settings that are only read at start.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file::{DEFAULT_METRICS_SOCKET, DEFAULT_SOCKET};
use super::value::{LoopbackAddr, OptionClassValue};

/// `io = "auto" | "io_uring" | "syscalls"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IoSetting {
    /// io_uring where the kernel allows it, plain system calls otherwise.
    #[default]
    Auto,
    /// io_uring; the daemon does not start without it.
    IoUring,
    /// epoll and plain system calls.
    Syscalls,
}

/// `segmentation = "auto" | "off" | "gso" | "tunnel"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SegmentationSetting {
    /// The best method that the kernel supports.
    #[default]
    Auto,
    /// One datagram per system call.
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
    /// I/O backend of the packet path.
    pub io: IoSetting,
    /// Number of worker threads, 1 to 64.
    pub workers: u16,
    /// Segmentation method for super-packets.
    pub segmentation: SegmentationSetting,
    /// Path of the control socket.
    pub socket: PathBuf,
    /// Whether the command line gave the control socket, which overrides the file.
    #[serde(skip)]
    pub socket_is_named: bool,
    /// Path of the metrics socket, or `none`.
    #[serde(rename = "metrics-socket", skip_serializing_if = "Option::is_none")]
    pub metrics_socket: Option<PathBuf>,
    /// Additional TCP address to serve metrics on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<LoopbackAddr>,
    /// User that a daemon started by root switches to; otherwise it stays root with few capabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Absolute path of the file with the fabric's secret.
    #[serde(rename = "label-secret-file", skip_serializing_if = "Option::is_none")]
    pub label_secret_file: Option<PathBuf>,
    /// Class of geneved's own options; the same on every host.
    #[serde(rename = "option-class")]
    pub option_class: OptionClassValue,
    /// Minimum path MTU accepted from ICMP errors, in bytes of outer IP packet, 68 to 65,535; defaults to 576 for
    /// IPv4, and is never below 1280 for IPv6.
    #[serde(rename = "min-path-mtu", skip_serializing_if = "Option::is_none")]
    pub min_path_mtu: Option<u16>,
    /// Maximum number of flows of all links together, 1,024 to 16,777,216.
    pub flows: usize,
    /// Idle timeouts of flows.
    pub timeouts: TimeoutSettings,
}

/// `[daemon.timeouts]`: idle timeouts of flows in whole seconds, 1 to 10,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutSettings {
    /// TCP: SYN without an answer.
    pub syn: u32,
    /// TCP: SYN answered, handshake incomplete.
    #[serde(rename = "syn-ack")]
    pub syn_ack: u32,
    /// TCP: packets in both directions.
    pub established: u32,
    /// TCP: FIN from one side.
    pub fin: u32,
    /// TCP: FIN from both sides, or RST.
    pub closed: u32,
    /// UDP: packets in one direction.
    pub udp: u32,
    /// UDP: packets in both directions.
    #[serde(rename = "udp-replied")]
    pub udp_replied: u32,
    /// ICMP and ICMPv6.
    pub icmp: u32,
    /// Every other protocol.
    pub other: u32,
    /// Any protocol: flow whose packets are dropped.
    pub refused: u32,
}

impl Default for TimeoutSettings {
    /// The defaults of Linux's connection tracking.
    fn default() -> Self {
        TimeoutSettings {
            syn: 120,
            syn_ack: 60,
            established: 432_000,
            fin: 120,
            closed: 10,
            udp: 30,
            udp_replied: 120,
            icmp: 30,
            other: 600,
            refused: 30,
        }
    }
}

impl TimeoutSettings {
    /// Names of the timeouts that are out of range.
    fn out_of_range(&self) -> Vec<&'static str> {
        let TimeoutSettings {
            syn,
            syn_ack,
            established,
            fin,
            closed,
            udp,
            udp_replied,
            icmp,
            other,
            refused,
        } = *self;
        let all = [
            ("syn", syn),
            ("syn-ack", syn_ack),
            ("established", established),
            ("fin", fin),
            ("closed", closed),
            ("udp", udp),
            ("udp-replied", udp_replied),
            ("icmp", icmp),
            ("other", other),
            ("refused", refused),
        ];
        let wrong = all
            .into_iter()
            .filter(|(_, seconds)| !(1..=10_000_000).contains(seconds));
        wrong.map(|(name, _)| name).collect()
    }
}

impl Default for DaemonSettings {
    fn default() -> Self {
        DaemonSettings {
            io: IoSetting::default(),
            workers: 1,
            segmentation: SegmentationSetting::default(),
            socket: PathBuf::from(DEFAULT_SOCKET),
            socket_is_named: false,
            metrics_socket: None,
            metrics: None,
            user: None,
            label_secret_file: None,
            option_class: OptionClassValue::default(),
            min_path_mtu: None,
            flows: 262_144,
            timeouts: TimeoutSettings::default(),
        }
    }
}

/// A setting that changed in the file and takes effect only after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartSetting {
    /// The key, relative to `[daemon]`.
    pub key: String,
    /// Value in use.
    pub running: String,
    /// Value in the file.
    pub configured: String,
    /// Why it cannot change at run time.
    pub reason: String,
}

/// Why a setting cannot change at run time.
fn why_kept(key: &str) -> &'static str {
    match key {
        "io" | "segmentation" => "a worker's buffers and sockets are made for one way",
        "workers" => "each has a queue of every interface",
        "socket" | "metrics" | "metrics-socket" => "clients are connected to it",
        "user" => "what was given away cannot be taken back",
        "label-secret-file" | "option-class" => "flows were decided by it, on other hosts as well",
        "min-path-mtu" => "what is known of paths was believed by it",
        "flows" => "the table's room is taken at start",
        key if key.starts_with("timeouts.") => "the table of flows is made with it",
        _ => "it is read at start only",
    }
}

/// All keys with their values as written in a file; nested keys as `table.key`.
fn flat(settings: &DaemonSettings) -> BTreeMap<String, String> {
    let table = toml::Table::try_from(settings).expect("settings have a form in TOML");
    let mut all = BTreeMap::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => all.extend(
                inner
                    .into_iter()
                    .map(|(sub, value)| (format!("{key}.{sub}"), value.to_string())),
            ),
            value => drop(all.insert(key, value.to_string())),
        }
    }
    all
}

impl DaemonSettings {
    /// Path of the metrics socket: the configured one, or the default one if the control socket is at its default
    /// path.
    #[must_use]
    pub fn metrics_socket(&self) -> Option<&Path> {
        match self.metrics_socket.as_deref() {
            Some(path) => Some(path).filter(|path| *path != Path::new("none")),
            None => (self.socket == Path::new(DEFAULT_SOCKET))
                .then_some(Path::new(DEFAULT_METRICS_SOCKET)),
        }
    }

    /// TCP address to serve metrics on.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.map(|address| address.0)
    }

    /// Settings that differ in `configured`; none of them can change at run time.
    #[must_use]
    pub fn kept_from(&self, configured: &DaemonSettings) -> Vec<RestartSetting> {
        let (running, wanted) = (flat(self), flat(configured));
        let keys: BTreeSet<&String> = running.keys().chain(wanted.keys()).collect();
        let said = |settings: &BTreeMap<String, String>, key: &str| {
            settings
                .get(key)
                .map_or("not set", String::as_str)
                .to_owned()
        };
        keys.into_iter()
            .filter(|key| running.get(*key) != wanted.get(*key))
            .filter(|key| *key != "socket" || !self.socket_is_named)
            .map(|key| RestartSetting {
                key: key.clone(),
                running: said(&running, key),
                configured: said(&wanted, key),
                reason: why_kept(key).to_owned(),
            })
            .collect()
    }

    /// Settings out of range: each key with what it must be.
    #[must_use]
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        if !(1..=64).contains(&self.workers) {
            let what = "[daemon]: workers must be from 1 to 64";
            wrong.push(("workers".to_owned(), what.to_owned()));
        }
        if self.min_path_mtu.is_some_and(|mtu| mtu < 68) {
            let what = "[daemon]: min-path-mtu must be from 68 to 65535";
            wrong.push(("min-path-mtu".to_owned(), what.to_owned()));
        }
        if !(1_024..=16_777_216).contains(&self.flows) {
            let what = "[daemon]: flows must be from 1024 to 16777216";
            wrong.push(("flows".to_owned(), what.to_owned()));
        }
        // The kernel's limit for a path, without its final NUL (unix(7)).
        const LONGEST: usize = 107;
        let length = self.socket.as_os_str().len();
        if !(1..=LONGEST).contains(&length) {
            let what = format!("[daemon]: socket must be a path of 1 to {LONGEST} bytes");
            wrong.push(("socket".to_owned(), what));
        }
        let seconds = self.timeouts.out_of_range().into_iter();
        wrong.extend(seconds.map(|name| {
            let what = format!("[daemon.timeouts]: {name}: seconds must be from 1 to 10000000");
            (format!("timeouts.{name}"), what)
        }));
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_says_why_it_cannot_be_reloaded() {
        let full = DaemonSettings {
            user: Some("geneved".into()),
            label_secret_file: Some("/etc/geneved/label-secret".into()),
            metrics_socket: Some("none".into()),
            metrics: "127.0.0.1:9469".parse().ok(),
            min_path_mtu: Some(1400),
            ..DaemonSettings::default()
        };
        for key in flat(&full).keys() {
            assert_ne!(why_kept(key), "it is read at start only", "{key}");
        }
        let kept = DaemonSettings::default().kept_from(&full);
        let keys: Vec<_> = kept.iter().map(|k| k.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "label-secret-file",
                "metrics",
                "metrics-socket",
                "min-path-mtu",
                "user"
            ]
        );
        let shorter = DaemonSettings {
            timeouts: TimeoutSettings {
                syn: 5,
                ..TimeoutSettings::default()
            },
            ..DaemonSettings::default()
        };
        let kept = DaemonSettings::default().kept_from(&shorter);
        assert_eq!(kept.len(), 1);
        assert_eq!(
            (
                kept[0].key.as_str(),
                kept[0].running.as_str(),
                kept[0].configured.as_str()
            ),
            ("timeouts.syn", "120", "5")
        );
    }
}
