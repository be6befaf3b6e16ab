//! Open vSwitch's user-space datapath as the peer, with its own database and run directory, in its own namespace.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use geneved::lab::netns::{self, LabNetns, run};
use geneved::traffic::TrafficEnds;

use crate::eventually;
use crate::world::{Duo, TestBackend, TestDaemon, TestWorld, UnderlayFamily};

/// Whether a veth claims checksum and segmentation offload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offloads {
    /// Enabled, the default of a veth.
    On,
    /// Disabled, as on a NIC without offloads.
    Off,
}

/// Tunnel protocol and underlay of the two peers.
#[derive(Clone, Copy, Debug)]
pub struct OvsTunnel {
    /// `geneve` or `vxlan`.
    pub kind: &'static str,
    /// Whether geneved's interface is a TAP, which carries frames itself.
    pub tap: bool,
    /// Address family of the underlay.
    pub family: UnderlayFamily,
}

impl OvsTunnel {
    /// Default setup of the Open vSwitch scenarios.
    pub const USUAL: Self = OvsTunnel {
        kind: "geneve",
        tap: true,
        family: UnderlayFamily::V4,
    };
}

/// Host a, 192.0.2.1 and 2001:db8::1, runs geneved with a link `gnv0`: VNI 100, 10.0.0.1 and fd00::1. The switch has 192.0.2.2
/// or 2001:db8::2 and one station, 10.0.0.2 and fd00::2, at its port `p0`; `gnv` is its tunnel.
pub struct Ovs {
    /// The daemon of host a.
    pub daemon: TestDaemon,
    /// Host a.
    pub a: LabNetns,
    /// The station.
    pub station: LabNetns,
    directory: PathBuf,
    programs: Vec<Child>,
    _switch: LabNetns,
    _world: TestWorld,
}

const OVS_REQUIREMENTS: &str =
    "Open vSwitch is required by this test (Debian: apt-get install openvswitch-switch)";

impl Ovs {
    /// Starts the switch and the daemon; `daemon` is further lines of `[daemon]`, `more` follows the link.
    ///
    /// # Panics
    /// If any setup step fails.
    #[must_use]
    pub fn new(io: TestBackend, offloads: Offloads, daemon: &str, more: &str) -> Self {
        Self::with(io, offloads, OvsTunnel::USUAL, daemon, more)
    }

