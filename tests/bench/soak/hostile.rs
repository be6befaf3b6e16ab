//! Attacker on the underlay: malformed and forged datagrams, and ICMP errors about datagrams that were or were not
//! sent.

use super::actor::{Actor, ActorContext, any_of};
use super::hosts::{self, ATTACKER, CHURNED_VPC, FRAMES_VPC, STANDING, SoakHosts, VXLAN_VPC, Vpc};
use fastrand::Rng;
use geneved_tests::packet::{self, RawGeneve, option};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const ATTACKED_GENEVE_PORT: u16 = 6081;
const ATTACKED_VXLAN_PORT: u16 = 4789;
/// `IPPROTO_RAW`: the sender writes the IP header too.
const RAW: i32 = 255;
/// Packets sent between two checks of the clock.
const ATTACK_BATCH: u32 = 50;
/// Source ports that flows are spread over.
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// Raw sockets of both families, in the attacker's namespace.
struct RawSockets([Socket; 2]);

impl RawSockets {
    fn open(hosts: &SoakHosts) -> io::Result<Self> {
        hosts.attacker.netns().run(|| {
            let open = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)));
            Ok(Self([open(Domain::IPV4)?, open(Domain::IPV6)?]))
        })?
    }

    /// Sends a complete IP packet; false if the kernel refuses it.
    fn send(&self, to: IpAddr, packet: &[u8]) -> bool {
        let socket = &self.0[usize::from(to.is_ipv6())];
        socket
            .send_to(packet, &SocketAddr::new(to, 0).into())
            .is_ok()
    }
}

/// Kind of attack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attack {
    /// Malformed headers and unknown VNIs, from the attacker's own address.
    Malformed,
    /// The same, and valid VNIs and inner packets, with the spoofed address of a host that the VPC knows.
    Spoofed,
    /// ICMP errors that quote our ports.
    Errors,
    /// ICMP errors that claim a smaller path MTU.
    Narrow,
}

/// Attacker on the underlay.
struct Attacker {
    attack: Attack,
    sockets: RawSockets,
    rate: u32,
}

/// Returns the attackers of these kinds.
pub fn attackers(
    hosts: &SoakHosts,
    arguments: &super::arguments::SoakArguments,
) -> io::Result<Vec<Box<dyn Actor>>> {
    let kinds = [
        Attack::Malformed,
        Attack::Spoofed,
        Attack::Errors,
        Attack::Narrow,
    ];
    let wanted = kinds
        .into_iter()
        .filter(|attack| arguments.has(attack.word()));
    wanted
        .map(|attack| {
            let sockets = RawSockets::open(hosts)?;
            let rate = match attack {
                Attack::Narrow => arguments.rate.min(20),
                _ => arguments.rate,
            };
            Ok(Box::new(Attacker {
                attack,
                sockets,
                rate,
            }) as Box<dyn Actor>)
        })
        .collect()
}

impl Attack {
    fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Spoofed => "spoofed",
            Self::Errors => "icmp",
            Self::Narrow => "icmp-mtu",
        }
    }
}

impl Actor for Attacker {
    fn name(&self) -> String {
        format!("hostile {}", self.attack.word())
    }

    fn step(&mut self, cx: &mut ActorContext<'_>) -> Result<u64, String> {
        let batch = ATTACK_BATCH.min(self.rate);
        let mut sent = [0; 2];
        for _ in 0..batch {
            let side = cx.rng.usize(..2);
            let packet = match self.attack {
                Attack::Malformed => malformed(cx.rng, side),
                Attack::Spoofed => spoofed(cx.rng, side),
                Attack::Errors => error(cx.rng, side, false),
                Attack::Narrow => error(cx.rng, side, true),
            };
            let to = hosts::underlay(packet[0] >> 4 == 6, side);
            sent[side] += u64::from(self.sockets.send(to, &packet));
        }
        // Said at the end, beside what arrived.
        if matches!(self.attack, Attack::Malformed | Attack::Spoofed) {
            for (side, sent) in sent.into_iter().enumerate() {
                cx.ledger.count(&format!("forged to {side}"), sent);
            }
        }
        cx.gate.pause(Duration::from_secs_f64(
            f64::from(batch) / f64::from(self.rate),
        ));
        Ok(sent.iter().sum())
    }
}

