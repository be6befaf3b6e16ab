//! The whole journey, both ways, over random configurations of everything that a link does, which change under the flows:
//! nothing panics; what is forwarded is a sound packet behind a sound header of the VPC that it is for; a packet is
//! refused by the link that it came on; no port is lent to two; the table stays within its bound.
//!
//! Input: three bytes from which a configuration grows, then steps of three bytes: what happens (a packet from TUN or from
//! the wire, an answer or an ICMP error to what was forwarded last, time that passes, another configuration), and a seed of
//! its choices.
#![no_main]

#[path = "../../../libgeneve/tests/world/mod.rs"]
mod world;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use libgeneve::datapath::{Arrival, Context, Egress, Forward, Ingress, Onward, Refused, State};
use libgeneve::flow::{FlowHasher, Limits};
use libgeneve::link::{
    Attachment, Endpoint, Functions, HostRegistry, Link, LinkIndex, ProxyTarget, Tables,
};
use libgeneve::nat::{self, Nat};
use libgeneve::offload::vnet::VnetHdr;
use libgeneve::options::{
    Attach, ClassOption, EndpointOption, EndpointType, OptionMatch, ServiceOption,
};
use libgeneve::policy::{Action, Defaults, Direction, Policy, Rule, Who};
use libgeneve::qos::{Bucket, Class};
use libgeneve::service::Services;
use libgeneve::time::Now;
use libgeneve::wire::geneve::{GENEVE_PORT, Geneve, Vni, protocol_type};
use libgeneve::wire::icmp::{IcmpError, MAX_V6_ERROR_LEN, Unreachable};
use libgeneve::wire::ip::protocol;
use libgeneve::wire::option::{GeneveOption, OptionClass, OptionType};
use libgeneve::wire::packet::{IpVersion, Packet};
use libgeneve::wire::transport::TcpFlags;
use libgeneve::wire::transport_checksum::ChecksumState;
use world::packets::{Kind, fragment_of, packet};
use world::{B, C, HERE, ip, label_key, labels, services};

/// So many flows fit.
const FLOWS: usize = 64;
const VNIS: [u32; 2] = [100, 200];
const HOSTS: [&str; 3] = [B, C, "192.0.2.66"];
const V4: [&str; 12] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "10.0.0.5",
    "10.0.0.9",
    "10.5.0.7",
    "10.7.0.8",
    world::VIP,
    "198.51.100.1",
    "198.51.100.5",
    "203.0.113.9",
    "255.255.255.255",
];
const V6: [&str; 6] = [
    "fd00::1",
    "fd00::2",
    "fd00::5",
    "fd00::9",
    "2001:db8:5::1",
    "2001:db8::9",
];
const PORTS: [u16; 6] = [80, 53, 8080, 1000, 40_000, 40_001];
/// The option that rules and links have of their own.
const TAG: (OptionClass, OptionType) = (OptionClass(0xfff0), OptionType(1));

