//! The whole journey, both ways, over a small fixed configuration: nothing panics, what is forwarded
//! is a sound packet of the right VPC, and the memory of equal headers answers as a fresh look does.
//!
//! Input: records, each a control byte and two bytes of length (big-endian) before its bytes. Control bit 0: egress
//! (`virtio_net_hdr` and inner packet from TUN) instead of ingress (a datagram); bits 1 and 2: which outer source, or
//! which path MTU; bit 3: the other UDP port, or the other link; bits 4 and 5: the outer ECN field; bit 6: make the
//! inner checksums right.
#![no_main]

use std::net::IpAddr;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use libgeneve::datapath::{OuterRx, PacketContext, Egress, Ingress, Output, SharedState};
use libgeneve::flow::{FlowHasher, FlowLimits};
use libgeneve::vpc::{
    Df, LinkFunctions, HostRegistry, Link, LinkConfig, LinkIndex, RouteConfig, RxInterface, Tables,
    Tos, Ttl,
};
use libgeneve::offload::merge::{Merger, SuperPacket};
use libgeneve::offload::segments::SegmentSink;
use libgeneve::offload::vnet::{self, VnetHdr};
use libgeneve::options::EndpointType;
use libgeneve::route::RouteOrigin;
use libgeneve::time::Now;
use libgeneve::wire::geneve::{Geneve, Vni};
use libgeneve::wire::ip;
use libgeneve::wire::packet::{IpVersion, Packet};

const FUZZ_HOSTS: [&str; 4] = ["192.0.2.2", "192.0.2.3", "2001:db8::2", "192.0.2.66"];
const OUTER_PORTS: [u16; 2] = [6081, 16_081];

fn addr(addr: &str) -> IpAddr {
    addr.parse().expect("a literal")
}

fn route(prefix: &str, hosts: &[&str], origin: RouteOrigin) -> RouteConfig {
    RouteConfig {
        prefix: prefix.parse().expect("a literal"),
        hosts: hosts.iter().map(|host| addr(host)).collect(),
        origin,
        kind: EndpointType::Simple,
        local: hosts.is_empty(),
    }
}

/// Configuration of two VPCs with the same VNI on two ports, and with overlapping addresses.
fn tables() -> &'static Tables {
    static DATAPATH_TABLES: OnceLock<Tables> = OnceLock::new();
    DATAPATH_TABLES.get_or_init(|| {
        let mut registry = HostRegistry::default();
        let mut link = |index: u32, uniform: bool, routes| {
            let config = LinkConfig {
                index: LinkIndex(index),
                encapsulation: Default::default(),
                inner: Default::default(),
                lladdr: Default::default(),
                neighbors: Default::default(),
                vni: Vni::new(100).expect("24 bits"),
                port: OUTER_PORTS[index as usize],
                local: None,
                ttl: if uniform { Ttl::Inherit } else { Ttl::Auto },
                tos: if uniform { Tos::Inherit } else { Tos::Fixed(0) },
                df: if uniform { Df::Inherit } else { Df::Set },
                udp6_zero_csum_rx: false,
                mtu: 1464,
                addresses: vec![addr("10.0.0.1"), addr("fd00::1")],
                broadcasts: Vec::new(),
                allowed: match uniform {
                    true => ["0.0.0.0/0", "::/0"]
                        .map(|p| p.parse().expect("a literal"))
                        .into(),
                    false => Vec::new(),
                },
                undelivered: Default::default(),
                routes,
                functions: LinkFunctions::default(),
                bridge: None,
            };
            Arc::new(Link::new(config, &mut registry))
        };
        let endpoints = vec![
            route("10.0.0.2/32", &FUZZ_HOSTS[..1], RouteOrigin::Endpoint),
            route("fd00::2/128", &FUZZ_HOSTS[2..3], RouteOrigin::Endpoint),
            route("10.7.0.0/16", &FUZZ_HOSTS[..2], RouteOrigin::Route),
        ];
        let everything = vec![
            route("0.0.0.0/0", &FUZZ_HOSTS[..1], RouteOrigin::Remote),
            route("::/0", &FUZZ_HOSTS[..1], RouteOrigin::Remote),
        ];
        Tables::new(
            [link(0, false, endpoints), link(1, true, everything)],
            FlowHasher::new([1, 2]),
        )
    })
}

#[derive(Default)]
struct DatagramCollector(Vec<(Vec<u8>, Range<usize>)>);

impl SegmentSink for DatagramCollector {
    fn segment(&mut self, header: &[u8], payload: Range<usize>) {
        self.0.push((header.to_vec(), payload));
    }
}

fuzz_target!(|data: &[u8]| {
    let limits = FlowLimits {
        flows: 1024,
        ..FlowLimits::default()
    };
    let state = SharedState::new(limits, [3, 4]);
    let mut ingress = FuzzReceiver {
        state: &state,
        ingress: Ingress::default(),
        merger: Merger::new(3, true),
        forwarded: Vec::new(),
        written: Vec::new(),
    };
    let mut rest = data;
    while let [control, high, low, after @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (bytes, next) = after.split_at(len);
        rest = next;
        if control & 1 != 0 {
            egress(&state, *control, bytes.to_vec());
        } else {
            ingress.datagram(*control, bytes.to_vec());
        }
    }
    ingress.finish();
});

fn context(state: &SharedState) -> PacketContext<'_> {
    PacketContext {
        tables: tables(),
        state,
        now: Now(1),
    }
}