/// Builds an outer datagram around `payload`.
fn datagram(rng: &mut Rng, from: IpAddr, to: IpAddr, port: u16, payload: &[u8]) -> Vec<u8> {
    packet::udp((from, rng.u16(SOURCE_PORTS)), (to, port), payload)
}

/// Builds a datagram with a malformed header, from an address that no VPC knows.
fn malformed(rng: &mut Rng, side: usize) -> Vec<u8> {
    let six = rng.bool();
    let (from, to) = (hosts::underlay(six, ATTACKER), hosts::underlay(six, side));
    let (port, mut payload) = encapsulated(rng, side);
    match rng.u8(..6) {
        0 => payload.truncate(rng.usize(..payload.len().min(24))),
        1 => {
            let len = rng.usize(1..1400);
            payload = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
        }
        2 => payload[0] = rng.u8(..),
        // Unassigned VNI.
        3 => payload[4..7].copy_from_slice(&rng.u32(0x10_0000..).to_be_bytes()[..3]),
        _ => flip(rng, &mut payload, 4),
    }
    keep_off(&mut payload);
    datagram(rng, from, to, port, &payload)
}

/// Builds a datagram from the spoofed address of the other host, which gets as far as the VPC's own checks.
fn spoofed(rng: &mut Rng, side: usize) -> Vec<u8> {
    let vpc = any_of(rng, &STANDING);
    let (port, mut payload) = encapsulated_in(rng, vpc, side);
    let inner = payload.len().min(8);
    match rng.u8(..5) {
        0 => payload.truncate(rng.usize(..payload.len())),
        1 => flip(rng, &mut payload[inner..], 2),
        2 => flip(rng, &mut payload, 6),
        3 => {
            let len = rng.usize(..200);
            payload.extend(std::iter::repeat_with(|| rng.u8(..)).take(len));
        }
        _ => {}
    }
    keep_off(&mut payload);
    let six = vpc.remote(side).is_ipv6();
    let (from, to) = (hosts::underlay(six, 1 - side), hosts::underlay(six, side));
    datagram(rng, from, to, port, &payload)
}

/// Avoids the VPC whose link is churned: its counters vanish with it.
fn keep_off(payload: &mut [u8]) {
    if let Some(vni) = payload.get_mut(4..7)
        && vni == &CHURNED_VPC.vni.to_be_bytes()[1..]
    {
        vni[0] ^= 0x40;
    }
}

fn flip(rng: &mut Rng, bytes: &mut [u8], most: usize) {
    if bytes.is_empty() {
        return;
    }
    for _ in 0..=rng.usize(..most) {
        let at = rng.usize(..bytes.len());
        bytes[at] ^= 1 << rng.u8(..8);
    }
}

fn encapsulated(rng: &mut Rng, side: usize) -> (u16, Vec<u8>) {
    let vpc = any_of(rng, &STANDING);
    encapsulated_in(rng, vpc, side)
}

/// Returns the port of a VPC, and a well-formed payload.
fn encapsulated_in(rng: &mut Rng, vpc: &Vpc, side: usize) -> (u16, Vec<u8>) {
    let inner = inner(rng, vpc, side);
    if vpc.vni == VXLAN_VPC.vni {
        let mut bytes = vec![8, 0, 0, 0];
        bytes.extend(&vpc.vni.to_be_bytes()[1..]);
        bytes.push(0);
        bytes.extend(frame(rng, &inner));
        return (ATTACKED_VXLAN_PORT, bytes);
    }
    let six = inner[0] >> 4 == 6;
    let mut header = RawGeneve::new(vpc.vni);
    header.protocol = if six {
        packet::ETHERTYPE_IPV6
    } else {
        packet::ETHERTYPE_IPV4
    };
    for _ in 0..rng.usize(..3) {
        let len = 4 * rng.usize(..6);
        let data: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
        let class = any_of(rng, &[0xff47, 0x0108, 0x0102, 0x014b, 0x1234]);
        header.options.extend(option(class, rng.u8(..), &data));
    }
    header.control = rng.u8(..16) == 0;
    header.critical = rng.bool();
    if vpc.vni == FRAMES_VPC.vni {
        header.protocol = 0x6558;
        return (ATTACKED_GENEVE_PORT, header.datagram(&frame(rng, &inner)));
    }
    (ATTACKED_GENEVE_PORT, header.datagram(&inner))
}

