//! ICMP errors of the underlay: whatever they quote of our own datagrams, judging them never panics, and none is
//! believed about what was not sent or fits the MTU that it reports.
//!
//! Input: a control byte, two bytes of MTU (big-endian), and the quoted UDP payload. Control bit 0: the error is about
//! the MTU; bit 1: VXLAN instead of Geneve; bit 2: over IPv6; bit 3: nothing was sent; bit 4: the quote gets the header of
//! a link, so that what is inside is reached.
#![no_main]

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use libgeneve::datapath::{PacketContext, ErrorRejection, OuterError, SharedState, validate_icmp_error};
use libgeneve::flow::{FlowHasher, FlowLimits};
use libgeneve::vpc::{
    Df, PathMtuEvidence, LinkFunctions, HostRegistry, Link, LinkConfig, LinkIndex, Tables, Tos, Ttl,
};
use libgeneve::time::Now;
use libgeneve::wire::encapsulation::Encapsulation;
use libgeneve::wire::geneve::{Vni, protocol_type};

const SOURCE_PORT: u16 = 50_000;
/// Length of the longest datagram sent.
const LONGEST_SENT: usize = 1500;

fn tables() -> &'static Tables {
    static ERROR_TABLES: OnceLock<Tables> = OnceLock::new();
    ERROR_TABLES.get_or_init(|| {
        let mut registry = HostRegistry::default();
        let mut link = |index: u32, encapsulation: Encapsulation| {
            let config = LinkConfig {
                index: LinkIndex(index),
                encapsulation,
                inner: encapsulation.default_inner(),
                lladdr: Default::default(),
                neighbors: Default::default(),
                vni: Vni::new(100).expect("24 bits"),
                port: encapsulation.port(),
                local: None,
                ttl: Ttl::Auto,
                tos: Tos::Fixed(0),
                df: Df::Set,
                udp6_zero_csum_rx: false,
                mtu: 1400,
                addresses: Vec::new(),
                allowed: Vec::new(),
                undelivered: Default::default(),
                broadcasts: Vec::new(),
                routes: Vec::new(),
                functions: LinkFunctions::default(),
                bridge: None,
            };
            Arc::new(Link::new(config, &mut registry))
        };
        let links = [link(0, Encapsulation::Geneve), link(1, Encapsulation::Vxlan)];
        Tables::new(links, FlowHasher::new([1, 2]))
    })
}

fuzz_target!(|data: &[u8]| {
    let [control, high, low, quoted @ ..] = data else {
        return;
    };
    let bit = |bit: u8| control >> bit & 1 != 0;
    let encapsulation = Encapsulation::ALL[usize::from(bit(1))];
    let host: IpAddr = match bit(2) {
        false => [192, 0, 2, 2].into(),
        true => [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2].into(),
    };
    let state = SharedState::new(
        FlowLimits {
            flows: 1024,
            ..FlowLimits::default()
        },
        [3, 4],
    );
    let sent = !bit(3);
    if sent {
        state.sent.note(host, SOURCE_PORT, LONGEST_SENT, Now(1));
    }
    let mut whole = Vec::new();
    if bit(4) {
        let protocol = [0x0800, 0x86dd, protocol_type::ETHERNET][usize::from(*low % 3)];
        let vni = Vni::new(100).expect("24 bits");
        whole.extend_from_slice(&encapsulation.header(vni, protocol));
    }
    whole.extend_from_slice(quoted);
    let mtu = bit(0).then(|| u32::from(u16::from_be_bytes([*high, *low])));
    let error = OuterError {
        host,
        port: encapsulation.port(),
        source_port: SOURCE_PORT,
        mtu,
        quoted: &whole,
    };
    let cx = PacketContext {
        tables: tables(),
        state: &state,
        now: Now(1),
    };
    match validate_icmp_error(&cx, &error) {
        // There are no flows.
        Ok(evidence) => {
            assert!(sent && evidence == PathMtuEvidence::Length);
            assert!(mtu.is_none_or(|mtu| mtu < LONGEST_SENT as u32));
        }
        Err(ErrorRejection::NotSent) => assert!(!sent),
        Err(ErrorRejection::Fits) => assert!(mtu.is_some_and(|mtu| mtu >= LONGEST_SENT as u32)),
        Err(ErrorRejection::NotOurs) => assert!(whole.len() >= 8),
    }
});
