//! A pair of hosts joined by a veth, with one kind of tunnel between them.

use crate::BENCH_PREFIX;
use crate::arguments::BenchArguments;
use crate::copy::{self, CopyTunnel};
use crate::underlay::VethKind;
use geneved::lab::daemon::{DaemonFiles, DaemonProcess};
use geneved::lab::netns::{self, LabNetns};
use geneved::traffic::TrafficEnds;
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// Link type that carries IP packets over Geneve.
const GENEVE_LINK: &str = "type = \"geneve\"";

/// Destination of `geneved-functions`: an address outside of the VPC, behind the second host.
const BENCH_OUTSIDE: &str = "203.0.113.1";
/// Source address of the first host after NAT.
const BENCH_POOL: &str = "198.51.100.1";

/// Kind of tunnel.
#[derive(Clone, Debug)]
pub enum Tunnel {
    /// The daemon: its label, an alternative binary, its `io` setting, and its link type.
    Geneved {
        label: String,
        binary: Option<PathBuf>,
        io: Option<&'static str>,
        kind: &'static str,
        /// With rules, labels, a class, and source NAT at the second host.
        functions: bool,
    },
    /// The kernel's VXLAN device.
    Vxlan,
    /// User-space copying without a protocol, see `copy.rs`.
    Copy,
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
            functions: word == "geneved-functions",
        };
        match word.split_once('=') {
            Some((label, path)) => Ok(Self::Geneved {
                label: label.to_owned(),
                binary: Some(path.into()),
                io: None,
                kind: GENEVE_LINK,
                functions: false,
            }),
            None => match word {
                "geneved" | "geneved-functions" => Ok(geneved(None, GENEVE_LINK)),
                "geneved-io_uring" => Ok(geneved(Some("io_uring"), GENEVE_LINK)),
                "geneved-syscalls" => Ok(geneved(Some("syscalls"), GENEVE_LINK)),
                "geneved-ethernet" => Ok(geneved(None, "type = \"geneve\"\nmode = \"ethernet\"")),
                "geneved-frames" => Ok(geneved(None, "type = \"geneve\"\ninner = \"ethernet\"")),
                "geneved-vxlan" => Ok(geneved(None, "type = \"vxlan\"")),
                "vxlan" => Ok(Self::Vxlan),
                "copy" => Ok(Self::Copy),
                "raw" => Ok(Self::Raw),
                _ => Err(format!("{word:?} is not a tunnel")),
            },
        }
    }

    pub fn label(&self) -> &str {
        match self {
            Self::Geneved { label, .. } => label,
            Self::Vxlan => "vxlan",
            Self::Copy => "copy",
            Self::Raw => "raw",
        }
    }
}

/// Two hosts with a tunnel between them.
pub struct TunnelPair {
    pub label: String,
    /// Ends of a conversation from the first host to the second one, through the tunnel.
    pub ends: TrafficEnds,
    // Dropped in this order: daemons before the namespaces they live in.
    _daemons: Vec<DaemonProcess>,
    _copiers: Vec<CopyTunnel>,
    _hosts: [LabNetns; 2],
}

const DEVICE: &str = "u0";

impl TunnelPair {
    pub fn new(
        number: usize,
        tunnel: &Tunnel,
        underlay: VethKind,
        arguments: &BenchArguments,
    ) -> io::Result<Self> {
        let hosts = [
            LabNetns::new(&format!("{BENCH_PREFIX}-{number}-a"))?,
            LabNetns::new(&format!("{BENCH_PREFIX}-{number}-b"))?,
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
        netns::veth(
            (&hosts[0], DEVICE, &[&addresses[0]]),
            (&hosts[1], DEVICE, &[&addresses[1]]),
            match tunnel {
                Tunnel::Copy => copy::UNDERLAY_MTU,
                _ => arguments.underlay_mtu,
            },
        )?;
        let mut daemons = Vec::new();
        let mut copiers = Vec::new();
        for (i, host) in hosts.iter().enumerate() {
            underlay.apply(host, DEVICE)?;
            let address = with_length(inner[i]);
            match tunnel {
                Tunnel::Raw => {
                    host.ip(&format!(
                        "address add {address} dev {DEVICE}{}",
                        no_dad(inner[i])
                    ))?;
                }
                Tunnel::Vxlan => {
                    let (own, peer, mtu) = (outer[i], outer[1 - i], arguments.mtu);
                    host.ip(&format!(
                        "link add t0 mtu {mtu} type vxlan id 100 local {own} remote {peer} dstport 4789 dev {DEVICE}"
                    ))?;
                    bring_up(host, inner[i])?;
                }
                Tunnel::Copy => {
                    copiers.push(CopyTunnel::start(host, outer[i], outer[1 - i])?);
                    host.ip(&format!("link set t0 mtu {}", arguments.mtu))?;
                    bring_up(host, inner[i])?;
                }
                Tunnel::Geneved { .. } => {
                    daemons.push(tunnel.daemon(i, host, outer, inner, arguments)?);
                }
            }
        }
        let far = if tunnel.has_functions() {
            hosts[0].ip(&format!("route add {BENCH_OUTSIDE} dev t0"))?;
            hosts[1].ip(&format!("address add {BENCH_OUTSIDE}/32 dev lo"))?;
            hosts[1].ip(&format!("route add {BENCH_POOL} dev t0"))?;
            BENCH_OUTSIDE.parse().unwrap()
        } else {
            inner[1]
        };
        let ends = TrafficEnds::new(hosts[0].netns(), hosts[1].netns(), far);
        Ok(Self {
            label: tunnel.label().to_owned(),
            ends,
            _daemons: daemons,
            _copiers: copiers,
            _hosts: hosts,
        })
    }
}

/// Assigns the address to the tunnel's interface.
fn bring_up(host: &LabNetns, inner: IpAddr) -> io::Result<()> {
    let (address, no_dad) = (with_length(inner), no_dad(inner));
    host.ip(&format!("address add {address} dev t0{no_dad}"))?;
    host.ip("link set t0 up")?;
    Ok(())
}

impl Tunnel {
    fn has_functions(&self) -> bool {
        matches!(
            self,
            Self::Geneved {
                functions: true,
                ..
            }
        )
    }

