//! Tests of the datapath by its verdicts: each drop reason, the header cache, and the choice of host, source port and
//! outer header.

mod delivery;
mod egress;
mod flows;
mod forged;
mod frames;
mod generations;
mod icmp_errors;
mod ingress;
mod l2_forwarding;
mod martians;
mod masquerade;
mod memory;
mod nat;
mod neighbors;
mod options;
mod policy;
mod qos;
mod services;
mod support;
mod trace;
mod types;
mod virtual_mac;

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use std::sync::Arc;

use crate::flow::{FlowHasher, FlowKey, FlowLimits};
use crate::offload::vnet::VnetHdr;
use crate::options::EndpointType;
use crate::route::RouteOrigin;
use crate::time::Now;
use crate::vpc::{HostRegistry, LinkConfig, LinkFunctions, RouteConfig, Tables};
use crate::wire::ethernet::ethertype;
use crate::wire::geneve::Geneve;
use crate::wire::geneve::{GENEVE_PORT, GeneveBuilder, Vni};
use crate::wire::ip::{Ipv4Header, Ipv6Header, ipv4_checksum_holds, protocol};
use crate::wire::option::{OptionClass, OptionType};
use crate::wire::packet::{Fragment, Transport, tests::sample};
use crate::wire::transport::{TcpFlags, udp_header};

const LOCAL_HOST: &str = "192.0.2.1";
const HOST_B: &str = "192.0.2.2";
const HOST_C: &str = "192.0.2.3";
const STRANGER: &str = "192.0.2.66";
const RED: u32 = 100;
const BLUE: u32 = 200;
const OTHER_PORT: u16 = 16_081;
const OPTION_CLASS: OptionClass = OptionClass(0xfff0);

fn ip(addr: &str) -> IpAddr {
    addr.parse().unwrap()
}

fn route(prefix: &str, hosts: &[&str], origin: RouteOrigin) -> RouteConfig {
    RouteConfig {
        prefix: prefix.parse().unwrap(),
        hosts: hosts.iter().map(|host| ip(host)).collect(),
        origin,
        kind: EndpointType::Simple,
        local: hosts.is_empty(),
    }
}

/// A VPC with endpoints .1 here, .2 on B and .3 on C; 10.7.0.0/16 is behind B and C.
fn config(index: u32, vni: u32, port: u16) -> LinkConfig {
    LinkConfig {
        index: LinkIndex(index),
        encapsulation: Default::default(),
        inner: Default::default(),
        lladdr: Default::default(),
        neighbors: Default::default(),
        vni: Vni::new(vni).unwrap(),
        port,
        local: None,
        ttl: Ttl::Auto,
        tos: Tos::Fixed(0),
        df: Df::Set,
        udp6_zero_csum_rx: false,
        mtu: 1464,
        addresses: vec![ip("10.0.0.1"), ip("fd00::1")],
        broadcasts: Vec::new(),
        allowed: Vec::new(),
        undelivered: Default::default(),
        routes: vec![
            route("10.0.0.2/32", &[HOST_B], RouteOrigin::Endpoint),
            route("10.0.0.3/32", &[HOST_C], RouteOrigin::Endpoint),
            route("10.0.0.4/32", &[], RouteOrigin::Endpoint),
            route("fd00::2/128", &[HOST_B], RouteOrigin::Endpoint),
            route("10.7.0.0/16", &[HOST_B, HOST_C], RouteOrigin::Route),
        ],
        functions: LinkFunctions::default(),
        bridge: None,
    }
}

/// Tables, and the state that the packets of a test leave behind.
struct TestTables {
    tables: Tables,
    state: SharedState,
    now: Now,
}

impl TestTables {
    fn new(tables: Tables) -> TestTables {
        TestTables {
            tables,
            state: SharedState::new(FlowLimits::default(), [5, 6]),
            now: Now(1),
        }
    }

    fn cx(&self) -> PacketContext<'_> {
        PacketContext {
            tables: &self.tables,
            state: &self.state,
            now: self.now,
        }
    }
}

