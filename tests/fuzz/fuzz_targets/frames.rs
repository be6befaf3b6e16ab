//! The journey of Ethernet frames, both ways: nothing panics, nobody speaks in the name of a configured station, what was
//! learned stays within its bound, and what is answered is a sound frame for the one who asked.
//!
//! Input: records, each a control byte and two bytes of length (big-endian) before its bytes. Control bit 0: egress
//! (`virtio_net_hdr` and frame from TAP) instead of ingress (a Geneve datagram); bit 1: which outer source; bit 2: a second
//! passes; bit 3: make the inner checksums right.
#![no_main]

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use libgeneve::l2::{BridgeConfig, FdbLimits, LearnedState, OwnerConfig};
use libgeneve::datapath::{
    OuterRx, PacketContext, Egress, DecapResult, Ingress, Output, SharedState, answer_frame,
};
use libgeneve::flow::{FlowHasher, FlowLimits};
use libgeneve::vpc::{
    Df, LinkFunctions, HostRegistry, Link, LinkConfig, LinkIndex, RxInterface, Tables, Tos, Ttl,
};
use libgeneve::offload::vnet::{self, VnetHdr};
use libgeneve::policy::{PolicyAction, PolicyDefaults};
use libgeneve::qos::Bucket;
use libgeneve::time::Now;
use libgeneve::wire::encapsulation::{Encapsulation, InnerProtocol};
use libgeneve::wire::ethernet::{Ethernet, Mac};
use libgeneve::wire::geneve::Vni;
use libgeneve::wire::ip;
use libgeneve::wire::packet::Packet;

const FRAME_HOSTS: [[u8; 4]; 2] = [[192, 0, 2, 2], [192, 0, 2, 3]];
const FUZZ_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const ON_FIRST: Mac = Mac([2, 0, 0, 0, 0, 2]);
const BOUND: u32 = 8;

fn tables() -> &'static Tables {
    static FRAME_TABLES: OnceLock<Tables> = OnceLock::new();
    FRAME_TABLES.get_or_init(|| {
        let owner = |addr: IpAddr| OwnerConfig {
            addr,
            mac: Some(ON_FIRST),
            host: Some(FRAME_HOSTS[0].into()),
        };
        let both = FRAME_HOSTS.map(IpAddr::from).to_vec();
        let open = PolicyDefaults {
            ingress: PolicyAction::Allow,
            egress: PolicyAction::Allow,
        };
        let config = LinkConfig {
            index: LinkIndex(0),
            encapsulation: Encapsulation::Geneve,
            inner: InnerProtocol::Ethernet,
            lladdr: FUZZ_MAC,
            neighbors: Default::default(),
            vni: Vni::new(100).expect("24 bits"),
            port: 6081,
            local: None,
            ttl: Ttl::Auto,
            tos: Tos::Inherit,
            df: Df::Set,
            udp6_zero_csum_rx: false,
            mtu: 1450,
            addresses: Vec::new(),
            broadcasts: Vec::new(),
            allowed: Vec::new(),
            undelivered: Default::default(),
            routes: Vec::new(),
            functions: LinkFunctions::default(),
            bridge: Some(BridgeConfig {
                mac: FUZZ_MAC,
                learning: true,
                limits: FdbLimits {
                    entries: BOUND,
                    ageing: Duration::from_secs(3),
                },
                entries: vec![(Mac([0x33, 0x33, 0, 0, 0, 9]), both.clone())],
                flood: both,
                flood_rate: Arc::new(Bucket::new(1 << 30, 1 << 30)),
                owners: vec![
                    owner([10, 0, 0, 2].into()),
                    owner("fd00::2".parse().expect("a literal")),
                ],
                others: open,
                live: Arc::new(LearnedState::new([5, 6])),
            }),
        };
        let link = Arc::new(Link::new(config, &mut HostRegistry::default()));
        Tables::new([link], FlowHasher::new([1, 2]))
    })
}