    /// Starts the daemon of host `i`.
    fn daemon(
        &self,
        i: usize,
        host: &LabNetns,
        outer: [IpAddr; 2],
        inner: [IpAddr; 2],
        arguments: &BenchArguments,
    ) -> io::Result<DaemonProcess> {
        let Self::Geneved {
            label,
            binary,
            io,
            kind,
            functions,
        } = self
        else {
            unreachable!("only geneved has a daemon");
        };
        let site = DaemonFiles {
            binary: binary.clone().unwrap_or_else(|| arguments.geneved.clone()),
            directory: std::env::temp_dir().join(format!("{BENCH_PREFIX}-{}", std::process::id())),
            name: format!("{label}-{i}"),
        };
        let mut config = String::new();
        if let Some(io) = io {
            writeln!(config, "io = \"{io}\"").unwrap();
        }
        for line in &arguments.daemon_lines {
            writeln!(config, "{line}").unwrap();
        }
        if *functions {
            writeln!(config, "label-secret-file = \"{}\"", secret(&site)?).unwrap();
        }
        write!(
            config,
            "[[link]]\nname = \"t0\"\n{kind}\nid = 100\nlocal = \"{}\"\nremote = \"{}\"\n\
             address = [\"{}\"]\nmtu = {}\n",
            outer[i],
            outer[1 - i],
            with_length(inner[i]),
            arguments.mtu,
        )
        .unwrap();
        for line in &arguments.link_lines {
            writeln!(config, "{line}").unwrap();
        }
        if *functions {
            config.push_str(&functions_of(i, outer, inner));
        }
        DaemonProcess::start(site, host, &config)
    }
}

/// Secret of the labels, in a file that only its owner can read.
fn secret(site: &DaemonFiles) -> io::Result<String> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::create_dir_all(&site.directory)?;
    let path = site.directory.join("secret");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&path)?;
    io::Write::write_all(&mut file, "5e".repeat(32).as_bytes())?;
    Ok(path.display().to_string())
}

/// Configuration with 1,000 rules before the one that matches, labels, a class that is never exceeded, and the route
/// outside through the second host's source NAT.
fn functions_of(i: usize, outer: [IpAddr; 2], inner: [IpAddr; 2]) -> String {
    let mut config = "ingress = \"deny\"\negress = \"deny\"\n".to_owned();
    for (at, address) in inner.iter().enumerate() {
        let place = if at == i {
            "local = true".to_owned()
        } else {
            format!("host = [\"{}\"]", outer[at])
        };
        write!(
            config,
            "[[endpoint]]\naddress = \"{address}\"\ndev = \"t0\"\n{place}\nlabels = \"app=bench,host={at}\"\nclass = \"fast\"\n"
        )
        .unwrap();
    }
    for rule in 0..1000 {
        let direction = ["ingress", "egress"][rule % 2];
        write!(
            config,
            "[[policy]]\nname = \"no-{rule}\"\ndev = \"t0\"\ndirection = \"{direction}\"\nfrom = \"app=other-{rule}\"\n\
             proto = \"tcp\"\ndport = {}\naction = \"allow\"\n",
            1 + rule
        )
        .unwrap();
    }
    for direction in ["ingress", "egress"] {
        write!(
            config,
            "[[policy]]\nname = \"all-{direction}\"\ndev = \"t0\"\ndirection = \"{direction}\"\npref = 40000\naction = \"allow\"\n"
        )
        .unwrap();
    }
    config.push_str("[[qos]]\nname = \"fast\"\ndev = \"t0\"\nid = 1\nrate = \"100gbit\"\nburst = \"64m\"\ndscp = \"af11\"\n");
    if i == 0 {
        write!(
            config,
            "[[route]]\nprefix = \"{BENCH_OUTSIDE}/32\"\ndev = \"t0\"\nvia = [\"{}\"]\ntype = \"gateway\"\n",
            outer[1]
        )
        .unwrap();
    } else {
        write!(
            config,
            "[[nat]]\nname = \"out\"\ndev = \"t0\"\ntype = \"snat\"\nfrom = \"{}/32\"\nsource = \"{BENCH_POOL}\"\n",
            inner[0]
        )
        .unwrap();
    }
    config
}

fn with_length(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 24 } else { 64 })
}

/// Skips duplicate address detection, which would delay an IPv6 address by a second or two.
fn no_dad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}
