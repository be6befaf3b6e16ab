//! VXLAN headers, Ethernet frames, ARP and neighbour discovery: accepted ones are consistent and can be rebuilt, and
//! every datagram gets a verdict.
#![no_main]

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use libgeneve::datapath::{
    SenderReply, OuterRx, PacketContext, DecapResult, Ingress, SharedState, neighbor_answer, way_back,
};
use libgeneve::flow::{FlowHasher, FlowLimits};
use libgeneve::vpc::{
    Df, LinkFunctions, HostRegistry, Link, LinkConfig, LinkIndex, RouteConfig, RxInterface, Tables,
    Tos, Ttl,
};
use libgeneve::options::EndpointType;
use libgeneve::route::RouteOrigin;
use libgeneve::time::Now;
use libgeneve::wire::encapsulation::{Encapsulation, InnerProtocol};
use libgeneve::wire::ethernet::{Ethernet, Mac, tagged_header};
use libgeneve::wire::geneve::Vni;
use libgeneve::wire::vxlan::{VXLAN_PORT, Vxlan, vxlan_header};

const VXLAN_HOST: &str = "192.0.2.2";

fn addr(addr: &str) -> IpAddr {
    addr.parse().expect("a literal")
}

/// Configuration of a VPC over VXLAN whose default route is behind the host.
fn tables() -> &'static Tables {
    static VXLAN_TABLES: OnceLock<Tables> = OnceLock::new();
    VXLAN_TABLES.get_or_init(|| {
        let routes = ["0.0.0.0/0", "::/0"].map(|prefix| RouteConfig {
            prefix: prefix.parse().expect("a literal"),
            hosts: vec![addr(VXLAN_HOST)],
            origin: RouteOrigin::Remote,
            kind: EndpointType::Simple,
            local: false,
        });
        let config = LinkConfig {
            index: LinkIndex(0),
            encapsulation: Encapsulation::Vxlan,
            inner: InnerProtocol::Ethernet,
            lladdr: Mac([2, 0, 0, 0, 0, 1]),
            neighbors: Default::default(),
            vni: Vni::new(100).expect("24 bits"),
            port: VXLAN_PORT,
            local: None,
            ttl: Ttl::Auto,
            tos: Tos::Fixed(0),
            df: Df::Set,
            udp6_zero_csum_rx: false,
            mtu: 1450,
            addresses: vec![addr("10.0.0.1"), addr("fd00::1")],
            broadcasts: Vec::new(),
            allowed: ["10.0.0.0/8", "fd00::/8"]
                .map(|p| p.parse().expect("a literal"))
                .into(),
            undelivered: Default::default(),
            routes: routes.into(),
            functions: LinkFunctions::default(),
            bridge: None,
        };
        let link = Link::new(config, &mut HostRegistry::default());
        Tables::new([Arc::new(link)], FlowHasher::new([1, 2]))
    })
}

fn consistent(data: &[u8]) {
    let Ok(vxlan) = Vxlan::parse(data) else {
        return;
    };
    let built = vxlan_header(vxlan.vni());
    let again = Vxlan::parse(&built).expect("what is built is valid");
    assert_eq!(again.vni(), vxlan.vni());
    let Ok(frame) = Ethernet::parse(vxlan.payload()) else {
        return;
    };
    let tags = frame.tags();
    let (header, len) = tagged_header(frame.dst(), frame.src(), tags, frame.ether_type())
        .expect("two tags at most");
    assert_eq!(&header[..len], frame.header_bytes());
    let text = frame.src().to_string();
    assert_eq!(text.parse(), Ok(frame.src()));
}

fuzz_target!(|data: &[u8]| {
    consistent(data);
    let state = SharedState::new(FlowLimits::default(), [3, 4]);
    let cx = PacketContext {
        tables: tables(),
        state: &state,
        now: Now(1),
    };
    let arrival = OuterRx {
        port: VXLAN_PORT,
        src: addr(VXLAN_HOST),
        dst: None,
        tos: 0,
        interface: RxInterface::Underlay,
    };
    let mut ingress = Ingress::default();
    // Once as is, and once with the header of the link, to reach more than the header.
    let mut aimed = vxlan_header(Vni::new(100).expect("24 bits")).to_vec();
    aimed.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    aimed.extend(data);
    for mut datagram in [data.to_vec(), aimed] {
        let before = datagram.clone();
        match ingress.receive(&cx, &arrival, &mut datagram) {
            Ok(DecapResult::Packet(decap)) => {
                assert!(decap.start + usize::from(decap.packet.total_len) <= before.len())
            }
            Err(refused) if matches!(refused.answer, Some(SenderReply::Neighbor(..))) => {
                let link = cx.tables.link(LinkIndex(0)).expect("made here");
                let (header, payload) = way_back(link, &before).expect("it was read");
                assert_eq!(header.len(), 22);
                assert!(neighbor_answer(link, payload, &mut [0; 100]).is_some());
            }
            Ok(DecapResult::Frame(_)) => unreachable!("only a bridge has frames"),
            Err(_) => {}
        }
    }
});