/// Builds an inner packet from the other host's tenant; nothing listens at its destination.
fn inner(rng: &mut Rng, vpc: &Vpc, side: usize) -> Vec<u8> {
    let six = rng.bool();
    // Where MAC addresses are learned from packets, forging the other host's address also allows forging its tenant's
    // MAC address. The tenant's own address is not used, because its legitimate traffic would be diverted.
    let from = if vpc.vni == VXLAN_VPC.vni {
        200
    } else {
        1 - side
    };
    let (from, to) = (vpc.address(six, from), vpc.address(six, side));
    let len = rng.usize(..1000);
    let payload: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
    match rng.u8(..4) {
        // Any protocol, with anything in it.
        0 => packet::ip(from, to, rng.u8(..), &payload),
        1 => icmp(from, to, rng.u8(..), rng.u8(..), rng.u32(..), &payload),
        _ => packet::udp((from, rng.u16(1..)), (to, 9), &payload),
    }
}

/// Builds a frame around it, from an unknown station.
fn frame(rng: &mut Rng, inner: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 6];
    bytes.extend([2, 0x66, 0, 0, rng.u8(..), rng.u8(..)]);
    bytes.extend(
        if inner[0] >> 4 == 6 {
            packet::ETHERTYPE_IPV6
        } else {
            packet::ETHERTYPE_IPV4
        }
        .to_be_bytes(),
    );
    bytes.extend(inner);
    bytes
}

/// Builds an ICMP error to host `side` about a datagram that it may have sent.
fn error(rng: &mut Rng, side: usize, narrow: bool) -> Vec<u8> {
    let six = rng.bool();
    let (own, victim) = (hosts::underlay(six, ATTACKER), hosts::underlay(six, side));
    let other = hosts::underlay(six, any_of(rng, &[1 - side, 2]));
    // Evenly spaced ports are the easiest to guess.
    let port = match rng.bool() {
        true => rng.u16(SOURCE_PORTS),
        false => SOURCE_PORTS.start() + 256 * rng.u16(..64),
    };
    let (to_port, payload) = encapsulated(rng, 1 - side);
    let mut quoted = packet::udp((victim, port), (other, to_port), &payload);
    quoted.truncate(rng.usize(24..200));
    let (kind, code, word) = match (six, narrow) {
        (false, true) => (3, 4, rng.u32(68..1500)),
        (true, true) => (2, 0, rng.u32(..1500)),
        (false, false) => (
            any_of(rng, &[3, 3, 11, 12]),
            any_of(rng, &[0, 1, 2, 3, 13]),
            0,
        ),
        (true, false) => (any_of(rng, &[1, 3, 4]), rng.u8(..8), 0),
    };
    icmp(own, victim, kind, code, word, &quoted)
}

/// Builds an ICMP message: the four bytes after its checksum are `word`, followed by `body`.
pub fn icmp(from: IpAddr, to: IpAddr, kind: u8, code: u8, word: u32, body: &[u8]) -> Vec<u8> {
    let protocol = if from.is_ipv6() { 58 } else { 1 };
    let mut message = vec![kind, code, 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(body);
    let pseudo = match from.is_ipv6() {
        true => packet::pseudo(from, to, protocol, message.len()),
        false => 0,
    };
    let check = !(packet::sum(pseudo, &message) as u16);
    message[2..4].copy_from_slice(&check.to_be_bytes());
    packet::ip(from, to, protocol, &message)
}
