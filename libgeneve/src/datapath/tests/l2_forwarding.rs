//! Ethernet links: forwarding, answers, and source checks of frames.

use super::frames::with_frame;
use super::*;
use crate::drop::DropReason;
use crate::l2::{BridgeConfig, FdbLimits, LearnedState, OwnerConfig};
use crate::offload::vnet::{NEEDS_CSUM, VnetHdr};
use crate::policy::{PolicyAction, PolicyDefaults};
use crate::qos::Bucket;
use crate::wire::arp::{Arp, ArpOperation};
use crate::wire::encapsulation::{Encapsulation, InnerProtocol};
use crate::wire::ethernet::{Ethernet, Mac, VlanTag, ethernet_header, tagged_header};
use crate::wire::nd;

pub(super) const OWN_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xaa]);
pub(super) const LOCAL_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const ON_B: Mac = Mac([2, 0, 0, 0, 0, 2]);
const UNKNOWN_MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
const GENEVE_ENCAP: Encapsulation = Encapsulation::Geneve;

/// 10.0.0.2 and fd00::2 are on B with a MAC address; everything else is flooded to B and C.
pub(super) fn bridged(others: PolicyAction) -> LinkConfig {
    let owner = |addr: &str| OwnerConfig {
        addr: ip(addr),
        mac: Some(ON_B),
        host: Some(ip(HOST_B)),
    };
    LinkConfig {
        encapsulation: GENEVE_ENCAP,
        inner: InnerProtocol::Ethernet,
        lladdr: OWN_MAC,
        routes: Vec::new(),
        bridge: Some(BridgeConfig {
            mac: OWN_MAC,
            learning: true,
            limits: FdbLimits::default(),
            entries: Vec::new(),
            flood: vec![ip(HOST_B), ip(HOST_C)],
            // Three frames, plus one for rounding.
            flood_rate: Arc::new(Bucket::new(4, 4)),
            owners: vec![owner("10.0.0.2"), owner("fd00::2")],
            others: PolicyDefaults {
                ingress: others,
                egress: others,
            },
            live: Arc::new(LearnedState::new([7, 8])),
        }),
        ..config(0, RED, GENEVE_PORT)
    }
}

fn world() -> TestTables {
    tables(vec![bridged(PolicyAction::Allow)])
}

pub(super) fn frame(dst: Mac, src: Mac, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&ethernet_header(dst, src, ether_type)[..], payload].concat()
}

pub(super) fn request(sender: Mac, from: &str, target: &str) -> Vec<u8> {
    let v4 = |text: &str| text.parse().unwrap();
    let arp = Arp {
        operation: ArpOperation::Request,
        sender_mac: sender,
        sender: v4(from),
        target_mac: Mac::default(),
        target: v4(target),
    };
    arp.to_bytes().to_vec()
}

/// Decides a frame from TAP that goes to other hosts.
pub(super) fn send(world: &TestTables, mut frame: Vec<u8>) -> Result<FrameForward, RefusedPacket> {
    let link = world.link(LinkIndex(0)).unwrap();
    let bridge = link.bridge.as_ref().unwrap();
    let sent = Egress::default().frame(&world.cx(), link, bridge, &mut frame, &VnetHdr::NONE)?;
    assert!(
        matches!(sent.output, Output::Host(_)),
        "it went back into TAP"
    );
    Ok(sent)
}

/// Returns the forwarding of the first recipient host.
pub(super) fn forward(sent: &FrameForward) -> &Forward {
    match &sent.output {
        Output::Host(forward) => forward,
        Output::Link(_) => panic!("it went back into TAP"),
    }
}

/// Decides a frame from TAP that is redirected to another station behind it.
pub(super) fn turn_back(world: &TestTables, mut frame: Vec<u8>) -> Result<Vec<u8>, RefusedPacket> {
    let link = world.link(LinkIndex(0)).unwrap();
    let bridge = link.bridge.as_ref().unwrap();
    let sent = Egress::default().frame(&world.cx(), link, bridge, &mut frame, &VnetHdr::NONE)?;
    assert!(matches!(sent.output, Output::Link(index) if index == link.config.index));
    assert_eq!(sent.header_len, 14);
    Ok(frame)
}

pub(super) fn receive(
    world: &TestTables,
    host: &str,
    frame: &[u8],
) -> Result<DecapResult, RefusedPacket> {
    let mut datagram = with_frame(GENEVE_ENCAP, frame, &[]);
    Ingress::default().receive(&world.cx(), &arrival(host), &mut datagram)
}