fn any<'a>(u: &mut Unstructured<'_>, list: &[&'a str]) -> Result<&'a str> {
    u.choose(list).copied()
}

fn addr(u: &mut Unstructured<'_>) -> Result<IpAddr> {
    let list: &[&str] = if u.ratio(3, 4)? { &V4 } else { &V6 };
    any(u, list).map(ip)
}

fn who(u: &mut Unstructured<'_>) -> Result<Who> {
    Ok(match u.int_in_range(0..=3)? {
        0 => Who::Any,
        1 => Who::Selector(
            any(u, &["app=web", "!app", "app in (web,db),tier"])?
                .parse()
                .expect("a selector"),
        ),
        2 => Who::Prefix(
            any(u, &["10.0.0.0/24", "10.5.0.0/16", "fd00::/64", "0.0.0.0/0"])?
                .parse()
                .expect("a prefix"),
        ),
        _ => Who::Prefix(addr(u)?.into()),
    })
}

fn rules(u: &mut Unstructured<'_>) -> Result<Vec<Rule>> {
    (0..u.int_in_range(0..=6)?)
        .map(|n| {
            let direction = *u.choose(&[Direction::Ingress, Direction::Egress])?;
            let action = *u.choose(&[Action::Allow, Action::Deny, Action::Reject])?;
            let pref = u.int_in_range(0..=3)?;
            let mut rule = Rule::new(format!("rule-{n}"), direction, pref, action);
            (rule.from, rule.to) = (who(u)?, who(u)?);
            rule.protocol = *u.choose(&[
                None,
                Some(protocol::TCP),
                Some(protocol::UDP),
                Some(protocol::ICMP),
            ])?;
            if matches!(rule.protocol, Some(protocol::TCP | protocol::UDP)) && u.arbitrary()? {
                rule.dports = vec![53..=80];
            }
            if u.ratio(1, 4)? {
                let value = u
                    .arbitrary::<bool>()?
                    .then(|| (vec![1, 2], vec![0xff, 0x0f]));
                rule.option = Some(OptionMatch {
                    class: TAG.0,
                    kind: TAG.1,
                    value,
                });
            }
            if u.ratio(1, 4)? {
                rule.endpoint_type = Some(*u.choose(&EndpointType::ALL)?);
            }
            rule.log = u.arbitrary()?;
            rule.class = u.arbitrary::<bool>()?.then_some(world::CLASS);
            Ok(rule)
        })
        .collect()
}

fn translations(
    u: &mut Unstructured<'_>,
    link: LinkIndex,
    registry: &mut nat::Registry,
) -> Result<Option<Arc<Nat>>> {
    let snat = |name: &str, from: &str, pool: &str, width: u16| nat::Rule::Snat {
        name: name.into(),
        from: from.parse().expect("a prefix"),
        pool: ip(pool)..=ip(pool),
        ports: 40_000..=40_000 + width,
    };
    let dnat = |name: &str, to: &str, port, target: &str, target_port| nat::Rule::Dnat {
        name: name.into(),
        to: ip(to),
        port,
        target: ip(target),
        target_port,
    };
    let fixed = |inside: &str, outside: &str| nat::Rule::Static {
        name: inside.into(),
        inside: ip(inside),
        outside: ip(outside),
    };
    let width = u.int_in_range(0..=3)?;
    let all = vec![
        snat("out", "10.0.0.0/24", "198.51.100.1", width),
        snat("wide", "10.5.0.0/16", "198.51.100.2", width),
        snat("six", "fd00::/64", "2001:db8:5::1", width),
        dnat(
            "www",
            "198.51.100.1",
            Some((protocol::TCP, 80)),
            "10.0.0.2",
            Some(8080),
        ),
        dnat("near", "203.0.113.9", None, "10.0.0.5", None),
        fixed("10.0.0.3", "198.51.100.5"),
        fixed("fd00::2", "2001:db8::9"),
    ];
    let chosen: u8 = u.arbitrary()?;
    let rules = all
        .into_iter()
        .enumerate()
        .filter(|(n, _)| chosen >> n & 1 != 0)
        .map(|(_, rule)| rule);
    Ok(Nat::compile(link, rules.collect(), registry)
        .ok()
        .filter(|nat| !nat.is_empty())
        .map(Arc::new))
}

fn functions(
    u: &mut Unstructured<'_>,
    link: LinkIndex,
    registry: &mut nat::Registry,
) -> Result<Functions> {
    let mut endpoints = HashMap::new();
    for _ in 0..u.int_in_range(0..=5)? {
        let at = addr(u)?;
        let kind = *u.choose(&EndpointType::ALL)?;
        let target = ProxyTarget {
            addr: ip(any(u, &["10.0.0.2", "10.0.0.5", "fd00::2"])?),
            link: LinkIndex(1),
        };
        let proxied = kind == EndpointType::Proxied && target.addr.is_ipv4() == at.is_ipv4();
        endpoints.insert(
            at,
            Endpoint {
                kind,
                labels: u.arbitrary::<bool>()?.then(|| labels("app=web,tier=front")),
                class: u.arbitrary::<bool>()?.then_some(world::CLASS),
                target: proxied.then_some(target),
                colocated: kind == EndpointType::Scaled && u.arbitrary()?,
                local: u.arbitrary()?,
                ..Endpoint::default()
            },
        );
    }
    let action = |allow| if allow { Action::Allow } else { Action::Deny };
    let defaults = Defaults {
        ingress: action(u.ratio(3, 4)?),
        egress: action(u.ratio(3, 4)?),
    };
    let rules = rules(u)?;
    // Some choices contradict themselves, such as addresses of two families.
    let policy = Policy::compile(rules, defaults, Some(&label_key()), &mut |_| Arc::default());
    let bucket = |u: &mut Unstructured<'_>| -> Result<_> {
        Ok(u.ratio(1, 8)?.then(|| Arc::new(Bucket::new(1000, 500))))
    };
    let stand_in = |name: &str, from: &str, own: &str| nat::Rule::Snat {
        name: name.into(),
        from: from.parse().expect("a prefix"),
        pool: ip(own)..=ip(own),
        ports: 41_000..=41_003,
    };
    let stand_ins = vec![
        stand_in("in4", "0.0.0.0/0", "10.0.0.1"),
        stand_in("in6", "::/0", "fd00::1"),
    ];
    let class = Class {
        id: world::CLASS,
        name: "gold".into(),
        bucket: bucket(u)?,
        ingress: bucket(u)?,
        dscp: Some(10),
        tally: Arc::default(),
    };
    let balanced: bool = u.arbitrary()?;
    let far = u.arbitrary()?;
    Ok(Functions {
        endpoints,
        policy: if u.ratio(3, 4)? {
            policy.ok().map(Arc::new)
        } else {
            None
        },
        nat: translations(u, link, registry)?,
        services: balanced.then(|| balancer(far)),
        classes: vec![Arc::new(class)],
        rate: bucket(u)?,
        rate_ingress: bucket(u)?,
        options: if u.arbitrary()? {
            vec![Attachment {
                class: TAG.0,
                kind: TAG.1,
                data: vec![1, 2, 3, 4],
            }]
        } else {
            Vec::new()
        },
        stand_ins: Some(Arc::new(
            Nat::compile(link, stand_ins, registry).expect("sound rules"),
        )),
        labels: u.arbitrary()?,
        labels_critical: u.arbitrary()?,
        gateway: u.arbitrary()?,
    })
}

