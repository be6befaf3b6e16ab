//! Topology of the soak: three hosts on a switch, tenants in namespaces, the attacker, and the daemons'
//! configuration.
//!
//! Hosts a and b share a VPC of each kind and are measured; host c is there to be killed.

use super::arguments::SoakArguments;
use geneved::lab::daemon::{DaemonFiles, DaemonProcess};
use geneved::lab::netns::{self, LabNetns};
use geneved::traffic::{EchoRun, TrafficEnds};
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Prefix of all namespaces of a soak; the process ID follows.
const SOAK_PREFIX: &str = "gnvsoak";

/// A VPC of the soak.
pub struct Vpc {
    /// Its interface on each host.
    pub device: &'static str,
    /// Its VNI.
    pub vni: u32,
    /// Lines of `[[link]]`.
    kind: &'static str,
    /// Whether the underlay is IPv6.
    over6: bool,
    /// The third number of its IPv4 addresses, and the second group of its IPv6 ones.
    number: u8,
    /// The host at its other end, seen from host a.
    pub peer: usize,
}

/// IP packets over Geneve; its interfaces do no segmentation of their own, so packets can be counted one by one.
pub const PLAIN_VPC: Vpc = Vpc {
    device: "gp",
    vni: 100,
    kind: "type = \"geneve\"",
    over6: false,
    number: 1,
    peer: 1,
};
/// Frames through a TAP, over IPv6.
pub const FRAMES_VPC: Vpc = Vpc {
    device: "gf",
    vni: 200,
    kind: "type = \"geneve\"\nmode = \"ethernet\"",
    over6: true,
    number: 2,
    peer: 1,
};
/// VXLAN.
pub const VXLAN_VPC: Vpc = Vpc {
    device: "gv",
    vni: 300,
    kind: "type = \"vxlan\"",
    over6: false,
    number: 3,
    peer: 1,
};
/// Rules, a class, and a gateway with source NAT at host b.
pub const FUNCTIONS_VPC: Vpc = Vpc {
    device: "gn",
    vni: 400,
    kind: "type = \"geneve\"",
    over6: true,
    number: 4,
    peer: 1,
};
/// VPC whose link on host a is added and removed repeatedly.
pub const CHURNED_VPC: Vpc = Vpc {
    device: "gw",
    vni: 500,
    kind: "type = \"geneve\"",
    over6: false,
    number: 5,
    peer: 1,
};
/// VPC with host c, which is killed.
pub const KILLED_VPC: Vpc = Vpc {
    device: "gc",
    vni: 600,
    kind: "type = \"geneve\"",
    over6: false,
    number: 6,
    peer: 2,
};
/// VPCs that must carry traffic at all times.
pub const STANDING: [&Vpc; 4] = [&PLAIN_VPC, &FRAMES_VPC, &VXLAN_VPC, &FUNCTIONS_VPC];
/// All VPCs.
pub const ALL_VPCS: [&Vpc; 6] = [
    &PLAIN_VPC,
    &FRAMES_VPC,
    &VXLAN_VPC,
    &FUNCTIONS_VPC,
    &CHURNED_VPC,
    &KILLED_VPC,
];

/// An address outside of the VPC with functions, behind host b.
pub const SOAK_OUTSIDE: &str = "203.0.113.1";
/// Source address of host a's tenant after NAT.
const SOAK_POOL: &str = "198.51.100.1";

impl Vpc {
    /// The overlay address of the tenant on host a (0), b (1) or c (2).
    pub fn address(&self, six: bool, side: usize) -> IpAddr {
        let text = match six {
            false => format!("10.9.{}.{}", self.number, side + 1),
            true => format!("fd00:{}::{}", self.number, side + 1),
        };
        text.parse().expect("an address")
    }

    /// `address` with its length, both families.
    pub fn prefixes(&self, side: usize) -> [String; 2] {
        [
            format!("{}/24", self.address(false, side)),
            format!("{}/64", self.address(true, side)),
        ]
    }

    /// Underlay address of the peer, seen from `side`.
    pub fn remote(&self, side: usize) -> IpAddr {
        underlay(self.over6, if side == 0 { self.peer } else { 0 })
    }

    /// Whether it has a link on host `side`.
    pub fn is_on(&self, side: usize) -> bool {
        side == 0 || side == self.peer
    }
}