fn egress(state: &SharedState, control: u8, mut bytes: Vec<u8>) {
    let link = tables()
        .link(LinkIndex(u32::from(control >> 3 & 1)))
        .expect("there are two");
    let path_mtu = [None, Some(1400), Some(576), Some(90)][usize::from(control >> 1 & 3)];
    for host in link.hosts() {
        host.set_path_mtu(path_mtu);
    }
    let Ok(vnet) = VnetHdr::parse(&bytes) else {
        return;
    };
    let inner = &mut bytes[vnet::LEN..];
    let Ok(mut packet) = Packet::parse(inner) else {
        return;
    };
    if control & 0x40 != 0 {
        ip::write_ipv4_checksum(inner);
        packet.write_checksum(inner);
    }
    let decided = Egress::default().decide(&context(state), link, inner, &mut packet, &vnet);
    assert!(state.flows.stats().flows <= 1024);
    let Ok(Output::Host(forward)) = decided.map(|encap| encap.output) else {
        return;
    };
    assert!(link.host(forward.host.addr).is_some());
    assert_eq!(forward.outer.tos & 3, packet.tos & 3);
    let mut out = DatagramCollector::default();
    let (encap, cut) = (&forward.encap, forward.cut);
    let fits = cut
        .carry_out(encap, &vnet, &packet, inner, &mut out)
        .is_ok();
    assert_eq!(fits, !out.0.is_empty());
    for (header, payload) in &out.0 {
        let datagram = [header, &inner[payload.clone()]].concat();
        let geneve = Geneve::parse(&datagram).expect("a sound header");
        assert_eq!(geneve.vni(), link.config.vni);
        assert!(!geneve.is_control());
        assert_eq!(geneve.header_bytes(), &forward.encap[..]);
        let piece = Packet::parse(geneve.payload()).expect("a sound packet");
        assert_eq!((piece.src, piece.dst), (packet.src, packet.dst));
        let ether_type = match piece.version {
            IpVersion::V4 => 0x0800,
            IpVersion::V6 => 0x86dd,
        };
        assert_eq!(geneve.protocol(), ether_type);
        assert!(piece.total_len <= forward.limit);
    }
}

struct FuzzReceiver<'a> {
    state: &'a SharedState,
    ingress: Ingress,
    merger: Merger<usize>,
    /// Lane, inner packet and where it began, for each packet that the merger got.
    forwarded: Vec<(u64, Vec<u8>)>,
    written: Vec<(u64, usize)>,
}

impl FuzzReceiver<'_> {
    fn datagram(&mut self, control: u8, mut bytes: Vec<u8>) {
        let arrival = OuterRx {
            port: OUTER_PORTS[usize::from(control >> 3 & 1)],
            src: addr(FUZZ_HOSTS[usize::from(control >> 1 & 3)]),
            dst: None,
            tos: control >> 4 & 3,
            interface: RxInterface::Underlay,
        };
        if control & 0x40 != 0 {
            make_right(&mut bytes);
        }
        let mut again = bytes.clone();
        let cx = context(self.state);
        let decided = self.ingress.decide(&cx, &arrival, &mut bytes);
        let fresh = Ingress::default().decide(&cx, &arrival, &mut again);
        assert_eq!(bytes, again);
        let (decap, fresh) = match (decided, fresh) {
            (Ok(decap), Ok(fresh)) => (decap, fresh),
            (decided, fresh) => {
                assert_eq!(decided.map(|_| ()), fresh.map(|_| ()));
                return;
            }
        };
        assert_eq!(
            (decap.link, decap.start, decap.packet),
            (fresh.link, fresh.start, fresh.packet)
        );
        let link = tables().link(decap.link).expect("the packet's");
        assert_eq!(link.config.port, arrival.port);
        let home = link.routes.lookup(decap.packet.src).expect("checked");
        assert!(home.target.includes(arrival.src));

        let inner = bytes.split_off(decap.start);
        assert_eq!(Packet::parse(&inner), Ok(decap.packet));
        assert!(matches!(decap.output, Output::Link(index) if index == decap.link));
        let vnet = decap.vnet;
        let written = &mut self.written;
        let mut sink = |lane, packet: SuperPacket<'_, usize>| {
            written.extend(packet.parts.iter().map(|part| (lane, part.tag)));
        };
        if vnet.is_some() {
            self.merger.flush(&mut sink);
            return;
        }
        let tag = self.forwarded.len();
        self.merger
            .push(decap.lane, tag, 0, &inner, &decap.packet, &mut sink);
        self.forwarded.push((decap.lane, inner));
    }

    fn finish(mut self) {
        let written = &mut self.written;
        self.merger
            .flush(&mut |lane, packet: SuperPacket<'_, usize>| {
                written.extend(packet.parts.iter().map(|part| (lane, part.tag)));
            });
        let mut seen = vec![0; self.forwarded.len()];
        for &(lane, tag) in &self.written {
            assert_eq!(self.forwarded[tag].0, lane, "another lane");
            seen[tag] += 1;
        }
        assert!(seen.iter().all(|&times| times == 1), "lost or twice");
    }
}

/// Fixes the checksums of a datagram's inner packet.
fn make_right(datagram: &mut [u8]) {
    let Ok(start) = Geneve::parse(datagram).map(|geneve| geneve.header_len()) else {
        return;
    };
    let inner = &mut datagram[start..];
    if let Ok(packet) = Packet::parse(inner) {
        ip::write_ipv4_checksum(inner);
        packet.write_checksum(inner);
    }
}