/// A service whose backends are on other hosts, or here. Its table is large, so it is made once.
fn balancer(far: bool) -> Arc<Services> {
    static BOTH: OnceLock<[Arc<Services>; 2]> = OnceLock::new();
    let both = BOTH.get_or_init(|| [services(&["10.0.0.5"]), services(&["10.0.0.2", "10.0.0.3"])]);
    Arc::clone(&both[usize::from(far)])
}

/// Where a packet went, and how it looks there.
struct Went {
    place: Place,
    inner: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Place {
    Tun(LinkIndex),
    Wire(LinkIndex, IpAddr),
}

struct Host {
    tables: Tables,
    hosts: HostRegistry,
    registry: nat::Registry,
    state: State,
    now: Now,
    egress: Egress,
    ingress: Ingress,
    last: Option<Went>,
}

impl Host {
    fn new(u: &mut Unstructured<'_>) -> Result<Host> {
        let limits = Limits {
            flows: FLOWS,
            ..Limits::default()
        };
        let mut host = Host {
            tables: Tables::default(),
            hosts: HostRegistry::default(),
            registry: nat::Registry::default(),
            state: State::new(limits, [3, 4]),
            now: Now(1_000_000_000),
            egress: Egress::default(),
            ingress: Ingress::default(),
            last: None,
        };
        host.configure(u)?;
        Ok(host)
    }

