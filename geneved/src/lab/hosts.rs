//! The lab's two hosts: addresses, daemons, and kernel VXLAN devices for comparison.

use super::LabOptions;
use super::daemon::{DaemonFiles, DaemonProcess};
use super::netns::{self, LabNetns, no_dad};
use crate::traffic::TrafficEnds;
use std::io;
use std::net::IpAddr;

/// Name of the veth on both hosts.
const WIRE: &str = "wire0";
/// Its addresses on host a and host b.
const UNDERLAY4: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const UNDERLAY6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

/// An overlay between the two hosts.
#[derive(Clone, Copy, Debug)]
pub(super) struct LabOverlay {
    /// Name of the interface on both hosts.
    pub device: &'static str,
    /// The VNI.
    pub vni: u32,
    /// Whether the underlay is IPv6.
    pub over6: bool,
    /// Prefix of its IPv4 addresses, without the last octet.
    v4: &'static str,
    /// Prefix of its IPv6 addresses.
    v6: &'static str,
}

impl LabOverlay {
    /// Address of host a or host b; `side` is 0 or 1.
    pub fn address(&self, six: bool, side: usize) -> IpAddr {
        let text = if six {
            format!("{}{}", self.v6, side + 1)
        } else {
            format!("{}{}", self.v4, side + 1)
        };
        text.parse().expect("the table below holds addresses")
    }

    fn prefixes(&self, side: usize) -> [String; 2] {
        [
            format!("{}/24", self.address(false, side)),
            format!("{}/64", self.address(true, side)),
        ]
    }

    fn underlay(&self, side: usize) -> &'static str {
        if self.over6 {
            UNDERLAY6[side]
        } else {
            UNDERLAY4[side]
        }
    }
}

/// Overlays of geneved, over IPv4 and over IPv6.
pub(super) const GENEVE_OVERLAYS: [LabOverlay; 2] = [
    LabOverlay {
        device: "gnv4",
        vni: 100,
        over6: false,
        v4: "10.4.0.",
        v6: "fd00:4::",
    },
    LabOverlay {
        device: "gnv6",
        vni: 200,
        over6: true,
        v4: "10.6.0.",
        v6: "fd00:6::",
    },
];

/// Overlays of the kernel, for comparison.
pub(super) const VXLAN_OVERLAYS: [LabOverlay; 2] = [
    LabOverlay {
        device: "vx4",
        vni: 100,
        over6: false,
        v4: "10.14.0.",
        v6: "fd00:14::",
    },
    LabOverlay {
        device: "vx6",
        vni: 200,
        over6: true,
        v4: "10.16.0.",
        v6: "fd00:16::",
    },
];

/// Overlay MTU on both sides of the comparison; with any outer header it fits the veth's 1500.
const OVERLAY_MTU: u32 = 1400;

/// The two hosts, with a daemon in each.
pub(super) struct LabHosts {
    // Dropped in this order: daemons before the namespaces they live in.
    daemons: Vec<DaemonProcess>,
    hosts: Vec<LabNetns>,
    /// Whether the kernel's VXLAN devices could be created.
    pub has_vxlan: bool,
}

impl LabHosts {
    /// Creates the namespaces, connects them, and starts a daemon in each.
    pub fn new(options: &LabOptions) -> io::Result<Self> {
        let a = LabNetns::new(&format!("{}-a", options.prefix))?;
        let b = LabNetns::new(&format!("{}-b", options.prefix))?;
        let wire = |side: usize| {
            [
                format!("{}/24", UNDERLAY4[side]),
                format!("{}/64", UNDERLAY6[side]),
            ]
        };
        let (wire_a, wire_b) = (wire(0), wire(1));
        netns::veth(
            (&a, WIRE, &wire_a.each_ref().map(String::as_str)),
            (&b, WIRE, &wire_b.each_ref().map(String::as_str)),
            1500,
        )?;
        let has_vxlan = netns::has_device_type(&a, "vxlan", "id 1 dstport 4789");
        let mut made = Self {
            daemons: Vec::new(),
            hosts: vec![a, b],
            has_vxlan,
        };
        let binary = options
            .binary
            .clone()
            .map_or_else(std::env::current_exe, Ok)?;
        for (side, host) in made.hosts.iter().enumerate() {
            let site = DaemonFiles {
                binary: binary.clone(),
                directory: options.directory(),
                name: ["a", "b"][side].to_owned(),
            };
            made.daemons.push(DaemonProcess::start(
                site,
                host,
                &configuration(side, &options.io),
            )?);
            if has_vxlan {
                for overlay in &VXLAN_OVERLAYS {
                    add_vxlan(host, overlay, side)?;
                }
            }
        }
        Ok(made)
    }