fn hosts(outgoing: &FrameForward) -> Vec<IpAddr> {
    match &outgoing.flood {
        Some(hosts) => hosts.iter().map(|h| h.addr).collect(),
        None => vec![forward(outgoing).host.addr],
    }
}

fn reason<T: std::fmt::Debug>(result: Result<T, RefusedPacket>) -> DropReason {
    result.unwrap_err().reason
}

#[test]
fn a_frame_goes_to_its_station_and_a_broadcast_to_everybody() {
    let world = world();
    let packet = udp("10.0.0.1", "10.0.0.2", (1000, 53), 0);
    let sent = send(&world, frame(ON_B, LOCAL_MAC, ethertype::IPV4, &packet)).unwrap();
    assert_eq!(hosts(&sent), [ip(HOST_B)]);
    assert_eq!(
        (sent.header_len, sent.packet.unwrap().dst),
        (14, ip("10.0.0.2"))
    );
    let geneve = Geneve::parse(&forward(&sent).encap).unwrap();
    assert_eq!((geneve.protocol(), forward(&sent).encap.len()), (0x6558, 8));
    for dst in [Mac::BROADCAST, UNKNOWN_MAC] {
        let sent = send(&world, frame(dst, LOCAL_MAC, ethertype::IPV4, &packet)).unwrap();
        assert_eq!(hosts(&sent), [ip(HOST_B), ip(HOST_C)]);
    }
    let sent = send(&world, frame(Mac::BROADCAST, LOCAL_MAC, 0x88cc, b"hello")).unwrap();
    assert_eq!((hosts(&sent).len(), sent.packet), (2, None));
    // Three of the bucket's four or five tokens are used up.
    let refused =
        (0..3).find_map(|_| send(&world, frame(UNKNOWN_MAC, LOCAL_MAC, 0x88cc, b"hello")).err());
    assert_eq!(refused.unwrap().reason, DropReason::FloodRate);
}

#[test]
fn what_is_behind_the_tap_does_not_leave_and_what_came_from_the_wire_goes_into_it() {
    let world = world();
    let packet = udp("10.0.0.7", "10.0.0.1", (1000, 53), 0);
    let arrived = receive(
        &world,
        HOST_C,
        &frame(LOCAL_MAC, UNKNOWN_MAC, ethertype::IPV4, &packet),
    );
    let Ok(DecapResult::Packet(decap)) = arrived else {
        panic!("{arrived:?}")
    };
    assert!(matches!(decap.output, Output::Link(_)));
    assert_eq!((decap.start, decap.frame_len), (8 + 14, 14));
    // The station was learned on C.
    let packet = udp("10.0.0.1", "10.0.0.7", (53, 1000), 0);
    let sent = send(
        &world,
        frame(UNKNOWN_MAC, LOCAL_MAC, ethertype::IPV4, &packet),
    )
    .unwrap();
    assert_eq!(hosts(&sent), [ip(HOST_C)]);
    for dst in [LOCAL_MAC, OWN_MAC] {
        let refused = send(
            &world,
            frame(dst, Mac([2, 0, 0, 0, 0, 5]), ethertype::IPV4, &packet),
        );
        assert_eq!(reason(refused), DropReason::SplitHorizon);
    }
}

#[test]
fn a_question_for_an_endpoint_is_answered_in_its_name() {
    let world = world();
    let link = world.link(LinkIndex(0)).unwrap();
    let bridge = link.bridge.as_ref().unwrap();
    let question = frame(
        Mac::BROADCAST,
        LOCAL_MAC,
        ethertype::ARP,
        &request(LOCAL_MAC, "10.0.0.1", "10.0.0.2"),
    );
    let refused = send(&world, question.clone()).unwrap_err();
    assert_eq!(refused.reason, DropReason::NeighborAnswered);
    let mut out = [0; 1400];
    let len = answer_frame(
        &link.config,
        refused.answer.unwrap(),
        bridge,
        &question,
        &mut out,
    )
    .unwrap();
    let reply = Ethernet::parse(&out[..len]).unwrap();
    assert_eq!((reply.dst(), reply.src()), (LOCAL_MAC, ON_B));
    let arp = Arp::parse(reply.payload()).unwrap();
    assert_eq!(arp.operation, ArpOperation::Reply);
    assert_eq!((arp.sender_mac, arp.target_mac), (ON_B, LOCAL_MAC));
    // Requests for an unknown address, to one station or in a VLAN are forwarded.
    let unknown = request(LOCAL_MAC, "10.0.0.1", "10.0.0.99");
    assert!(
        send(
            &world,
            frame(Mac::BROADCAST, LOCAL_MAC, ethertype::ARP, &unknown)
        )
        .is_ok()
    );
    let known = request(LOCAL_MAC, "10.0.0.1", "10.0.0.2");
    assert!(send(&world, frame(ON_B, LOCAL_MAC, ethertype::ARP, &known)).is_ok());
    let tag = VlanTag {
        tpid: ethertype::VLAN.into(),
        tci: 5.into(),
    };
    let (header, len) = tagged_header(Mac::BROADCAST, LOCAL_MAC, &[tag], ethertype::ARP).unwrap();
    let sent = send(&world, [&header[..len], &known].concat()).unwrap();
    assert_eq!(sent.header_len, 18);
}