/// The underlay address of a host.
pub fn underlay(six: bool, side: usize) -> IpAddr {
    let text = match six {
        false => format!("192.0.2.{}", side + 1),
        true => format!("2001:db8::{}", side + 1),
    };
    text.parse().expect("an address")
}

/// The attacker's number in the underlay.
pub const ATTACKER: usize = 65;

/// Variant of a configuration.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ConfigVariant {
    /// Initial configuration.
    Usual,
    /// With this many more rules, another rate, and a further link.
    More(u32),
}

/// Everything that stays up during the soak.
pub struct SoakHosts {
    /// Daemons of hosts a, b and c; host c's is absent between its kill and its restart.
    pub daemons: [Mutex<Option<DaemonProcess>>; 3],
    sites: [DaemonFiles; 3],
    pids: [u32; 2],
    /// The namespaces of the hosts.
    pub hosts: [LabNetns; 3],
    tenants: Vec<(usize, &'static str, LabNetns)>,
    /// Switch namespace: port `p0` leads to host a, and so on.
    pub switch: LabNetns,
    /// Namespace of the attacker on the underlay.
    pub attacker: LabNetns,
    prefix: String,
    directory: PathBuf,
}

impl SoakHosts {
    /// Creates the hosts and starts the daemons.
    pub fn new(arguments: &SoakArguments) -> io::Result<Self> {
        remove_left_over();
        let prefix = format!("{SOAK_PREFIX}-{}", std::process::id());
        let directory = std::env::temp_dir().join(&prefix);
        std::fs::create_dir_all(&directory)?;
        let make = |name: &str| LabNetns::new(&format!("{prefix}-{name}"));
        let hosts = [make("a")?, make("b")?, make("c")?];
        let (switch, attacker) = (make("switch")?, make("x")?);
        switch.ip("link add br0 type bridge")?;
        switch.ip("link set br0 up")?;
        let ends = hosts.iter().zip(0..).chain([(&attacker, ATTACKER)]);
        for (port, (host, number)) in ends.enumerate() {
            // Otherwise an address would be lost when its interface first goes down.
            host.sysctl("ipv6/conf/default/keep_addr_on_down", "1")?;
            host.sysctl("ipv6/conf/default/accept_ra", "0")?;
            let [v4, v6] = [
                format!("{}/24", underlay(false, number)),
                format!("{}/64", underlay(true, number)),
            ];
            let port = format!("p{port}");
            netns::veth((host, "u0", &[&v4, &v6]), (&switch, &port, &[]), 1500)?;
            switch.ip(&format!("link set {port} master br0"))?;
        }
        let mut tenants = Vec::new();
        for vpc in ALL_VPCS {
            for side in (0..3).filter(|&side| vpc.is_on(side)) {
                let tenant = make(&format!("{}{side}", vpc.device))?;
                tenant.sysctl("ipv6/conf/default/accept_ra", "0")?;
                // Otherwise TCP would not retry for half a minute after several outages (Linux 6.15).
                let _ = tenant.sysctl("ipv4/tcp_rto_max_ms", "2000");
                tenants.push((side, vpc.device, tenant));
            }
        }
        let site = |name: &str| DaemonFiles {
            binary: arguments.geneved.clone(),
            directory: directory.clone(),
            name: name.to_owned(),
        };
        let mut made = Self {
            daemons: [const { Mutex::new(None) }; 3],
            sites: [site("a"), site("b"), site("c")],
            pids: [0; 2],
            hosts,
            tenants,
            switch,
            attacker,
            prefix,
            directory,
        };
        for side in 0..3 {
            let daemon = made.start(side)?;
            if let Some(pid) = made.pids.get_mut(side) {
                *pid = daemon.pid();
            }
            *made.daemons[side].get_mut().expect("nobody has panicked") = Some(daemon);
        }
        made.make_routes()?;
        Ok(made)
    }

    /// Sets up the routes that geneved does not configure.
    fn make_routes(&self) -> io::Result<()> {
        self.tenant(&FUNCTIONS_VPC, 0)
            .ip(&format!("route add {SOAK_OUTSIDE} dev gn"))?;
        let outside = self.tenant(&FUNCTIONS_VPC, 1);
        outside.ip(&format!("address add {SOAK_OUTSIDE}/32 dev lo"))?;
        outside.ip(&format!("route add {SOAK_POOL} dev gn"))?;
        for side in [0, 1] {
            let mut words = vec!["-K", PLAIN_VPC.device];
            words.extend("tso off gso off tx-udp-segmentation off".split(' '));
            self.tenant(&PLAIN_VPC, side).exec("ethtool", &words)?;
        }
        Ok(())
    }

