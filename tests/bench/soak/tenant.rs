//! Hostile tenants: forged virtio headers, malformed packets and inner ICMP errors sent through their interfaces.

use super::actor::{Actor, ActorContext, any_of};
use super::arguments::SoakArguments;
use super::hostile::icmp;
use super::hosts::{FRAMES_VPC, FUNCTIONS_VPC, PLAIN_VPC, SoakHosts, VXLAN_VPC, Vpc};
use fastrand::Rng;
use geneved_tests::packet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, recvfrom, sendto, setsockopt};
use nix::{libc, setsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

sockopt_impl!(
    /// Each packet is preceded by a `virtio_net_hdr` (packet(7), linux/if_packet.h).
    PacketVnetHdr,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_VNET_HDR,
    bool
);

/// Packets sent between two checks of the clock.
const TENANT_BATCH: u32 = 20;

/// Packet socket on one interface.
struct PacketSocket {
    socket: Socket,
    /// Link-layer address of the interface, for packets of each family.
    devices: [LinkAddr; 2],
    vpc: &'static Vpc,
    side: usize,
}

impl PacketSocket {
    fn open(hosts: &SoakHosts, vpc: &'static Vpc, side: usize, vnet: bool) -> io::Result<Self> {
        let open = || {
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
            if vnet {
                setsockopt(&socket, PacketVnetHdr, &true)?;
            }
            let devices = match vpc.device == FRAMES_VPC.device {
                true => [station(vpc)?; 2],
                false => [learned(vpc, side, false)?, learned(vpc, side, true)?],
            };
            Ok(Self {
                socket,
                devices,
                vpc,
                side,
            })
        };
        hosts.tenant(vpc, side).netns().run(open)?
    }

    /// Sends a packet of this family. Returns whether the kernel accepted it.
    fn send(&self, six: bool, bytes: &[u8]) -> bool {
        let device = &self.devices[usize::from(six)];
        sendto(
            self.socket.as_raw_fd(),
            bytes,
            device,
            MsgFlags::MSG_DONTWAIT,
        )
        .is_ok()
    }

    /// Addresses of this tenant and of the other.
    fn addresses(&self, six: bool) -> (IpAddr, IpAddr) {
        (
            self.vpc.address(six, self.side),
            self.vpc.address(six, 1 - self.side),
        )
    }

    /// Broadcast Ethernet header, for an interface that has one.
    fn head(&self, rng: &mut Rng, six: bool) -> Vec<u8> {
        if self.vpc.device != FRAMES_VPC.device {
            return Vec::new();
        }
        let mut bytes = vec![0xff; 6];
        bytes.extend([2, 0x77, 0, 0, 0, rng.u8(..)]);
        bytes.extend(
            if six {
                packet::ETHERTYPE_IPV6
            } else {
                packet::ETHERTYPE_IPV4
            }
            .to_be_bytes(),
        );
        bytes
    }
}

/// Link-layer address of an Ethernet interface.
fn station(vpc: &Vpc) -> io::Result<LinkAddr> {
    let device = getifaddrs()?
        .filter(|interface| interface.interface_name == vpc.device)
        .find_map(|interface| interface.address?.as_link_addr().copied());
    device.ok_or_else(|| io::Error::other(format!("{} has no address", vpc.device)))
}

/// Link-layer address of an interface without Ethernet, for a family: taken from a packet that leaves through it.
fn learned(vpc: &Vpc, side: usize, six: bool) -> io::Result<LinkAddr> {
    /// `ETH_P_ALL` in network byte order.
    const ALL_PROTOCOLS: i32 = 0x0003_u16.to_be() as i32;
    let ear = Socket::new(
        Domain::PACKET,
        Type::DGRAM,
        Some(Protocol::from(ALL_PROTOCOLS)),
    )?;
    ear.set_read_timeout(Some(Duration::from_secs(5)))?;
    let index = nix::net::if_::if_nametoindex(vpc.device)?;
    let protocol = if six {
        packet::ETHERTYPE_IPV6
    } else {
        packet::ETHERTYPE_IPV4
    };
    let voice = UdpSocket::bind((vpc.address(six, side), 0))?;
    loop {
        voice.send_to(b"where", (vpc.address(six, 1 - side), 9))?;
        let (_, from) = recvfrom::<LinkAddr>(ear.as_raw_fd(), &mut [0; 2048])?;
        let from = from.ok_or_else(|| io::Error::other("a packet without an interface"))?;
        if from.ifindex() == index as usize && u16::from_be(from.protocol()) == protocol {
            return Ok(from);
        }
    }
}

/// Actor that sends forged virtio headers or malformed packets.
struct Tenant {
    wires: Vec<PacketSocket>,
    vnet: bool,
    rate: u32,
}

/// Returns the hostile tenants.
pub fn tenants(hosts: &SoakHosts, arguments: &SoakArguments) -> io::Result<Vec<Box<dyn Actor>>> {
    let mut all: Vec<Box<dyn Actor>> = Vec::new();
    for (vnet, word) in [(true, "virtio"), (false, "inner")] {
        if !arguments.has(word) {
            continue;
        }
        // The plain VPC is counted packet by packet, so it gets no super-packets.
        let vpcs: &[&'static Vpc] = match vnet {
            true => &[&FRAMES_VPC, &VXLAN_VPC, &FUNCTIONS_VPC],
            false => &[&PLAIN_VPC, &FRAMES_VPC, &VXLAN_VPC, &FUNCTIONS_VPC],
        };
        let wires = vpcs
            .iter()
            .flat_map(|&vpc| [0, 1].map(|side| PacketSocket::open(hosts, vpc, side, vnet)));
        let wires = wires.collect::<io::Result<Vec<_>>>()?;
        all.push(Box::new(Tenant {
            wires,
            vnet,
            rate: arguments.rate,
        }));
    }
    Ok(all)
}

impl Actor for Tenant {
    fn name(&self) -> String {
        format!("hostile {}", if self.vnet { "virtio" } else { "inner" })
    }

    fn step(&mut self, cx: &mut ActorContext<'_>) -> Result<u64, String> {
        let wire = &self.wires[cx.rng.usize(..self.wires.len())];
        let batch = TENANT_BATCH.min(self.rate);
        let mut taken = 0;
        for _ in 0..batch {
            let six = cx.rng.bool();
            let bytes = if self.vnet {
                forged(wire, cx.rng, six)
            } else {
                broken(wire, cx.rng, six)
            };
            taken += u64::from(wire.send(six, &bytes));
        }
        cx.gate.pause(Duration::from_secs_f64(
            f64::from(batch) / f64::from(self.rate),
        ));
        Ok(taken)
    }
}

/// Builds a TCP segment for no existing connection.
fn tcp(rng: &mut Rng, from: IpAddr, to: IpAddr, len: usize) -> Vec<u8> {
    let mut segment = [rng.u16(1..).to_be_bytes(), 9_u16.to_be_bytes()].concat();
    segment.extend(rng.u64(..).to_be_bytes());
    segment.extend([0x50, 0x10, 0x20, 0, 0, 0, 0, 0]);
    segment.resize(20 + len, 0x5a);
    packet::ip(from, to, 6, &segment)
}

/// Builds a packet with a virtio header that is wrong in one field or in all of them.
fn forged(wire: &PacketSocket, rng: &mut Rng, six: bool) -> Vec<u8> {
    let (from, to) = wire.addresses(six);
    let len = match rng.bool() {
        true => rng.usize(..1400),
        false => rng.usize(..40_000),
    };
    let packet = match rng.bool() {
        true => tcp(rng, from, to, len),
        false => packet::udp((from, rng.u16(1..)), (to, 9), &vec![0x5a; len]),
    };
    let head = wire.head(rng, six);
    let is_tcp = packet[if six { 6 } else { 9 }] == 6;
    let network = if six { 40 } else { 20 };
    let start = head.len() as u16 + network;
    // Starts from correct values; some are then corrupted.
    let gso = match (is_tcp, six) {
        (true, false) => 1,
        (true, true) => 4,
        (false, _) => 5,
    };
    let (mut flags, mut kind) = (1_u8, if len > 1300 { gso } else { 0 });
    let mut words = [
        start + if is_tcp { 20 } else { 8 },
        1200,
        start,
        if is_tcp { 16 } else { 6 },
    ];
    match rng.u8(..8) {
        0 => kind = rng.u8(..),
        1 => kind = any_of(rng, &[0, 1, 3, 4, 5, 0x81, 0x84, 0x85]),
        2 => flags = rng.u8(..),
        3..=5 => words[rng.usize(..4)] = any_of(rng, &[0, 1, 7, 64, 1448, u16::MAX]),
        6 => words = std::array::from_fn(|_| rng.u16(..)),
        _ => {}
    }
    let mut bytes = vec![flags, kind];
    bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    bytes.extend(head);
    bytes.extend(packet);
    bytes
}

/// Builds a malformed packet, or an ICMP error about a flow that may or may not exist.
fn broken(wire: &PacketSocket, rng: &mut Rng, six: bool) -> Vec<u8> {
    let (from, to) = wire.addresses(six);
    let len = rng.usize(..1200);
    let mut packet = packet::udp((from, rng.u16(1..)), (to, 9), &vec![0x5a; len]);
    match rng.u8(..6) {
        0 => {
            let kept = rng.usize(1..packet.len());
            packet.truncate(kept);
        }
        1 => packet.iter_mut().for_each(|byte| *byte = rng.u8(..)),
        2 => packet = packet::ip(from, to, rng.u8(..), &packet),
        3 => {
            // Quotes a datagram from the other tenant, which may have been sent.
            let mut quoted = packet::udp((to, rng.u16(1..)), (from, rng.u16(32_768..)), &[0; 40]);
            quoted.truncate(28 + rng.usize(..60));
            let (kind, code) = if six {
                (1, rng.u8(..5))
            } else {
                (3, rng.u8(..4))
            };
            packet = icmp(from, to, kind, code, 0, &quoted);
        }
        // Spoofed source address.
        4 => packet = packet::udp((wire.vpc.address(six, 100), 9), (to, 9), &[0; 20]),
        _ => {
            for _ in 0..4 {
                let at = rng.usize(..packet.len());
                packet[at] ^= 1 << rng.u8(..8);
            }
        }
    }
    let mut bytes = wire.head(rng, six);
    bytes.extend(packet);
    bytes
}
