//! Fabric of hosts for tests: links with all functions, packets for them, and their paths between hosts.

use std::sync::atomic::AtomicU64;

#[allow(dead_code)]
#[path = "../../../tests/world/packets.rs"]
pub(super) mod packets;

use super::*;
use crate::label::{LabelKey, LabelMap, LabelSet};
use crate::nat;
use crate::options::{ReceivedOptions, SentOptions};
use crate::policy::{Direction, Policy, PolicyAction, PolicyDefaults, PolicyRule};
use crate::qos::Metered;
use crate::service::{Affinity, Backend, ServiceConfig, ServiceTable};
use crate::vpc::EndpointConfig;
use crate::wire::header::HeaderBytes;
use crate::wire::icmp::UnreachableReason;
use crate::wire::transport::TcpFlags;
use crate::wire::transport_checksum::ChecksumState;

pub(super) const SYN: TcpFlags = TcpFlags::SYN;
pub(super) const ACK: TcpFlags = TcpFlags::ACK;
pub(super) const SYN_ACK: TcpFlags = TcpFlags(0x12);

/// Host of a fabric.
pub(super) struct TestHost {
    pub(super) world: TestTables,
    pub(super) here: &'static str,
    configs: Vec<LinkConfig>,
    hosts: HostRegistry,
}

/// Output of a packet, with its bytes there.
#[derive(Debug)]
pub(super) enum TestOutput {
    Tun(LinkIndex, Vec<u8>),
    Wire(Forward, Vec<u8>),
}

impl TestOutput {
    /// Returns the inner packet.
    pub(super) fn inner(&self) -> &[u8] {
        match self {
            TestOutput::Tun(_, inner) => inner,
            TestOutput::Wire(forward, datagram) => &datagram[forward.encap.len()..],
        }
    }

    pub(super) fn packet(&self) -> Packet {
        Packet::parse(self.inner()).unwrap()
    }

    /// Returns source, destination and ports as text.
    pub(super) fn tuple(&self) -> String {
        let key = FlowKey::of(LinkIndex(0), &self.packet());
        format!("{} {} > {} {}", key.src, key.sport, key.dst, key.dport)
    }

    #[track_caller]
    pub(super) fn forward(&self) -> &Forward {
        match self {
            TestOutput::Wire(forward, _) => forward,
            TestOutput::Tun(..) => panic!("it went into TUN"),
        }
    }

    #[track_caller]
    pub(super) fn host(&self) -> IpAddr {
        self.forward().host.addr
    }

    #[track_caller]
    pub(super) fn datagram(&self) -> Vec<u8> {
        self.forward();
        let TestOutput::Wire(_, datagram) = self else {
            unreachable!()
        };
        datagram.clone()
    }

    /// Parses its options.
    #[track_caller]
    pub(super) fn options(&self) -> ReceivedOptions {
        read(&self.forward().encap)
    }

    #[track_caller]
    pub(super) fn tun(&self) -> u32 {
        match self {
            TestOutput::Tun(link, _) => link.0,
            TestOutput::Wire(forward, _) => panic!("it went to {}", forward.host.addr),
        }
    }
}

pub(super) fn read(header: &HeaderBytes) -> ReceivedOptions {
    ReceivedOptions::read(
        &Default::default(),
        Geneve::parse(header).unwrap().options(),
    )
    .unwrap()
}

impl TestHost {
    pub(super) fn new(here: &'static str, configs: Vec<LinkConfig>) -> TestHost {
        let mut site = TestHost {
            world: tables(Vec::new()),
            here,
            configs,
            hosts: HostRegistry::default(),
        };
        site.publish();
        site
    }

    fn publish(&mut self) {
        let tables = &self.world.tables;
        let gone = tables.iter().map(|link| (link.config.index, None));
        let gone = gone.filter(|(index, _)| self.configs.iter().all(|c| c.index != *index));
        let there = self.configs.iter().map(|config| {
            let link = Link::new(config.clone(), &mut self.hosts);
            (config.index, Some(link))
        });
        let changed = gone.chain(there);
        let (epoch, schema) = (tables.epoch + 1, Arc::clone(&tables.schema));
        self.world.tables = tables.next(epoch, schema, changed);
    }

    /// Applies an edited configuration.
    pub(super) fn change(&mut self, edit: impl FnOnce(&mut Vec<LinkConfig>)) {
        edit(&mut self.configs);
        self.publish();
    }

    /// Applies edited functions of the first link.
    pub(super) fn functions(&mut self, edit: impl FnOnce(&mut LinkFunctions)) {
        self.change(|configs| edit(&mut configs[0].functions));
    }

    pub(super) fn link(&self, index: u32) -> Arc<Link> {
        Arc::clone(self.world.tables.link(LinkIndex(index)).unwrap())
    }

    pub(super) fn flows(&self) -> usize {
        self.world.state.flows.stats().flows
    }

    /// Sends a packet from the TUN interface of the first link.
    pub(super) fn send(&self, bytes: &[u8]) -> Result<TestOutput, DropReason> {
        self.send_on(0, bytes)
    }

