//! Two hosts with an Ethernet link each, attached to a Linux bridge with two stations behind it.

use geneved::lab::netns::{self, LabNetns};
use geneved::traffic::{Netns, TrafficEnds};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, sendto};
use socket2::{Domain, Protocol, Socket, Type};
use std::os::fd::AsRawFd;

use crate::eventually;
use crate::world::{Duo, TestBackend, TestDaemon};

/// Two sites of one VPC, VNI 100. Station `n` of 0 to 3 is 10.0.0.(n + 1) and fd00::(n + 1) with the MAC address
/// 02:00:00:00:01:0(n + 1) on its `e0`; 0 and 1 are on host a, 2 and 3 on host b.
pub struct Bridged {
    /// The daemons of both hosts.
    pub daemons: [TestDaemon; 2],
    /// The stations.
    pub stations: Vec<LabNetns>,
    /// The hosts.
    pub duo: Duo,
}

impl Bridged {
    /// Creates both sites. `more` follows the link in the configuration of each host and may start with further lines
    /// of the link.
    ///
    /// # Panics
    /// If any setup step fails.
    #[must_use]
    pub fn new(io: TestBackend, more: [&str; 2]) -> Self {
        Self::with(io, "", more)
    }

    /// Like [`Bridged::new`], with further lines of the `[daemon]` table.
    ///
    /// # Panics
    /// If any setup step fails.
    #[must_use]
    pub fn with(io: TestBackend, daemon: &str, more: [&str; 2]) -> Self {
        Self::over(Duo::new(), 1500, io, daemon, more)
    }

    /// Like [`Bridged::with`], on existing hosts and with stations of this MTU.
    ///
    /// # Panics
    /// If any setup step fails.
    #[must_use]
    pub fn over(duo: Duo, mtu: u32, io: TestBackend, daemon: &str, more: [&str; 2]) -> Self {
        let hosts = [&duo.a, &duo.b];
        let start = |side: usize| {
            let lines = format!(
                "[[link]]\nname = \"gnv0\"\nid = 100\nmode = \"ethernet\"\nlladdr = \"02:00:00:00:00:0{}\"\n{}\n",
                side + 1,
                more[side]
            );
            duo.world.daemon(hosts[side], io, daemon, &lines)
        };
        let daemons = [start(0), start(1)];
        for host in hosts {
            host.ip("link add br0 type bridge").unwrap();
            host.ip("link set br0 up").unwrap();
            host.ip("link set gnv0 master br0").unwrap();
        }
        let stations = (0..4).map(|n| duo.world.host(&format!("s{n}"))).collect();
        let bridged = Bridged {
            daemons,
            stations,
            duo,
        };
        for n in 0..4 {
            bridged.plug(n, n / 2);
            bridged.stations[n]
                .ip(&format!("link set e0 mtu {mtu}"))
                .unwrap();
            let host = [&bridged.duo.a, &bridged.duo.b][n / 2];
            host.ip(&format!("link set p{n} mtu {mtu}")).unwrap();
        }
        bridged
    }

    /// Plugs station `n` into the bridge of host a (0) or b (1).
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn plug(&self, n: usize, side: usize) {
        let host = [&self.duo.a, &self.duo.b][side];
        let station = &self.stations[n];
        let port = format!("p{n}");
        netns::ip(&format!(
            "link add {port} netns {} type veth peer name e0 address {} netns {}",
            host.name(),
            mac(n),
            station.name()
        ))
        .unwrap();
        host.ip(&format!("link set {port} master br0 up")).unwrap();
        for words in [
            "link set e0 up".to_owned(),
            format!("address add 10.0.0.{}/24 brd + dev e0", n + 1),
            format!("address add fd00::{}/64 dev e0", n + 1),
        ] {
            station.ip(&words).unwrap();
        }
        eventually(10, "duplicate address detection ends", || {
            !station
                .ip("-6 address show dev e0")
                .unwrap()
                .contains("tentative")
        });
    }

    /// Unplugs station `n` from the bridge of host a (0) or b (1).
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn unplug(&self, n: usize, side: usize) {
        let host = [&self.duo.a, &self.duo.b][side];
        host.ip(&format!("link del p{n}")).unwrap();
    }

    /// Both ends of a conversation from one station to another, which is addressed by `address`.
    ///
    /// # Panics
    /// If there is no such address.
    #[must_use]
    pub fn ends(&self, from: usize, to: usize, address: &str) -> TrafficEnds {
        let (from, to) = (&self.stations[from], &self.stations[to]);
        TrafficEnds::new(
            from.netns(),
            to.netns(),
            address.parse().expect("an address"),
        )
    }
}

/// MAC address of station `n`.
#[must_use]
pub fn mac(n: usize) -> String {
    format!("02:00:00:00:01:0{}", n + 1)
}

/// MAC address of station `n`, in bytes.
#[must_use]
pub fn mac_bytes(n: usize) -> [u8; 6] {
    [2, 0, 0, 0, 1, n as u8 + 1]
}

/// Sends a raw frame from the interface `e0` of a namespace.
///
/// # Panics
/// If the kernel refuses.
pub fn send_frame(netns: &Netns, frame: &[u8]) {
    let send = || {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        let device = getifaddrs()?
            .filter(|interface| interface.interface_name == "e0")
            .find_map(|interface| interface.address?.as_link_addr().copied());
        let device: LinkAddr = device.expect("e0 has a link-layer address");
        sendto(socket.as_raw_fd(), frame, &device, MsgFlags::empty())?;
        std::io::Result::Ok(())
    };
    netns
        .run(send)
        .and_then(std::convert::identity)
        .expect("the frame is sent");
}