    fn cx(&self) -> Context<'_> {
        Context {
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
        // One of them may go.
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
        egress.settle(&self.cx());
        ingress.settle(&self.cx());
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
                    any(u, &HOSTS)?.parse().expect("an address"),
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

    /// From the other side of where the last packet went, back to where it came from.
    fn answer(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let Some(last) = self.last.take() else {
            return Ok(());
        };
        let Ok(asked) = Packet::parse(&last.inner) else {
            return Ok(());
        };
        let (sport, dport) = asked.ports().unwrap_or((1, 1));
        let kind = match asked.protocol {
            protocol::TCP => Kind::Tcp(flags(u)?, 7),
            protocol::UDP => Kind::Udp,
            protocol::ICMP | protocol::ICMPV6 => Kind::Echo { reply: true },
            other => Kind::Other(other),
        };
        // The identifier of an echo stays.
        let id = last
            .inner
            .get(usize::from(asked.payload_offset).saturating_sub(4)..)
            .and_then(|b| b.first_chunk());
        let from = match kind {
            Kind::Echo { .. } => id.map_or(1, |id: &[u8; 2]| u16::from_be_bytes(*id)),
            _ => dport,
        };
        let bytes = packet((asked.dst, from), (asked.src, sport), kind, 20);
        self.back(u, last.place, bytes)
    }

    /// An ICMP error about the last packet.
    fn complain(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let Some(last) = self.last.take() else {
            return Ok(());
        };
        let Ok(about) = Packet::parse(&last.inner) else {
            return Ok(());
        };
        let error = IcmpError::Unreachable(Unreachable::Host);
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

    fn back(&mut self, u: &mut Unstructured<'_>, place: Place, bytes: Vec<u8>) -> Result<()> {
        match place {
            Place::Tun(link) => self.send(link, bytes),
            Place::Wire(link, host) => {
                let options = if u.ratio(3, 4)? {
                    Attach::default()
                } else {
                    random_options(u)?.0
                };
                self.receive(host, VNIS[link.0 as usize], &(options, None), bytes);
            }
        }
        Ok(())
    }

    /// A packet from TUN.
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
            Ok(Ok(forward)) => {
                let place = self.forwarded(&forward, &inner);
                self.went(place, inner, &parsed, sound);
            }
            Ok(Err(to)) => self.went(Place::Tun(to), inner, &parsed, sound),
            Err(refused) => assert_eq!(refused.link, Some(link.config.index)),
        }
    }

    /// A datagram from another host.
    fn receive(
        &mut self,
        from: IpAddr,
        vni: u32,
        (options, tag): &(Attach, Option<Vec<u8>>),
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
        let arrival = Arrival {
            port: GENEVE_PORT,
            src: from,
            dst: Some(ip(HERE)),
            tos: 0,
        };
        let mut ingress = std::mem::take(&mut self.ingress);
        let decided = ingress.decide(&self.cx(), &arrival, &mut datagram);
        self.ingress = ingress;
        match decided {
            Ok(decap) => {
                let inner = datagram.split_off(decap.start);
                let place = match &decap.onward {
                    Onward::Tun(link) => Place::Tun(*link),
                    Onward::Wire(forward) => self.forwarded(forward, &inner),
                };
                self.went(place, inner, &decap.packet, sound);
            }
            Err(Refused { link, .. }) => {
                // A datagram for nobody is counted for nobody.
                let known = self
                    .tables
                    .by_vni(GENEVE_PORT, vni)
                    .map(|link| link.config.index);
                assert_eq!(link, known);
            }
        }
    }

    /// The header of what goes to another host is sound, and is that of the VPC that it goes to.
    fn forwarded(&self, forward: &Forward, inner: &[u8]) -> Place {
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
        Place::Wire(forward.link, forward.host.addr)
    }

    fn went(&mut self, place: Place, inner: Vec<u8>, parsed: &Packet, sound: bool) {
        let again = Packet::parse(&inner).expect("it was a packet before");
        assert_eq!(*parsed, again, "its fields are not what its bytes are");
        assert!(!sound || is_sound(&inner, &again), "a checksum was broken");
        self.last = Some(Went { place, inner });
    }