impl std::ops::Deref for TestTables {
    type Target = Tables;
    fn deref(&self) -> &Tables {
        &self.tables
    }
}

/// Decides a packet from TUN of which only the headers matter.
fn egress(world: &TestTables, link: &Arc<Link>, packet: &Packet) -> Result<Forward, DropReason> {
    let mut packet = *packet;
    let encap = Egress::default().decide(&world.cx(), link, &mut [], &mut packet, &VnetHdr::NONE);
    encap.map(forwarded).map_err(|refused| refused.reason)
}

/// Returns the forwarding of a packet that goes to another host.
fn forwarded(encap: Encap) -> Forward {
    match encap.output {
        Output::Host(forward) => forward,
        Output::Link(_) => panic!("into TUN again"),
    }
}

fn tables(configs: Vec<LinkConfig>) -> TestTables {
    let mut registry = HostRegistry::default();
    let links: Vec<_> = configs
        .into_iter()
        .map(|config| Arc::new(Link::new(config, &mut registry)))
        .collect();
    TestTables::new(Tables::new(links, FlowHasher::new([1, 2])))
}

fn red() -> TestTables {
    tables(vec![config(0, RED, GENEVE_PORT)])
}

fn udp(src: &str, dst: &str, ports: (u16, u16), tos: u8) -> Vec<u8> {
    let payload = [0x5a; 32];
    let transport = [&udp_header(ports.0, ports.1, 40, 0)[..], &payload].concat();
    let header = match (ip(src), ip(dst)) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Ipv4Header {
            tos,
            identification: 7.into(),
            flags_fragment_offset: 0.into(),
            ttl: 7,
            ..Ipv4Header::new(src, dst, protocol::UDP, 40)
        }
        .to_bytes()
        .to_vec(),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Ipv6Header {
            version_class_flow: Ipv6Header::class_and_flow(tos, 0),
            hop_limit: 9,
            ..Ipv6Header::new(src, dst, protocol::UDP, 40)
        }
        .to_bytes()
        .to_vec(),
        _ => panic!("one family"),
    };
    let mut bytes = [header, transport].concat();
    let packet = Packet::parse(&bytes).unwrap();
    assert!(packet.write_checksum(&mut bytes));
    bytes
}

fn parsed(src: &str, dst: &str) -> Packet {
    Packet::parse(&udp(src, dst, (1000, 53), 0)).unwrap()
}

fn geneve(vni: u32, protocol: u16) -> GeneveBuilder {
    GeneveBuilder::new(Vni::new(vni).unwrap(), protocol)
}

fn behind(header: GeneveBuilder, inner: &[u8]) -> Vec<u8> {
    [&header.finish()[..], inner].concat()
}

/// A packet from B to the endpoint on this host.
fn from_b(vni: u32) -> Vec<u8> {
    behind(
        geneve(vni, ethertype::IPV4),
        &udp("10.0.0.2", "10.0.0.1", (1000, 53), 0),
    )
}

fn arrival(src: &str) -> OuterRx {
    OuterRx {
        port: GENEVE_PORT,
        src: ip(src),
        dst: Some(ip(LOCAL_HOST)),
        tos: 0,
        interface: RxInterface::Underlay,
    }
}

fn decide(
    tables: &TestTables,
    arrival: &OuterRx,
    mut datagram: Vec<u8>,
) -> Result<Decap, RefusedPacket> {
    Ingress::default().decide(&tables.cx(), arrival, &mut datagram)
}

#[track_caller]
fn assert_refused(datagram: Vec<u8>, reason: DropReason) {
    let refused = decide(&red(), &arrival(HOST_B), datagram).unwrap_err();
    let link = Some(LinkIndex(0));
    assert_eq!((refused.reason, refused.link), (reason, link));
}

#[track_caller]
fn assert_nobodys(datagram: Vec<u8>, reason: DropReason) {
    let refused = decide(&red(), &arrival(HOST_B), datagram).unwrap_err();
    assert_eq!((refused.reason, refused.link), (reason, None));
}