    /// Like [`Ovs::new`], with the given setup.
    ///
    /// # Panics
    /// If any setup step fails.
    #[must_use]
    pub fn with(
        io: TestBackend,
        offloads: Offloads,
        speech: OvsTunnel,
        daemon: &str,
        more: &str,
    ) -> Self {
        let world = TestWorld::new();
        let (a, switch, station) = (world.host("a"), world.host("o"), world.host("s"));
        let addresses = ["192.0.2.1/24", "2001:db8::1/64"];
        netns::veth((&a, "u0", &addresses), (&switch, "u0", &[]), 1500).unwrap();
        netns::veth(
            (&switch, "p0", &[]),
            (&station, "e0", &["10.0.0.2/24", "fd00::2/64"]),
            1430,
        )
        .unwrap();
        // The switch reads devices through packet sockets and does not complete offloaded checksums or segmentation.
        let plain = |host: &LabNetns, device: &str| {
            let words = [
                "-K", device, "tx", "off", "tso", "off", "gso", "off", "gro", "off",
            ];
            host.exec("ethtool", &words).unwrap();
        };
        plain(&station, "e0");
        if offloads == Offloads::Off {
            plain(&a, "u0");
            plain(&switch, "u0");
        }
        let directory = std::env::temp_dir().join(format!("{}-ovs", switch.name()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let inner = match speech.tap {
            true => "mode = \"ethernet\"",
            false => "inner = \"ethernet\"",
        };
        let lines = format!(
            "[[link]]\nname = \"gnv0\"\ntype = \"{}\"\nid = 100\n{inner}\nlladdr = \"02:00:00:00:00:01\"\n\
             remote = \"{}\"\naddress = [\"10.0.0.1/24\", \"fd00::1/64\"]\n{more}\n",
            speech.kind,
            Duo::underlay(speech.family, 1),
        );
        let daemon = world.daemon(&a, io, daemon, &lines);
        let mut ovs = Ovs {
            daemon,
            a,
            station,
            directory,
            programs: Vec::new(),
            _switch: switch,
            _world: world,
        };
        ovs.start(speech);
        ovs
    }

    fn start(&mut self, speech: OvsTunnel) {
        let at = |name: &str| self.directory.join(name).display().to_string();
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        assert!(Path::new(schema).exists(), "{OVS_REQUIREMENTS}");
        run("ovsdb-tool", &["create", &at("conf.db"), schema]).expect(OVS_REQUIREMENTS);
        let database = format!("unix:{}", at("db.sock"));
        let remote = format!("--remote=punix:{}", at("db.sock"));
        let (db_ctl, ctl) = (
            format!("--unixctl={}", at("db.ctl")),
            format!("--unixctl={}", at("vs.ctl")),
        );
        let (db, db_log, log) = (
            at("conf.db"),
            format!("--log-file={}", at("db.log")),
            format!("--log-file={}", at("vs.log")),
        );
        let programs = [
            self.spawn("ovsdb-server", &[&db, &remote, &db_ctl, &db_log]),
            self.spawn("ovs-vswitchd", &[&database, "--disable-system", &ctl, &log]),
        ];
        self.programs.extend(programs);
        eventually(10, "the switch's database answers", || {
            self.try_vsctl("--no-wait init").is_ok()
        });
        self.vsctl("add-br brp -- set bridge brp datapath_type=netdev -- add-port brp u0");
        for address in ["192.0.2.2/24", "2001:db8::2/64 nodad"] {
            self._switch
                .ip(&format!("address add {address} dev brp"))
                .unwrap();
        }
        self._switch.ip("link set brp up").unwrap();
        self.vsctl(&format!(
            "add-br br0 -- set bridge br0 datapath_type=netdev -- add-port br0 p0 -- set interface p0 ofport_request=1 \
             -- add-port br0 gnv -- set interface gnv type={} options:remote_ip={} options:key=100 ofport_request=2",
            speech.kind,
            Duo::underlay(speech.family, 0)
        ));
        self._switch.ip("link set br0 up").unwrap();
    }

    fn spawn(&self, program: &str, arguments: &[&str]) -> Child {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("OVS_RUNDIR", &self.directory)
            .env("OVS_DBDIR", &self.directory)
            .env("OVS_LOGDIR", &self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let spawned = self._switch.netns().run(|| command.spawn());
        spawned
            .and_then(std::convert::identity)
            .expect(OVS_REQUIREMENTS)
    }

    fn try_vsctl(&self, words: &str) -> std::io::Result<String> {
        let database = format!("--db=unix:{}", self.directory.join("db.sock").display());
        let mut arguments = vec![database.as_str(), "--timeout=10"];
        arguments.extend(words.split_whitespace());
        run("ovs-vsctl", &arguments)
    }

    /// Runs `ovs-vsctl`.
    ///
    /// # Panics
    /// If it refuses.
    pub fn vsctl(&self, words: &str) {
        self.try_vsctl(words)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Runs an `ovs-ofctl` command on the bridge `br0`.
    ///
    /// # Panics
    /// If it refuses.
    pub fn ofctl(&self, command: &str, argument: &str) -> String {
        let bridge = format!("unix:{}", self.directory.join("br0.mgmt").display());
        let mut arguments = vec![command, &bridge];
        if !argument.is_empty() {
            arguments.push(argument);
        }
        run("ovs-ofctl", &arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Both ends of a conversation from host a to the station, by an address of the station.
    ///
    /// # Panics
    /// If it is not an address.
    #[must_use]
    pub fn there(&self, address: &str) -> TrafficEnds {
        TrafficEnds::new(
            self.a.netns(),
            self.station.netns(),
            address.parse().expect("an address"),
        )
    }

    /// Both ends of a conversation from the station to host a, by an address of host a.
    ///
    /// # Panics
    /// If it is not an address.
    #[must_use]
    pub fn back(&self, address: &str) -> TrafficEnds {
        TrafficEnds::new(
            self.station.netns(),
            self.a.netns(),
            address.parse().expect("an address"),
        )
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        for program in self.programs.iter_mut().rev() {
            let _ = program.kill();
            let _ = program.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.join("vs.log"));
            eprintln!("---- ovs-vswitchd ----\n{}", log.unwrap_or_default());
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