    /// What holds between packets.
    fn check(&self) {
        assert!(self.state.flows.stats().flows <= FLOWS);
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

fn is_sound(inner: &[u8], packet: &Packet) -> bool {
    let whole = packet.version == IpVersion::V6 || {
        let sum = inner[..20]
            .chunks(2)
            .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
            .sum::<u32>();
        inner[0] != 0x45 || (sum & 0xffff) + (sum >> 16) == 0xffff
    };
    whole && packet.checksum_state(inner) != ChecksumState::Wrong
}

fn flags(u: &mut Unstructured<'_>) -> Result<TcpFlags> {
    u.choose(&[2, 0x12, 0x10, 0x11, 4, 0x18])
        .map(|&flags| TcpFlags(flags))
}

fn random_packet(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let list: &[&str] = if u.ratio(3, 4)? { &V4 } else { &V6 };
    let (src, dst) = (any(u, list).map(ip)?, any(u, list).map(ip)?);
    let ports = (*u.choose(&PORTS)?, *u.choose(&PORTS)?);
    let kind = match u.int_in_range(0..=9)? {
        0..=3 => Kind::Tcp(flags(u)?, u.arbitrary()?),
        4..=6 => Kind::Udp,
        7 => Kind::Echo {
            reply: u.arbitrary()?,
        },
        _ => Kind::Other(*u.choose(&[50, 132, 58, 1])?),
    };
    let mut bytes = match kind {
        // Whose header is none of ours has no checksum that could be written.
        Kind::Other(number @ (1 | 58)) => {
            let mut bytes = packet((src, 1), (dst, 1), Kind::Other(50), 16);
            bytes[if src.is_ipv4() { 9 } else { 6 }] = number;
            bytes
        }
        kind => packet(
            (src, ports.0),
            (dst, ports.1),
            kind,
            u.int_in_range(0..=40)?,
        ),
    };
    if src.is_ipv4() && u.ratio(1, 6)? {
        bytes = fragment_of(bytes, *u.choose(&[0x2000, 0x0001, 0x2001, 0x4000])?);
    }
    if u.ratio(1, 10)? {
        let at = u.choose_index(bytes.len())?;
        bytes[at] ^= u.arbitrary::<u8>()?;
    }
    Ok(bytes)
}

/// What geneved's own options say, and the data of the defined one.
fn random_options(u: &mut Unstructured<'_>) -> Result<(Attach, Option<Vec<u8>>)> {
    if u.arbitrary()? {
        return Ok((Attach::default(), None));
    }
    let mut attach = Attach::default();
    if u.arbitrary()? {
        attach.endpoint = Some(EndpointOption {
            src: *u.choose(&[EndpointType::Simple, EndpointType::Scaled])?,
            dst: *u.choose(&EndpointType::ALL)?,
            direct_path: u.arbitrary()?,
            service_id: 0,
        });
    }
    if u.arbitrary()? {
        let text = any(u, &["app=web", "app=db,tier=back"])?;
        attach.labels = Some((labels(text), u.arbitrary()?));
    }
    if u.arbitrary()? {
        attach.class = Some(ClassOption {
            class: world::CLASS,
            drop_precedence: u.arbitrary()?,
        });
    }
    if u.ratio(1, 3)? {
        attach.service = Some(ServiceOption {
            addr: ip(any(u, &[world::VIP, "10.0.0.2", "fd00::9"])?),
            port: *u.choose(&PORTS)?,
            protocol: protocol::TCP,
        });
    }
    let tag = u.arbitrary::<bool>()?.then(|| vec![1, 2, 3, 4]);
    Ok((attach, tag))
}

/// So many bytes of choices, the same ones for the same seed (splitmix64).
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
    let mut host = Host::new(&mut Unstructured::new(&configuration)).expect("choices suffice");
    while let [what, a, b, rest @ ..] = steps {
        steps = rest;
        let choices = choices(u64::from_le_bytes([*a, *b, 0, 0, 0, 0, 0, *what]), 1024);
        let mut choices = Unstructured::new(&choices);
        host.step(what % 16, &mut choices).expect("choices suffice");
    }
});