    pub(super) fn send_on(&self, link: u32, bytes: &[u8]) -> Result<TestOutput, DropReason> {
        self.send_with(&mut Egress::default(), &self.link(link), bytes)
    }

    pub(super) fn send_with(
        &self,
        egress: &mut Egress,
        link: &Arc<Link>,
        bytes: &[u8],
    ) -> Result<TestOutput, DropReason> {
        let mut inner = bytes.to_vec();
        let mut packet = Packet::parse(&inner).unwrap();
        let encap = egress
            .decide(
                &self.world.cx(),
                link,
                &mut inner,
                &mut packet,
                &VnetHdr::NONE,
            )
            .map_err(|refused| refused.reason)?;
        assert_sound(&inner, &packet);
        self.within(&encap.metered)?;
        Ok(went(encap.output, inner))
    }

    /// Applies rate limits without a queue.
    fn within(&self, metered: &Option<Metered>) -> Result<(), DropReason> {
        match metered {
            Some(metered) if !metered.passes(self.world.now) => {
                metered.meter.count(metered.bytes, false);
                Err(DropReason::RateExceeded)
            }
            _ => Ok(()),
        }
    }

    /// Receives a datagram from another host.
    pub(super) fn receive(&self, from: &str, datagram: &[u8]) -> Result<TestOutput, DropReason> {
        self.receive_fully(from, datagram).map_err(|r| r.reason)
    }

    pub(super) fn receive_fully(
        &self,
        from: &str,
        datagram: &[u8],
    ) -> Result<TestOutput, RefusedPacket> {
        let mut datagram = datagram.to_vec();
        let arrival = OuterRx {
            dst: Some(ip(self.here)),
            ..arrival(from)
        };
        let decap = Ingress::default().decide(&self.world.cx(), &arrival, &mut datagram)?;
        let inner = datagram[decap.start..].to_vec();
        assert_sound(&inner, &decap.packet);
        self.within(&decap.metered)
            .map_err(|reason| RefusedPacket::of(reason, decap.link))?;
        Ok(went(decap.output, inner))
    }

    /// Receives a packet of the first VPC from another host, with these options.
    pub(super) fn hear(
        &self,
        from: &str,
        inner: &[u8],
        options: &SentOptions,
    ) -> Result<TestOutput, DropReason> {
        self.receive(from, &marked(RED, options, inner))
    }
}

fn went(output: Output, inner: Vec<u8>) -> TestOutput {
    match output {
        Output::Link(link) => TestOutput::Tun(link, inner),
        Output::Host(forward) => {
            let datagram = [&forward.encap[..], &inner].concat();
            TestOutput::Wire(forward, datagram)
        }
    }
}

/// Checks that the parsed packet matches the bytes and that the checksums are right.
#[track_caller]
fn assert_sound(inner: &[u8], packet: &Packet) {
    let again = Packet::parse(inner).unwrap();
    assert_eq!(*packet, again);
    assert_ne!(again.checksum_state(inner), ChecksumState::Wrong);
    if again.version == IpVersion::V4 {
        assert!(ipv4_checksum_holds(&inner[..20]));
    }
}

/// `inner` behind a header of this VPC.
pub(super) fn marked(vni: u32, options: &SentOptions, inner: &[u8]) -> Vec<u8> {
    let protocol = if inner[0] >> 4 == 4 {
        ethertype::IPV4
    } else {
        ethertype::IPV6
    };
    let vni = Vni::new(vni).unwrap();
    let header = options
        .header(&Default::default(), vni, protocol, [])
        .unwrap();
    [&header[..], inner].concat()
}

/// A VPC with 10.0.0.N and fd00::N on host 192.0.2.N, as one of its hosts sees it.
pub(super) fn vpc(here: &str, index: u32, vni: u32) -> LinkConfig {
    let mut config = config(index, vni, GENEVE_PORT);
    config.local = Some(ip(here));
    config.addresses.clear();
    config.routes.clear();
    for (number, host) in [(1, LOCAL_HOST), (2, HOST_B), (3, HOST_C)] {
        let (v4, v6) = (format!("10.0.0.{number}"), format!("fd00::{number}"));
        if host == here {
            config.addresses = vec![ip(&v4), ip(&v6)];
        } else {
            let endpoint = |prefix: String| route(&prefix, &[host], RouteOrigin::Endpoint);
            config
                .routes
                .extend([endpoint(v4 + "/32"), endpoint(v6 + "/128")]);
        }
    }
    config
}

/// The first host of that VPC, with these functions.
pub(super) fn site(functions: LinkFunctions) -> TestHost {
    let mut config = vpc(LOCAL_HOST, 0, RED);
    config
        .routes
        .push(route("10.7.0.0/16", &[HOST_B, HOST_C], RouteOrigin::Route));
    config.functions = functions;
    TestHost::new(LOCAL_HOST, vec![config])
}

pub(super) fn plain() -> SentOptions {
    SentOptions::default()
}