    /// Starts the daemon of a host with its initial configuration.
    pub fn start(&self, side: usize) -> io::Result<DaemonProcess> {
        let text = self.configuration(side, ConfigVariant::Usual);
        DaemonProcess::start(self.sites[side].clone(), &self.hosts[side], &text)
    }

    /// Paths of a daemon's files.
    pub fn site(&self, side: usize) -> &DaemonFiles {
        &self.sites[side]
    }

    /// Process ID of host a's or b's daemon.
    pub fn pid(&self, side: usize) -> u32 {
        self.pids[side]
    }

    /// Runs a CLI command against a daemon.
    pub fn cli(&self, side: usize, words: &str) -> io::Result<String> {
        let site = &self.sites[side];
        geneved::lab::daemon::cli(&site.binary, &site.socket(), words)
    }

    /// Path of the metrics socket.
    pub fn metrics(&self, side: usize) -> PathBuf {
        self.directory.join(format!("{side}.metrics"))
    }

    /// The directory of all files.
    pub fn directory(&self) -> &PathBuf {
        &self.directory
    }

    /// Namespace of a VPC's interface on a host.
    pub fn tenant(&self, vpc: &Vpc, side: usize) -> &LabNetns {
        let found = self
            .tenants
            .iter()
            .find(|(s, device, _)| (*s, *device) == (side, vpc.device));
        &found.expect("each VPC has a tenant on its hosts").2
    }

    /// Both ends of a conversation from the tenant on `side` to the one on the other host.
    pub fn ends(&self, vpc: &Vpc, six: bool, side: usize) -> TrafficEnds {
        let other = if side == 0 { vpc.peer } else { 0 };
        let (from, to) = (self.tenant(vpc, side), self.tenant(vpc, other));
        TrafficEnds::new(from.netns(), to.netns(), vpc.address(six, other))
    }

    /// Both ends of a conversation from host a's tenant through the gateway.
    pub fn outside(&self) -> TrafficEnds {
        let (from, to) = (
            self.tenant(&FUNCTIONS_VPC, 0),
            self.tenant(&FUNCTIONS_VPC, 1),
        );
        let address = SOAK_OUTSIDE.parse().expect("an address");
        TrafficEnds::new(from.netns(), to.netns(), address)
    }

    /// Name of a further namespace.
    pub fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Writes the configuration for a daemon's next reload.
    pub fn write(&self, side: usize, variant: ConfigVariant) -> io::Result<()> {
        let site = &self.sites[side];
        let head = format!("[daemon]\nsocket = \"{}\"\n", site.socket().display());
        std::fs::write(site.config(), head + &self.configuration(side, variant))
    }

    fn configuration(&self, side: usize, variant: ConfigVariant) -> String {
        // Covers both backends in one run.
        let io = ["io_uring", "syscalls", "auto"][side];
        let mut text = format!(
            "io = \"{io}\"\nflows = 16384\nmetrics-socket = \"{}\"\n",
            self.metrics(side).display()
        );
        for vpc in ALL_VPCS.into_iter().filter(|vpc| vpc.is_on(side)) {
            let rate = if vpc.device == PLAIN_VPC.device {
                ""
            } else {
                "rate = \"2gbit\"\n"
            };
            text += &self.link(vpc, side, rate);
        }
        if side == 2 {
            return text;
        }
        text += &functions(side, variant);
        if let ConfigVariant::More(rules) = variant {
            for rule in 0..rules {
                let (direction, port) = (["ingress", "egress"][rule as usize % 2], 10 + rule);
                write!(
                    text,
                    "[[policy]]\nname = \"more-{rule}\"\ndev = \"gn\"\ndirection = \"{direction}\"\nproto = \"tcp\"\n\
                     dport = {port}\naction = \"reject\"\n",
                )
                .unwrap();
            }
            write!(
                text,
                "[[link]]\nname = \"gx\"\nid = {}\nremote = \"{}\"\naddress = [\"10.9.70.1/24\"]\n",
                700 + rules,
                underlay(false, 1 - side)
            )
            .unwrap();
        }
        text
    }