#[test]
fn a_solicitation_for_an_endpoint_is_answered_and_a_probe_hears_of_it() {
    let world = world();
    let link = world.link(LinkIndex(0)).unwrap();
    let bridge = link.bridge.as_ref().unwrap();
    let target = "fd00::2".parse().unwrap();
    let group = nd::solicited_node(target);
    let solicit = |from: &str, options: &[u8]| {
        let from: std::net::Ipv6Addr = from.parse().unwrap();
        let len = (24 + options.len()) as u16;
        let header = Ipv6Header {
            hop_limit: 255,
            ..Ipv6Header::new(from, group, protocol::ICMPV6, len)
        };
        let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), options].concat();
        let mut packet = [&header.to_bytes()[..], &message].concat();
        let parsed = Packet::parse(&packet).unwrap();
        parsed.write_checksum(&mut packet);
        frame(
            Mac::of_multicast_v6(group),
            LOCAL_MAC,
            ethertype::IPV6,
            &packet,
        )
    };
    let lladdr = [1, 1, 2, 0, 0, 0, 0, 1];
    for (question, to) in [
        (solicit("fd00::1", &lladdr), LOCAL_MAC),
        (solicit("::", &[]), Mac([0x33, 0x33, 0, 0, 0, 1])),
    ] {
        let refused = send(&world, question.clone()).unwrap_err();
        assert_eq!(refused.reason, DropReason::NeighborAnswered);
        let mut out = [0; 1400];
        let len = answer_frame(
            &link.config,
            refused.answer.unwrap(),
            bridge,
            &question,
            &mut out,
        )
        .unwrap();
        let reply = Ethernet::parse(&out[..len]).unwrap();
        assert_eq!((reply.dst(), reply.src()), (to, ON_B));
        let packet = Packet::parse(reply.payload()).unwrap();
        let told = nd::Nd::parse(&packet, reply.payload(), false)
            .unwrap()
            .unwrap();
        assert!(matches!(told, nd::Nd::Advertisement { mac: Some(mac), .. } if mac == ON_B));
    }
    // Neighbor Discovery bypasses the rules but must be well-formed.
    let mut broken = solicit("fd00::1", &lladdr);
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(reason(send(&world, broken)), DropReason::InnerMalformed);
    let mut flows = 0;
    world.state.flows.for_each(world.now, |_| flows += 1);
    assert_eq!(flows, 0);
}

#[test]
fn nobody_speaks_in_the_name_of_an_endpoint() {
    let world = world();
    let packet = udp("10.0.0.2", "10.0.0.1", (1000, 53), 0);
    let from_b = frame(LOCAL_MAC, ON_B, ethertype::IPV4, &packet);
    assert!(receive(&world, HOST_B, &from_b).is_ok());
    assert_eq!(
        reason(receive(&world, HOST_C, &from_b)),
        DropReason::SourceMismatch
    );
    // A station of another host uses the IP address of this one.
    let stolen = frame(LOCAL_MAC, UNKNOWN_MAC, ethertype::IPV4, &packet);
    assert_eq!(
        reason(receive(&world, HOST_C, &stolen)),
        DropReason::SourceMismatch
    );
    let claims = request(UNKNOWN_MAC, "10.0.0.2", "10.0.0.1");
    let poison = frame(Mac::BROADCAST, UNKNOWN_MAC, ethertype::ARP, &claims);
    assert_eq!(
        reason(receive(&world, HOST_C, &poison)),
        DropReason::SourceMismatch
    );
    assert_eq!(reason(send(&world, poison)), DropReason::SourceNotLocal);
    let away = frame(UNKNOWN_MAC, LOCAL_MAC, ethertype::IPV4, &packet);
    assert_eq!(reason(send(&world, away)), DropReason::SourceNotLocal);
    let as_station = frame(UNKNOWN_MAC, ON_B, 0x88cc, b"x");
    assert_eq!(reason(send(&world, as_station)), DropReason::SourceNotLocal);
    let own = frame(LOCAL_MAC, OWN_MAC, 0x88cc, b"x");
    assert_eq!(
        reason(receive(&world, HOST_B, &own)),
        DropReason::SourceMismatch
    );
}