pub(super) fn tcp(src: &str, dst: &str, ports: (u16, u16), flags: TcpFlags) -> Vec<u8> {
    in_ip(
        src,
        dst,
        protocol::TCP,
        &packets::tcp_header(ports, flags, 0),
    )
}

/// An echo request (or its reply) with this identifier.
pub(super) fn echo(src: &str, dst: &str, id: u16, reply: bool) -> Vec<u8> {
    let (number, header) = packets::echo_header(ip(src).is_ipv4(), id, reply);
    in_ip(src, dst, number, &[&header[..], &[9, 9]].concat())
}

pub(super) fn in_ip(src: &str, dst: &str, number: u8, payload: &[u8]) -> Vec<u8> {
    packets::in_ip((ip(src), ip(dst)), number, (0, true), payload)
}

/// An "administratively prohibited" error about a packet, from this address.
pub(super) fn error_about(from: &str, bytes: &[u8]) -> Vec<u8> {
    packets::unreachable(bytes, ip(from), UnreachableReason::Prohibited)
}

/// Clears the fields that differ between otherwise equal IPv4 packets: identification and header checksum.
pub(super) fn unidentified(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes[0] >> 4 == 4 {
        bytes[4..6].fill(0);
        bytes[10..12].fill(0);
    }
    bytes
}

/// Splits an IPv4 packet into two fragments: the first with the transport header and 24 bytes, and the rest.
pub(super) fn fragments(bytes: &[u8], id: u16) -> [Vec<u8>; 2] {
    let piece = |payload: &[u8], word: u16| {
        let mut bytes = [&bytes[..20], payload].concat();
        let len = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        bytes[4..6].copy_from_slice(&id.to_be_bytes());
        bytes[6..8].copy_from_slice(&word.to_be_bytes());
        bytes[10..12].fill(0);
        let check = crate::wire::checksum::Sum::ZERO
            .bytes(&bytes[..20])
            .checksum();
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
        bytes
    };
    [piece(&bytes[20..44], 0x2000), piece(&bytes[44..], 3)]
}

pub(super) fn rule(name: &str, direction: Direction, action: PolicyAction) -> PolicyRule {
    PolicyRule::new(name, direction, 10, action)
}

pub(super) fn label_key() -> LabelKey {
    LabelKey::from_secret(b"a secret for tests")
}

pub(super) fn labels(text: &str) -> LabelSet {
    let map: LabelMap = text.parse().unwrap();
    map.hashed(&label_key()).unwrap()
}

pub(super) fn policy(
    ingress: PolicyAction,
    egress: PolicyAction,
    rules: Vec<PolicyRule>,
) -> Option<Arc<Policy>> {
    let mut hits = |_: &str| Arc::new(AtomicU64::new(0));
    let defaults = PolicyDefaults { ingress, egress };
    let policy = Policy::compile(rules, defaults, Some(&label_key()), &mut hits);
    Some(Arc::new(policy.unwrap()))
}

/// Returns the hit count of a rule of the first link.
pub(super) fn hits(site: &TestHost, name: &str) -> u64 {
    let link = site.link(0);
    let policy = link.config.functions.policy.as_ref().unwrap();
    let found = policy.rules().find(|(rule, _)| rule.name == name);
    found.unwrap().1
}

pub(super) fn snat(name: &str, from: &str, pool: (&str, &str), ports: (u16, u16)) -> nat::NatRule {
    nat::NatRule::Snat {
        name: name.into(),
        from: from.parse().unwrap(),
        pool: ip(pool.0)..=ip(pool.1),
        ports: ports.0..=ports.1,
    }
}

pub(super) fn dnat(
    to: &str,
    port: Option<(u8, u16)>,
    target: &str,
    target_port: Option<u16>,
) -> nat::NatRule {
    nat::NatRule::Dnat {
        name: format!("to-{to}"),
        to: ip(to),
        port,
        target: ip(target),
        target_port,
    }
}

pub(super) fn translation(link: u32, rules: Vec<nat::NatRule>) -> Option<Arc<nat::Nat>> {
    let mut registry = nat::PoolRegistry::default();
    let nat = nat::Nat::compile(LinkIndex(link), rules, &mut registry).unwrap();
    Some(Arc::new(nat))
}

pub(super) fn backend(addr: &str, weight: u32) -> Backend {
    Backend {
        addr: ip(addr),
        port: Some(8080),
        weight,
        healthy: true,
    }
}

/// A service on port 80 of this address, for this protocol.
pub(super) fn service(
    vip: &str,
    number: u8,
    affinity: Affinity,
    backends: Vec<Backend>,
) -> Option<Arc<ServiceTable>> {
    let config = ServiceConfig {
        name: "web".into(),
        vip: ip(vip),
        protocol: number,
        port: 80,
        backends,
        affinity,
    };
    Some(Arc::new(ServiceTable::new([config], None).unwrap()))
}

pub(super) fn endpoint(kind: EndpointType) -> EndpointConfig {
    EndpointConfig {
        kind,
        ..EndpointConfig::default()
    }
}