    /// A `[[link]]` table.
    fn link(&self, vpc: &Vpc, side: usize, more: &str) -> String {
        let [v4, v6] = vpc.prefixes(side);
        format!(
            "[[link]]\nname = \"{}\"\n{}\nid = {}\nremote = \"{}\"\naddress = [\"{v4}\", \"{v6}\"]\nnetns = \"{}\"\n{more}",
            vpc.device,
            vpc.kind,
            vpc.vni,
            vpc.remote(side),
            self.tenant(vpc, side).name(),
        )
    }

    /// Pings through every VPC in both families until every ping is answered.
    ///
    /// # Errors
    /// If a VPC does not carry traffic within `patience`; names it.
    pub fn await_all_carry(&self, patience: Duration) -> Result<(), String> {
        let end = Instant::now() + patience;
        let echo = EchoRun {
            count: 2,
            interval: Duration::from_millis(5),
            timeout: Duration::from_millis(500),
            ..EchoRun::default()
        };
        for vpc in ALL_VPCS {
            for six in [false, true] {
                let ends = self.ends(vpc, six, 0);
                let answered = || {
                    echo.run(&ends.client, ends.address)
                        .is_ok_and(|r| r.all_answered())
                };
                while !answered() {
                    if Instant::now() > end {
                        let family = if six { "IPv6" } else { "IPv4" };
                        return Err(format!("{} does not carry {family}", vpc.device));
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
        Ok(())
    }

    /// Sets whether hosts a and b receive datagrams one by one, or in the trains that they were sent in.
    ///
    /// # Errors
    /// If the switch's ports cannot be configured.
    pub fn cut_trains(&self, single: bool) -> io::Result<()> {
        let way = if single { "off" } else { "on" };
        for port in ["p0", "p1"] {
            for feature in [
                "tx-udp-segmentation",
                "tx-udp_tnl-segmentation",
                "tx-udp_tnl-csum-segmentation",
                "tx-gso-partial",
            ] {
                let set = self.switch.exec("ethtool", &["-K", port, feature, way]);
                // Older kernels lack some of these features; a missing one cannot be on.
                if feature == "tx-udp-segmentation" {
                    set?;
                }
            }
        }
        Ok(())
    }

    /// Returns the cleanup to run if the process is interrupted.
    pub fn tidy() -> impl FnOnce() + Send + 'static {
        || {
            let prefix = format!("{SOAK_PREFIX}-{}-", std::process::id());
            netns::namespaces(&prefix).iter().for_each(|name| {
                let _ = netns::remove(name);
            });
            let _ =
                std::fs::remove_dir_all(std::env::temp_dir().join(prefix.trim_end_matches('-')));
        }
    }
}

impl Drop for SoakHosts {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            drop(daemon.get_mut().ok().and_then(Option::take));
        }
    }
}

/// Rules, a class and the gateway of the VPC with functions.
fn functions(side: usize, variant: ConfigVariant) -> String {
    let rate = if variant == ConfigVariant::Usual {
        "900mbit"
    } else {
        "700mbit"
    };
    let mut text = format!(
        "[[qos]]\nname = \"bulk\"\ndev = \"gn\"\nid = 1\nrate = \"{rate}\"\ndscp = \"af11\"\n"
    );
    text += "[[policy]]\nname = \"tcp\"\ndev = \"gn\"\ndirection = \"egress\"\npref = 500\nproto = \"tcp\"\nclass = \"bulk\"\naction = \"allow\"\n";
    text += "[[policy]]\nname = \"no\"\ndev = \"gn\"\ndirection = \"ingress\"\nproto = \"udp\"\ndport = 9\naction = \"reject\"\n";
    if side == 0 {
        let gateway = FUNCTIONS_VPC.remote(0);
        write!(text, "[[route]]\nprefix = \"{SOAK_OUTSIDE}/32\"\ndev = \"gn\"\nvia = [\"{gateway}\"]\ntype = \"gateway\"\n")
    } else {
        let inside = FUNCTIONS_VPC.address(false, 0);
        write!(text, "[[nat]]\nname = \"out\"\ndev = \"gn\"\ntype = \"snat\"\nfrom = \"{inside}/32\"\nsource = \"{SOAK_POOL}\"\n")
    }
    .unwrap();
    text
}

/// Removes leftovers of dead processes.
fn remove_left_over() {
    for name in netns::namespaces(&format!("{SOAK_PREFIX}-")) {
        let pid = name.split('-').nth(1).unwrap_or("");
        if !std::path::Path::new("/proc").join(pid).exists() {
            let _ = netns::remove(&name);
        }
    }
}