#[test]
fn what_rules_cannot_see_follows_the_default() {
    for (default, passes) in [(PolicyAction::Allow, true), (PolicyAction::Deny, false)] {
        let world = tables(vec![bridged(default)]);
        let lldp = frame(Mac::BROADCAST, LOCAL_MAC, 0x88cc, b"x");
        assert_eq!(send(&world, lldp.clone()).is_ok(), passes);
        let lldp = frame(Mac::BROADCAST, UNKNOWN_MAC, 0x88cc, b"x");
        let arrived = receive(&world, HOST_B, &lldp);
        assert_eq!(arrived.is_ok(), passes);
        if !passes {
            assert_eq!(reason(arrived), DropReason::PolicyDenied);
        }
        // ARP bypasses the rules, because everything else depends on it.
        let arp = request(UNKNOWN_MAC, "10.0.0.9", "10.0.0.1");
        let arp = frame(Mac::BROADCAST, UNKNOWN_MAC, ethertype::ARP, &arp);
        assert!(matches!(receive(&world, HOST_B, &arp), Ok(DecapResult::Frame(f)) if f.start == 8));
    }
}

#[test]
fn only_frames_are_taken_and_sound_ones() {
    let world = world();
    let packet = udp("10.0.0.2", "10.0.0.1", (1000, 53), 0);
    let mut plain = GENEVE_ENCAP
        .header(Vni::new(RED).unwrap(), ethertype::IPV4)
        .to_vec();
    plain.extend(&packet);
    let arrived = Ingress::default().receive(&world.cx(), &arrival(HOST_B), &mut plain);
    assert_eq!(reason(arrived), DropReason::ProtocolType);
    let other = frame(LOCAL_MAC, ON_B, ethertype::IPV6, &packet);
    assert_eq!(
        reason(receive(&world, HOST_B, &other)),
        DropReason::InnerMalformed
    );
    let group = frame(LOCAL_MAC, Mac::BROADCAST, ethertype::IPV4, &packet);
    assert_eq!(
        reason(receive(&world, HOST_B, &group)),
        DropReason::InnerMalformed
    );
    let arp = frame(Mac::BROADCAST, ON_B, ethertype::ARP, &[0; 28]);
    assert_eq!(
        reason(receive(&world, HOST_B, &arp)),
        DropReason::InnerMalformed
    );
}

#[test]
fn offloads_count_from_the_packet_and_a_flow_keeps_its_hash() {
    let world = world();
    let link = world.link(LinkIndex(0)).unwrap();
    let bridge = link.bridge.as_ref().unwrap();
    let packet = udp("10.0.0.1", "10.0.0.2", (1000, 53), 0);
    let mut bytes = frame(ON_B, LOCAL_MAC, ethertype::IPV4, &packet);
    let vnet = VnetHdr {
        flags: NEEDS_CSUM,
        csum_start: 34,
        csum_offset: 6,
        ..VnetHdr::NONE
    };
    let mut egress = Egress::default();
    let mut sent = || {
        let sent = egress.frame(&world.cx(), link, bridge, &mut bytes, &vnet);
        sent.unwrap()
    };
    let (first, second) = (sent(), sent());
    assert_eq!((first.vnet.csum_start, first.vnet.csum_offset), (20, 6));
    assert_eq!(first.vnet.before(14), vnet);
    assert_eq!(forward(&first).hash, forward(&second).hash);
    let early = VnetHdr {
        csum_start: 13,
        ..vnet
    };
    let refused = Egress::default().frame(&world.cx(), link, bridge, &mut bytes, &early);
    assert_eq!(reason(refused), DropReason::BadOffload);
}

