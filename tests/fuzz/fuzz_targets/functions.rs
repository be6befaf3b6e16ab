//! The whole journey, both ways, over random configurations of everything that a link does, which change under the flows:
//! nothing panics; what is forwarded is a sound packet behind a sound header of the VPC that it is for; a packet is
//! refused by the link that it came on; no port is lent to two; the table stays within its bound.
//!
//! Input: three bytes from which a configuration grows, then steps of three bytes: what happens (a packet from TUN or from
//! the wire, an answer or an ICMP error to what was forwarded last, time that passes, another configuration), and a seed of
//! its choices.
#![no_main]

#[path = "functions/configuration.rs"]
mod configuration;
#[path = "functions/traffic.rs"]
mod traffic;
#[path = "../../../libgeneve/tests/world/mod.rs"]
mod world;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use libgeneve::datapath::{OuterRx, PacketContext, Egress, Forward, Ingress, Output, RefusedPacket, SharedState};
use libgeneve::flow::{FlowHasher, FlowLimits};
use libgeneve::vpc::{HostRegistry, Link, LinkIndex, RxInterface, Tables};
use libgeneve::nat;
use libgeneve::offload::vnet::VnetHdr;
use libgeneve::options::SentOptions;
use libgeneve::time::Now;
use libgeneve::wire::geneve::{GENEVE_PORT, Geneve, Vni, protocol_type};
use libgeneve::wire::icmp::{IcmpError, MAX_V6_ERROR_LEN, UnreachableReason};
use libgeneve::wire::ip::protocol;
use libgeneve::wire::option::GeneveOption;
use libgeneve::wire::packet::Packet;

use configuration::{TAG, addr, any, functions};
use traffic::{flags, is_sound, random_options, random_packet};
use world::packets::{PayloadKind, packet};
use world::{WORLD_HOST_B, WORLD_HOST_C, WORLD_HOST_A, ip};

/// Capacity of the flow table.
const MAX_FUZZ_FLOWS: usize = 64;
const VNIS: [u32; 2] = [100, 200];
const FUNCTION_HOSTS: [&str; 3] = [WORLD_HOST_B, WORLD_HOST_C, "192.0.2.66"];
/// Next hop of a forwarded packet, and the packet as it arrives there.
struct FuzzOutput {
    place: FuzzPlace,
    inner: Vec<u8>,
}

#[derive(Clone, Copy)]
enum FuzzPlace {
    Tun(LinkIndex),
    Wire(LinkIndex, IpAddr),
}

struct FuzzHost {
    tables: Tables,
    hosts: HostRegistry,
    registry: nat::PoolRegistry,
    state: SharedState,
    now: Now,
    egress: Egress,
    ingress: Ingress,
    last: Option<FuzzOutput>,
}

impl FuzzHost {
    fn new(u: &mut Unstructured<'_>) -> Result<FuzzHost> {
        let limits = FlowLimits {
            flows: MAX_FUZZ_FLOWS,
            ..FlowLimits::default()
        };
        let mut host = FuzzHost {
            tables: Tables::default(),
            hosts: HostRegistry::default(),
            registry: nat::PoolRegistry::default(),
            state: SharedState::new(limits, [3, 4]),
            now: Now(1_000_000_000),
            egress: Egress::default(),
            ingress: Ingress::default(),
            last: None,
        };
        host.configure(u)?;
        Ok(host)
    }