    /// Traffic ends from host a to host b through `overlay`.
    pub fn ends(&self, overlay: &LabOverlay, six: bool) -> TrafficEnds {
        TrafficEnds::new(
            self.hosts[0].netns(),
            self.hosts[1].netns(),
            overlay.address(six, 1),
        )
    }

    /// The daemons of host a and host b.
    pub fn daemons(&self) -> &[DaemonProcess] {
        &self.daemons
    }

    /// Stops the daemons.
    pub fn stop(self) -> io::Result<()> {
        self.daemons
            .into_iter()
            .try_for_each(|daemon| daemon.stop().map(drop))
    }

    /// Leaves everything running.
    pub fn keep(self) {
        self.daemons.into_iter().for_each(DaemonProcess::keep);
        self.hosts.into_iter().for_each(LabNetns::keep);
    }

    /// Prints what is there and what to type next; `down` is the command that removes it.
    pub fn explain(&self, down: &str) {
        let (a, b) = (self.hosts[0].name(), self.hosts[1].name());
        let program = self.daemons[0].site().binary.display();
        let socket = self.daemons[0].socket();
        let socket = socket.display();
        println!("Two hosts stand, joined by the veth {WIRE}; a daemon runs in each:\n");
        println!("  {a:<16} {:<14} {}", UNDERLAY4[0], UNDERLAY6[0]);
        println!("  {b:<16} {:<14} {}\n", UNDERLAY4[1], UNDERLAY6[1]);
        println!("with these overlays between them:\n");
        let kernel: &[LabOverlay] = if self.has_vxlan { &VXLAN_OVERLAYS } else { &[] };
        let named = GENEVE_OVERLAYS
            .iter()
            .map(|o| ("geneved", o))
            .chain(kernel.iter().map(|o| ("kernel VXLAN", o)));
        for (kind, overlay) in named {
            let [v4, v6] = [false, true].map(|six| overlay.address(six, 1));
            let over = if overlay.over6 { "IPv6" } else { "IPv4" };
            println!(
                "  {:<5} {kind:<13} VNI {}, over {over}; {b} is {v4} and {v6}",
                overlay.device, overlay.vni
            );
        }
        let peer = GENEVE_OVERLAYS[0].address(false, 1);
        println!("\nTo type next:\n");
        println!("  {program} --socket {socket} link show");
        println!("  {program} --socket {socket} -s -j link show");
        println!("  ip netns exec {a} ping -c 3 {peer}");
        println!("  ip -n {a} -d link show gnv4");
        println!("  ip netns exec {b} iperf3 -s -D && ip netns exec {a} iperf3 -c {peer}");
        println!("  {program} {down}\n");
        println!(
            "The daemons' logs are beside the sockets, in {}.",
            self.daemons[0].site().directory.display()
        );
    }
}

fn configuration(side: usize, io: &str) -> String {
    let mut text = format!("io = \"{io}\"\n");
    for overlay in &GENEVE_OVERLAYS {
        let [v4, v6] = overlay.prefixes(side);
        text += &format!(
            "\n[[link]]\nname = \"{}\"\ntype = \"geneve\"\nid = {}\nlocal = \"{}\"\nremote = \"{}\"\n\
             address = [\"{v4}\", \"{v6}\"]\nmtu = {OVERLAY_MTU}\n",
            overlay.device,
            overlay.vni,
            overlay.underlay(side),
            overlay.underlay(1 - side),
        );
    }
    text
}

fn add_vxlan(host: &LabNetns, overlay: &LabOverlay, side: usize) -> io::Result<()> {
    let LabOverlay { device, vni, .. } = overlay;
    host.ip(&format!(
        "link add {device} mtu {OVERLAY_MTU} type vxlan id {vni} local {} remote {} dstport 4789 dev {WIRE}",
        overlay.underlay(side),
        overlay.underlay(1 - side),
    ))?;
    for prefix in overlay.prefixes(side) {
        host.ip(&format!(
            "address add {prefix} dev {device}{}",
            no_dad(&prefix)
        ))?;
    }
    host.ip(&format!("link set dev {device} up")).map(drop)
}