#[test]
fn a_packet_that_is_too_long_is_answered_by_the_station_that_it_was_for() {
    let world = world();
    let link = world.link(LinkIndex(0)).unwrap();
    let bridge = link.bridge.as_ref().unwrap();
    link.host(ip(HOST_B)).unwrap().set_path_mtu(Some(1400));
    let payload = vec![7; 1380];
    let (src, dst) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    let header = Ipv4Header::new(src, dst, 99, payload.len() as u16);
    let packet = [&header.to_bytes()[..], &payload].concat();
    let long = frame(ON_B, LOCAL_MAC, ethertype::IPV4, &packet);
    let refused = send(&world, long.clone()).unwrap_err();
    assert_eq!(refused.reason, DropReason::TooBig);
    assert_eq!(refused.answer, Some(SenderReply::TooBig(1350)));
    let mut out = [0; 1400];
    let len = answer_frame(
        &link.config,
        refused.answer.unwrap(),
        bridge,
        &long,
        &mut out,
    )
    .unwrap();
    let reply = Ethernet::parse(&out[..len]).unwrap();
    assert_eq!((reply.dst(), reply.src()), (LOCAL_MAC, ON_B));
    assert!(Packet::parse(reply.payload()).unwrap().is_icmp_error());
}

#[test]
fn what_was_wrapped_for_a_host_is_not_wrapped_for_it_again() {
    let world = world();
    let sent = |mac, dst: &str, port| {
        let packet = udp("10.0.0.1", dst, (50_000, port), 0);
        send(&world, frame(mac, LOCAL_MAC, ethertype::IPV4, &packet)).map(|sent| hosts(&sent))
    };
    assert_eq!(
        reason(sent(ON_B, HOST_B, GENEVE_PORT)),
        DropReason::UnderlayLoop
    );
    assert_eq!(
        reason(sent(UNKNOWN_MAC, HOST_C, GENEVE_PORT)),
        DropReason::UnderlayLoop
    );
    assert_eq!(sent(ON_B, HOST_B, 53).unwrap(), [ip(HOST_B)]);
    assert_eq!(sent(ON_B, HOST_C, GENEVE_PORT).unwrap(), [ip(HOST_B)]);
}

#[test]
fn what_is_too_big_for_a_group_is_fragmented_outside_or_answered_by_an_address_of_the_link() {
    let world = world();
    let link = world.link(LinkIndex(0)).unwrap();
    let bridge = link.bridge.as_ref().unwrap();
    for host in link.hosts() {
        host.set_path_mtu(Some(1400));
    }
    let group = "ff05::123".parse().unwrap();
    let packet = support::in_ip("fd00::1", "ff05::123", 99, &[7; 1380]);
    let long = frame(
        Mac::of_multicast_v6(group),
        LOCAL_MAC,
        ethertype::IPV6,
        &packet,
    );
    let sent = send(&world, long.clone()).unwrap();
    assert!(forward(&sent).outer.fragment && !forward(&sent).outer.df);
    let mut out = [0; 1400];
    let answer = SenderReply::TooBig(1350);
    let len = answer_frame(&link.config, answer, bridge, &long, &mut out).unwrap();
    let reply = Ethernet::parse(&out[..len]).unwrap();
    assert_eq!((reply.dst(), reply.src()), (LOCAL_MAC, bridge.virtual_mac));
    let told = Packet::parse(reply.payload()).unwrap();
    assert_eq!(told.src, IpAddr::from(link.config.own_v6()));
    let quote = told.quote(reply.payload()).unwrap();
    assert_eq!(quote.dst, IpAddr::from(group));

    // Frames to multiple stations are never answered (RFC 1122), whatever their packets.
    let packet = support::in_ip("10.0.0.1", "10.0.0.2", 99, &[7; 1380]);
    let refused = send(
        &world,
        frame(Mac::BROADCAST, LOCAL_MAC, ethertype::IPV4, &packet),
    )
    .unwrap_err();
    assert_eq!(refused.reason, DropReason::TooBigSilent);
    assert_eq!(refused.answer, None);
}

#[test]
fn only_frames_to_the_interface_itself_are_for_an_ip_stack() {
    let world = world();
    let packet = udp("10.0.0.2", "10.0.0.1", (53, 1000), 0);
    for (dst, to_stack) in [(OWN_MAC, true), (LOCAL_MAC, false), (Mac::BROADCAST, false)] {
        let arrived = receive(&world, HOST_B, &frame(dst, ON_B, ethertype::IPV4, &packet));
        let Ok(DecapResult::Packet(decap)) = arrived else {
            panic!("{arrived:?}")
        };
        assert_eq!(decap.to_stack, to_stack, "{dst:?}");
    }
}