fuzz_target!(|data: &[u8]| {
    let limits = FlowLimits {
        flows: 1024,
        ..FlowLimits::default()
    };
    let state = SharedState::new(limits, [3, 4]);
    let tables = tables();
    let link = tables.link(LinkIndex(0)).expect("there is one");
    let bridge = link.bridge.as_ref().expect("it is one");
    bridge.live.fdb.retain(|_, _| false);
    bridge.live.neighbors.clear();
    let (mut egress, mut ingress) = (Egress::default(), Ingress::default());
    let mut now = Now(1);
    let mut rest = data;
    while let [control, high, low, after @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (bytes, next) = after.split_at(len);
        rest = next;
        let mut bytes = bytes.to_vec();
        if control & 4 != 0 {
            now = now + Duration::from_secs(1);
        }
        let cx = PacketContext {
            tables,
            state: &state,
            now,
        };
        if control & 1 != 0 {
            let Ok(vnet) = VnetHdr::parse(&bytes) else {
                continue;
            };
            let frame = &mut bytes[vnet::LEN..];
            if control & 8 != 0 {
                make_right(frame);
            }
            let source = Ethernet::parse(frame).map(|frame| frame.src()).ok();
            match egress.frame(&cx, link, bridge, frame, &vnet) {
                Ok(sent) => {
                    assert_ne!(source, Some(ON_FIRST), "it is on another host");
                    if let Output::Host(forward) = &sent.output {
                        assert!(link.host(forward.host.addr).is_some());
                        assert!(sent.ways(link).all(|way| way.is_ok()));
                        let header = Ethernet::parse(frame).expect("it was sent").header_len();
                        assert_eq!(sent.header_len, header);
                    }
                    if let Some(packet) = sent.packet {
                        assert!(sent.header_len + usize::from(packet.total_len) <= frame.len());
                    }
                }
                Err(refused) => {
                    if let Some(answer) = refused.answer {
                        answered(answer, link, frame, source);
                    }
                }
            }
        } else {
            let arrival = OuterRx {
                port: 6081,
                src: FRAME_HOSTS[usize::from(control >> 1 & 1)].into(),
                dst: None,
                tos: 0,
                interface: RxInterface::Underlay,
            };
            if let Ok(envelope) = Encapsulation::Geneve.parse(&bytes) {
                let at = envelope.header_len;
                if control & 8 != 0 {
                    make_right(&mut bytes[at..]);
                }
            }
            let len = bytes.len();
            let start = match ingress.receive(&cx, &arrival, &mut bytes) {
                Ok(DecapResult::Frame(frame)) => frame.start,
                Ok(DecapResult::Packet(decap)) => {
                    assert!(decap.start + usize::from(decap.packet.total_len) <= len);
                    decap.start - decap.frame_len
                }
                Err(_) => continue,
            };
            let frame = Ethernet::parse(&bytes[start..]).expect("it is delivered");
            assert_ne!(frame.src(), FUZZ_MAC);
            assert!(frame.src() != ON_FIRST || arrival.src == IpAddr::from(FRAME_HOSTS[0]));
        }
        assert!(bridge.live.fdb.len() <= BOUND as usize);
        assert!(bridge.live.neighbors.len() <= BOUND as usize);
    }
});

fn answered(
    answer: libgeneve::datapath::SenderReply,
    link: &libgeneve::vpc::Link,
    frame: &[u8],
    source: Option<Mac>,
) {
    let bridge = link.bridge.as_ref().expect("a link in mode ethernet");
    let mut out = [0; 1400];
    if let Some(len) = answer_frame(&link.config, answer, bridge, frame, &mut out) {
        let reply = Ethernet::parse(&out[..len]).expect("a sound frame");
        assert!(reply.dst().is_multicast() || Some(reply.dst()) == source);
    }
}

/// Fixes the checksums of a frame's packet.
fn make_right(frame: &mut [u8]) {
    let Ok(start) = Ethernet::parse(frame).map(|frame| frame.header_len()) else {
        return;
    };
    let inner = &mut frame[start..];
    if let Ok(packet) = Packet::parse(inner) {
        ip::write_ipv4_checksum(inner);
        packet.write_checksum(inner);
    }
}