    fn cx(&self) -> PacketContext<'_> {
        PacketContext {
            tables: &self.tables,
            state: &self.state,
            now: self.now,
        }
    }

    fn configure(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let mut links = Vec::new();
        for (index, vni) in VNIS.into_iter().enumerate() {
            let index = LinkIndex(index as u32);
            let mut config = world::link(functions(u, index, &mut self.registry)?);
            config.index = index;
            config.vni = Vni::new(vni).expect("24 bits");
            links.push(Arc::new(Link::new(config, &mut self.hosts)));
        }
        // One of them may be absent.
        if u.ratio(1, 8)? {
            links.pop();
        }
        self.settle();
        let epoch = self.tables.epoch + 1;
        self.tables = Tables::new(links, FlowHasher::new([1, 2]));
        self.tables.epoch = epoch;
        let mut ingress = std::mem::take(&mut self.ingress);
        ingress.forget(&self.cx());
        self.ingress = ingress;
        self.registry.prune();
        Ok(())
    }

    fn settle(&mut self) {
        let (mut egress, mut ingress) = (
            std::mem::take(&mut self.egress),
            std::mem::take(&mut self.ingress),
        );
        egress.flush(&self.cx());
        ingress.flush(&self.cx());
        (self.egress, self.ingress) = (egress, ingress);
    }

    fn step(&mut self, what: u8, u: &mut Unstructured<'_>) -> Result<()> {
        match what {
            0..=3 => {
                let bytes = random_packet(u)?;
                let link = LinkIndex(u.int_in_range(0..=1)?);
                self.send(link, bytes);
            }
            4..=7 => {
                let bytes = random_packet(u)?;
                let vni = *u.choose(&VNIS)?;
                let options = random_options(u)?;
                self.receive(
                    any(u, &FUNCTION_HOSTS)?.parse().expect("an address"),
                    vni,
                    &options,
                    bytes,
                );
            }
            8..=10 => self.answer(u)?,
            11 | 12 => self.complain(u)?,
            13 => {
                self.now.0 += u64::from(u.arbitrary::<u16>()?) * 10_000_000;
                self.settle();
                self.state.expire(self.now);
            }
            14 => self.configure(u)?,
            _ => self.settle(),
        }
        self.check();
        Ok(())
    }

    /// Sends a reply from where the last packet went.
    fn answer(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let Some(last) = self.last.take() else {
            return Ok(());
        };
        let Ok(asked) = Packet::parse(&last.inner) else {
            return Ok(());
        };
        let (sport, dport) = asked.ports().unwrap_or((1, 1));
        let kind = match asked.protocol {
            protocol::TCP => PayloadKind::Tcp(flags(u)?, 7),
            protocol::UDP => PayloadKind::Udp,
            protocol::ICMP | protocol::ICMPV6 => PayloadKind::Echo { reply: true },
            other => PayloadKind::Other(other),
        };
        // The identifier of an echo is kept.
        let id = last
            .inner
            .get(usize::from(asked.payload_offset).saturating_sub(4)..)
            .and_then(|b| b.first_chunk());
        let from = match kind {
            PayloadKind::Echo { .. } => id.map_or(1, |id: &[u8; 2]| u16::from_be_bytes(*id)),
            _ => dport,
        };
        let bytes = packet((asked.dst, from), (asked.src, sport), kind, 20);
        self.back(u, last.place, bytes)
    }

    /// Sends an ICMP error about the last packet.
    fn complain(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let Some(last) = self.last.take() else {
            return Ok(());
        };
        let Ok(about) = Packet::parse(&last.inner) else {
            return Ok(());
        };
        let error = IcmpError::Unreachable(UnreachableReason::Host);
        let from = if u.arbitrary()? { about.dst } else { addr(u)? };
        if !error.may_answer(&about) || from.is_ipv4() != about.src.is_ipv4() {
            return Ok(());
        }
        let mut out = vec![0; MAX_V6_ERROR_LEN];
        let Some(len) = error.build(from, &about, &last.inner, &mut out) else {
            return Ok(());
        };
        out.truncate(len);
        self.back(u, last.place, out)
    }

    fn back(&mut self, u: &mut Unstructured<'_>, place: FuzzPlace, bytes: Vec<u8>) -> Result<()> {
        match place {
            FuzzPlace::Tun(link) => self.send(link, bytes),
            FuzzPlace::Wire(link, host) => {
                let options = if u.ratio(3, 4)? {
                    SentOptions::default()
                } else {
                    random_options(u)?.0
                };
                self.receive(host, VNIS[link.0 as usize], &(options, None), bytes);
            }
        }
        Ok(())
    }

    /// Sends a packet from TUN.
    fn send(&mut self, link: LinkIndex, mut inner: Vec<u8>) {
        let Some(link) = self.tables.link(link).cloned() else {
            return;
        };
        let Ok(mut parsed) = Packet::parse(&inner) else {
            return;
        };
        let sound = is_sound(&inner, &parsed);
        let mut egress = std::mem::take(&mut self.egress);
        let decided = egress.decide(&self.cx(), &link, &mut inner, &mut parsed, &VnetHdr::NONE);
        self.egress = egress;
        match decided {
            Ok(encap) => {
                let place = match &encap.output {
                    Output::Link(link) => FuzzPlace::Tun(*link),
                    Output::Host(forward) => self.forwarded(forward, &inner),
                };
                self.went(place, inner, &parsed, sound);
            }
            Err(refused) => assert_eq!(refused.link, Some(link.config.index)),
        }
    }

    /// Receives a datagram from another host.
    fn receive(
        &mut self,
        from: IpAddr,
        vni: u32,
        (options, tag): &(SentOptions, Option<Vec<u8>>),
        inner: Vec<u8>,
    ) {
        let ether_type = match inner.first().map(|b| b >> 4) {
            Some(6) => protocol_type::IPV6,
            _ => protocol_type::IPV4,
        };
        let tag = tag.as_ref().map(|data| GeneveOption {
            class: TAG.0,
            kind: TAG.1,
            data,
        });
        let vni = Vni::new(vni).expect("24 bits");
        let header = options
            .header(&self.tables.schema, vni, ether_type, tag)
            .expect("they fit");
        let mut datagram = [&header[..], &inner].concat();
        let sound = Packet::parse(&inner).is_ok_and(|packet| is_sound(&inner, &packet));
        let arrival = OuterRx {
            port: GENEVE_PORT,
            src: from,
            dst: Some(ip(WORLD_HOST_A)),
            tos: 0,
            interface: RxInterface::Underlay,
        };
        let mut ingress = std::mem::take(&mut self.ingress);
        let decided = ingress.decide(&self.cx(), &arrival, &mut datagram);
        self.ingress = ingress;
        match decided {
            Ok(decap) => {
                let inner = datagram.split_off(decap.start);
                let place = match &decap.output {
                    Output::Link(link) => FuzzPlace::Tun(*link),
                    Output::Host(forward) => self.forwarded(forward, &inner),
                };
                self.went(place, inner, &decap.packet, sound);
            }
            Err(RefusedPacket { link, .. }) => {
                // A datagram of an unknown VNI is not counted for any link.
                let known = self
                    .tables
                    .by_vni(GENEVE_PORT, vni)
                    .map(|link| link.config.index);
                assert_eq!(link, known);
            }
        }
    }

    /// Checks that the outer header is sound, and that it is of the destination's VPC.
    fn forwarded(&self, forward: &Forward, inner: &[u8]) -> FuzzPlace {
        let link = self.tables.link(forward.link).expect("it is there");
        assert!(
            link.host(forward.host.addr).is_some(),
            "a host that the VPC does not know"
        );
        let datagram = [&forward.encap[..], inner].concat();
        let geneve = Geneve::parse(&datagram).expect("a sound header");
        assert_eq!(geneve.vni(), link.config.vni);
        assert!(!geneve.is_control());
        let critical = geneve.options().any(|option| option.kind.0 & 0x80 != 0);
        assert_eq!(geneve.has_critical(), critical);
        assert_eq!(geneve.payload(), inner);
        FuzzPlace::Wire(forward.link, forward.host.addr)
    }

    fn went(&mut self, place: FuzzPlace, inner: Vec<u8>, parsed: &Packet, sound: bool) {
        let again = Packet::parse(&inner).expect("it was a packet before");
        assert_eq!(*parsed, again, "its fields are not what its bytes are");
        assert!(!sound || is_sound(&inner, &again), "a checksum was broken");
        self.last = Some(FuzzOutput { place, inner });
    }

    /// Checks the invariants between packets.
    fn check(&self) {
        assert!(self.state.flows.stats().flows <= MAX_FUZZ_FLOWS);
        let mut lent = BTreeMap::new();
        self.state.flows.for_each(self.now, |flow| {
            let Some(lease) = &flow.decision.lease else {
                return;
            };
            let kind = match flow.original.protocol {
                protocol::ICMPV6 => protocol::ICMP,
                other => other,
            };
            let (link, outside) = (flow.reply.link.0, lease.outside());
            let inside = (flow.original.link.0, flow.original.src, flow.original.sport);
            let owner = *lent.entry((link, kind, outside)).or_insert(inside);
            assert_eq!(owner, inside, "{outside:?} is lent twice");
        });
    }
}

/// Returns `len` pseudo-random bytes from the seed (splitmix64).
fn choices(mut seed: u64, len: usize) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    };
    (0..len.div_ceil(8))
        .flat_map(|_| next().to_le_bytes())
        .collect()
}

fuzz_target!(|data: &[u8]| {
    let Some((seed, mut steps)) = data.split_first_chunk::<3>() else {
        return;
    };
    let [a, b, c] = *seed;
    let configuration = choices(u64::from_le_bytes([a, b, c, 0, 0, 0, 0, 1]), 1024);
    let mut host = FuzzHost::new(&mut Unstructured::new(&configuration)).expect("choices suffice");
    while let [what, a, b, rest @ ..] = steps {
        steps = rest;
        let choices = choices(u64::from_le_bytes([*a, *b, 0, 0, 0, 0, 0, *what]), 1024);
        let mut choices = Unstructured::new(&choices);
        host.step(what % 16, &mut choices).expect("choices suffice");
    }
});
