//! A pair of hosts joined by a veth, with one kind of tunnel between them.

use crate::PREFIX;
use crate::arguments::Arguments;
use crate::underlay::Underlay;
use geneved::lab::daemon::{Daemon, Site};
use geneved::lab::net::{self, Host};
use geneved::traffic::Ends;
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// A link of IP packets over Geneve.
const GENEVE: &str = "type = \"geneve\"";

/// What carries the overlay.
#[derive(Clone, Debug)]
pub enum Tunnel {
    /// The daemon: its label, another binary than the usual one, its `io` setting, and what its link is.
    Geneved {
        label: String,
        binary: Option<PathBuf>,
        io: Option<&'static str>,
        kind: &'static str,
    },
    /// The kernel's VXLAN device.
    Vxlan,
    /// No tunnel: the veth itself.
    Raw,
}

impl Tunnel {
    pub fn parse(word: &str) -> Result<Self, String> {
        let geneved = |io, kind| Self::Geneved {
            label: word.to_owned(),
            binary: None,
            io,
            kind,
        };
        match word.split_once('=') {
            Some((label, path)) => Ok(Self::Geneved {
                label: label.to_owned(),
                binary: Some(path.into()),
                io: None,
                kind: GENEVE,
            }),
            None => match word {
                "geneved" => Ok(geneved(None, GENEVE)),
                "geneved-io_uring" => Ok(geneved(Some("io_uring"), GENEVE)),
                "geneved-syscalls" => Ok(geneved(Some("syscalls"), GENEVE)),
                "geneved-ethernet" => Ok(geneved(None, "type = \"geneve\"\nmode = \"ethernet\"")),
                "geneved-frames" => Ok(geneved(None, "type = \"geneve\"\ninner = \"ethernet\"")),
                "geneved-vxlan" => Ok(geneved(None, "type = \"vxlan\"")),
                "vxlan" => Ok(Self::Vxlan),
                "raw" => Ok(Self::Raw),
                _ => Err(format!("{word:?} is not a tunnel")),
            },
        }
    }

    pub fn label(&self) -> &str {
        match self {
            Self::Geneved { label, .. } => label,
            Self::Vxlan => "vxlan",
            Self::Raw => "raw",
        }
    }
}

/// Two hosts with a tunnel between them.
pub struct Pair {
    pub label: String,
    /// From the first host to the second one, through the tunnel.
    pub ends: Ends,
    // Dropped in this order: daemons before the namespaces they live in.
    _daemons: Vec<Daemon>,
    _hosts: [Host; 2],
}

const DEVICE: &str = "u0";

impl Pair {
    pub fn new(
        number: usize,
        tunnel: &Tunnel,
        underlay: Underlay,
        arguments: &Arguments,
    ) -> io::Result<Self> {
        let hosts = [
            Host::new(&format!("{PREFIX}-{number}-a"))?,
            Host::new(&format!("{PREFIX}-{number}-b"))?,
        ];
        let outer: [IpAddr; 2] = if arguments.outer6 {
            [
                "2001:db8::1".parse().unwrap(),
                "2001:db8::2".parse().unwrap(),
            ]
        } else {
            ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()]
        };
        let inner: [IpAddr; 2] = if arguments.inner6 {
            ["fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()]
        } else {
            ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()]
        };
        let addresses = outer.map(with_length);
        net::veth(
            (&hosts[0], DEVICE, &[&addresses[0]]),
            (&hosts[1], DEVICE, &[&addresses[1]]),
            arguments.underlay_mtu,
        )?;
        let mut daemons = Vec::new();
        for (i, host) in hosts.iter().enumerate() {
            underlay.apply(host, DEVICE)?;
            let (own, peer, address) = (outer[i], outer[1 - i], with_length(inner[i]));
            let mtu = arguments.mtu;
            match tunnel {
                Tunnel::Raw => {
                    host.ip(&format!(
                        "address add {address} dev {DEVICE}{}",
                        no_dad(inner[i])
                    ))?;
                }
                Tunnel::Vxlan => {
                    host.ip(&format!(
                        "link add t0 mtu {mtu} type vxlan id 100 local {own} remote {peer} dstport 4789 dev {DEVICE}"
                    ))?;
                    host.ip(&format!("address add {address} dev t0{}", no_dad(inner[i])))?;
                    host.ip("link set t0 up")?;
                }
                Tunnel::Geneved {
                    label,
                    binary,
                    io,
                    kind,
                } => {
                    let site = Site {
                        binary: binary.clone().unwrap_or_else(|| arguments.geneved.clone()),
                        directory: std::env::temp_dir()
                            .join(format!("{PREFIX}-{}", std::process::id())),
                        name: format!("{label}-{i}"),
                    };
                    let mut config = String::new();
                    if let Some(io) = io {
                        writeln!(config, "io = \"{io}\"").unwrap();
                    }
                    for line in &arguments.daemon_lines {
                        writeln!(config, "{line}").unwrap();
                    }
                    write!(
                        config,
                        "[[link]]\nname = \"t0\"\n{kind}\nid = 100\nlocal = \"{own}\"\n\
                         remote = \"{peer}\"\naddress = [\"{address}\"]\nmtu = {mtu}\n"
                    )
                    .unwrap();
                    for line in &arguments.link_lines {
                        writeln!(config, "{line}").unwrap();
                    }
                    daemons.push(Daemon::start(site, host, &config)?);
                }
            }
        }
        let ends = Ends::new(hosts[0].netns(), hosts[1].netns(), inner[1]);
        Ok(Self {
            label: tunnel.label().to_owned(),
            ends,
            _daemons: daemons,
            _hosts: hosts,
        })
    }
}

fn with_length(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 24 } else { 64 })
}

/// Duplicate address detection would hold an IPv6 address back for a second or two.
fn no_dad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}
