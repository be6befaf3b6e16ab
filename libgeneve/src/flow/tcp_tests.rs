//! Tests of what counts as an established TCP connection.

use super::FlowDirection::{Original as A, Reply as B};
use super::*;

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const RST: TcpFlags = TcpFlags::RST;
const FIN: TcpFlags = TcpFlags(0x11);
const SYN_ACK: TcpFlags = TcpFlags(0x12);

/// Generator for the segments of two ends: one byte in each segment that is not a SYN, an RST or a FIN, acknowledging
/// everything that the other has sent.
struct TcpExchange {
    next: [u32; 2],
}

impl TcpExchange {
    fn segment(&mut self, side: FlowDirection, flags: TcpFlags) -> TcpSegment {
        let alone = TcpFlags::SYN | TcpFlags::RST | TcpFlags::FIN;
        let segment = TcpSegment {
            flags,
            seq: self.next[side as usize],
            ack: self.next[side.other() as usize],
            len: u16::from(!flags.intersects(alone)),
        };
        self.next[side as usize] = segment.end();
        segment
    }
}

fn after(first: TcpFlags, rest: &[(FlowDirection, TcpFlags)]) -> FlowState {
    // Sequence numbers that wrap around.
    let next = [u32::MAX - 2, 77];
    let (mut talk, mut sent) = (TcpExchange { next }, Default::default());
    let mut track = ConnTrack::new(protocol::TCP, Some(&talk.segment(A, first)), &mut sent);
    for &(side, flags) in rest {
        track.step(side, Some(&talk.segment(side, flags)), &mut sent);
    }
    track.state
}

fn after_segments(segments: &[(FlowDirection, TcpSegment)]) -> FlowState {
    let mut sent = Default::default();
    let mut track = ConnTrack::new(protocol::TCP, Some(&segments[0].1), &mut sent);
    for (side, segment) in &segments[1..] {
        track.step(*side, Some(segment), &mut sent);
    }
    track.state
}

fn numbered(flags: TcpFlags, seq: u32, ack: u32, len: u16) -> TcpSegment {
    TcpSegment {
        flags,
        seq,
        ack,
        len,
    }
}

#[test]
fn acks_without_data_never_establish_what_was_picked_up() {
    let ack = |seq, ack| numbered(ACK, seq, ack, 0);
    let both = [
        (A, ack(5, 9)),
        (B, ack(9, 5)),
        (A, ack(5, 9)),
        (B, ack(9, 5)),
    ];
    assert_eq!(after_segments(&both), FlowState::PickedUp);
    let zero = [
        (A, ack(0, 0)),
        (B, ack(0, 0)),
        (A, ack(1, 1)),
        (B, ack(1, 1)),
    ];
    assert_eq!(after_segments(&zero), FlowState::PickedUp);
}

#[test]
fn data_that_the_other_end_did_not_acknowledge_counts_for_nothing() {
    let data = |seq, ack| numbered(ACK, seq, ack, 100);
    let one_end = [(A, data(1000, 1)), (A, data(1100, 2)), (A, data(1200, 3))];
    assert_eq!(after_segments(&one_end), FlowState::PickedUp);
    // Forged acknowledgments: before what was sent, and beyond it.
    for made_up in [0xff00_0000, 1101, 0x8000_0000] {
        let steps = [
            (A, data(1000, 50)),
            (B, data(50, made_up)),
            (A, data(1100, 150)),
        ];
        assert_eq!(after_segments(&steps), FlowState::PickedUp, "{made_up}");
    }
    let steps = [
        (A, data(1000, 50)),
        (B, data(50, 1100)),
        (A, data(1100, 150)),
    ];
    assert_eq!(after_segments(&steps), FlowState::Established);
    let syn = numbered(SYN, 1000, 0, 0);
    let syn_ack = |ack| numbered(SYN_ACK, 50, ack, 0);
    let ack = |ack| numbered(ACK, 1001, ack, 0);
    for (second, third, state) in [
        (1001, 51, FlowState::Established),
        (1002, 51, FlowState::SynReceived),
        (1001, 52, FlowState::SynReceived),
        (0x8000_0007, 7, FlowState::SynReceived),
    ] {
        let steps = [(A, syn), (B, syn_ack(second)), (A, ack(third))];
        assert_eq!(after_segments(&steps), state, "{second} {third}");
    }
}

#[test]
fn a_connection_by_other_numbers_is_followed_from_where_it_is() {
    let data = |seq, ack| numbered(ACK, seq, ack, 100);
    let forged = (A, data(0x9000_0000, 0));
    let steps = [
        forged,
        (A, data(1000, 50)),
        (B, data(50, 1100)),
        (A, data(1100, 150)),
    ];
    assert_eq!(after_segments(&steps), FlowState::Established);
    // Late and retransmitted segments change nothing.
    let mut sent = LastSequence::default();
    for (seq, to) in [
        (1000, 1100),
        (1300, 1400),
        (1100, 1400),
        (900, 1400),
        (0x8000_0000, 0x8000_0064),
    ] {
        sent.add(&data(seq, 0));
        assert_eq!(sent.0, to);
    }
}

#[test]
fn a_handshake_needs_both_ends() {
    assert_eq!(after(SYN, &[]), FlowState::SynSent);
    assert_eq!(
        after(SYN, &[(A, SYN), (A, ACK), (A, ACK)]),
        FlowState::SynSent
    );
    assert_eq!(after(SYN, &[(B, SYN_ACK)]), FlowState::SynReceived);
    assert_eq!(
        after(SYN, &[(B, SYN_ACK), (B, SYN_ACK)]),
        FlowState::SynReceived
    );
    assert_eq!(
        after(SYN, &[(B, SYN_ACK), (A, ACK)]),
        FlowState::Established
    );
    assert_eq!(after(SYN_ACK, &[(B, ACK)]), FlowState::Established);
    assert_eq!(after(SYN, &[(A, ACK), (B, ACK)]), FlowState::SynSent);
    let without_syn_ack = [(A, ACK), (B, ACK), (A, ACK)];
    assert_eq!(after(SYN, &without_syn_ack), FlowState::Established);
    let simultaneous = [(B, SYN), (A, SYN_ACK), (B, SYN_ACK), (A, ACK)];
    assert_eq!(after(SYN, &simultaneous), FlowState::Established);
}

#[test]
fn a_connection_picked_up_is_established_when_data_of_both_ends_was_acknowledged() {
    assert_eq!(after(ACK, &[(A, ACK)]), FlowState::PickedUp);
    assert_eq!(after(ACK, &[(B, ACK)]), FlowState::PickedUp);
    assert_eq!(after(ACK, &[(B, ACK), (A, ACK)]), FlowState::Established);
    assert_eq!(after(ACK, &[(A, FIN)]), FlowState::PickedUp);
    assert_eq!(after(FIN, &[(B, ACK), (A, ACK)]), FlowState::FinWait);
}

#[test]
fn two_fins_or_one_reset_close_and_a_syn_opens_again() {
    let open = [(B, SYN_ACK), (A, ACK)];
    let with = |more: &[(FlowDirection, TcpFlags)]| after(SYN, &[&open[..], more].concat());
    assert_eq!(with(&[(A, FIN)]), FlowState::FinWait);
    assert_eq!(with(&[(A, FIN), (B, ACK), (B, ACK)]), FlowState::FinWait);
    assert_eq!(with(&[(A, FIN), (A, FIN)]), FlowState::FinWait);
    let closed = [(A, FIN), (B, FIN), (A, ACK), (B, ACK)];
    assert_eq!(with(&closed), FlowState::Closed);
    assert_eq!(
        with(&[&closed[..], &[(B, SYN)]].concat()),
        FlowState::SynSent
    );
    let again = [&closed[..], &[(B, SYN), (A, SYN_ACK), (B, ACK)]].concat();
    assert_eq!(with(&again), FlowState::Established);
    assert_eq!(with(&[(B, RST)]), FlowState::Closed);
    assert_eq!(after(RST, &[]), FlowState::Closed);
}

/// Linux's transition table (`tcp_conntracks` in net/netfilter/nf_conntrack_proto_tcp.c) for a SYN or a SYN-ACK on a
/// known connection, by the segments that led to each state.
#[test]
fn a_syn_on_a_known_connection_does_what_linux_documents() {
    type TcpScript = [(FlowDirection, TcpFlags)];
    let established: &TcpScript = &[(B, SYN_ACK), (A, ACK)];
    let by = |more: &TcpScript| [established, more].concat();
    let fin_wait = by(&[(A, FIN)]);
    let close_wait = by(&[(A, FIN), (B, ACK)]);
    let last_ack = by(&[(A, FIN), (B, ACK), (B, FIN)]);
    let time_wait = by(&[(A, FIN), (B, FIN), (A, ACK)]);
    let reset = by(&[(B, RST)]);
    let syn_sent: &TcpScript = &[];
    let syn_received: &TcpScript = &[(B, SYN_ACK)];
    let cases: &[(&str, &TcpScript, &TcpScript, FlowState)] = &[
        ("sSS syn -> sSS", syn_sent, &[(A, SYN)], FlowState::SynSent),
        (
            "sSS syn -> sS2",
            syn_sent,
            &[(B, SYN)],
            FlowState::SynReceived,
        ),
        (
            "sSR syn -> sIG",
            syn_received,
            &[(A, SYN)],
            FlowState::SynReceived,
        ),
        (
            "sES syn -> sIG",
            established,
            &[(A, SYN)],
            FlowState::Established,
        ),
        ("sFW syn -> sIG", &fin_wait, &[(A, SYN)], FlowState::FinWait),
        (
            "sCW syn -> sIG",
            &close_wait,
            &[(A, SYN)],
            FlowState::FinWait,
        ),
        (
            "sES synack -> sIG",
            established,
            &[(B, SYN_ACK)],
            FlowState::Established,
        ),
        (
            "sFW synack -> sIG",
            &fin_wait,
            &[(B, SYN_ACK)],
            FlowState::FinWait,
        ),
        (
            "sTW syn -> sSS",
            &time_wait,
            &[(A, SYN)],
            FlowState::SynSent,
        ),
        (
            "sTW syn -> sSS",
            &time_wait,
            &[(B, SYN)],
            FlowState::SynSent,
        ),
        ("sCL syn -> sSS", &reset, &[(A, SYN)], FlowState::SynSent),
        // A SYN-ACK for an ignored SYN: both ends are in sync, on a new connection.
        (
            "sES syn synack -> sSR",
            established,
            &[(A, SYN), (B, SYN_ACK)],
            FlowState::SynReceived,
        ),
        (
            "sFW syn synack -> sSR",
            &fin_wait,
            &[(A, SYN), (B, SYN_ACK)],
            FlowState::SynReceived,
        ),
        (
            "sCW syn synack -> sSR",
            &close_wait,
            &[(A, SYN), (B, SYN_ACK)],
            FlowState::SynReceived,
        ),
        (
            "sLA syn synack -> sSR",
            &last_ack,
            &[(A, SYN), (B, SYN_ACK)],
            FlowState::SynReceived,
        ),
        // Either end may begin the new connection.
        (
            "sFW syn synack -> sSR",
            &fin_wait,
            &[(B, SYN), (A, SYN_ACK)],
            FlowState::SynReceived,
        ),
        // The sender of the SYN does not answer it.
        (
            "sFW syn synack -> sIG",
            &fin_wait,
            &[(A, SYN), (A, SYN_ACK)],
            FlowState::FinWait,
        ),
        // A challenge ACK (RFC 5961 section 4) changes nothing; the RST that follows it does.
        (
            "sCW syn ack -> sCW",
            &close_wait,
            &[(A, SYN), (B, ACK)],
            FlowState::FinWait,
        ),
        (
            "sCW syn ack rst -> sCL",
            &close_wait,
            &[(A, SYN), (B, ACK), (A, RST)],
            FlowState::Closed,
        ),
        (
            "sCL synack",
            &reset,
            &[(A, ACK), (B, SYN_ACK)],
            FlowState::Closed,
        ),
    ];
    for (name, before, then, expected) in cases {
        let steps = [*before, *then].concat();
        assert_eq!(after(SYN, &steps), *expected, "{name}: {steps:?}");
    }
}

#[test]
fn a_connection_that_began_anew_lives_as_any_other() {
    let old = [(B, SYN_ACK), (A, ACK), (A, FIN), (B, ACK)];
    let with = |more: &[(FlowDirection, TcpFlags)]| after(SYN, &[&old[..], more].concat());
    let anew = [(A, SYN), (B, SYN_ACK), (A, ACK)];
    assert_eq!(with(&anew), FlowState::Established);
    // The FIN of the old connection does not count again.
    assert_eq!(with(&[&anew[..], &[(B, FIN)]].concat()), FlowState::FinWait);
    let closed = [&anew[..], &[(B, FIN), (A, FIN)]].concat();
    assert_eq!(with(&closed), FlowState::Closed);
    // A later SYN-ACK does not answer a SYN from before the reset.
    let late = [(A, SYN), (A, RST), (A, ACK), (B, ACK), (B, SYN_ACK)];
    assert_eq!(with(&late), FlowState::FinWait);
}

#[test]
fn a_live_connection_survives_a_stray_syn_and_an_rst_that_nobody_believes() {
    let open = [(B, SYN_ACK), (A, ACK)];
    let with = |more: &[(FlowDirection, TcpFlags)]| after(SYN, &[&open[..], more].concat());
    assert_eq!(with(&[(A, SYN), (B, SYN)]), FlowState::Established);
    assert_eq!(with(&[(A, RST), (A, ACK)]), FlowState::Closed);
    assert_eq!(
        with(&[(A, RST), (A, ACK), (B, ACK)]),
        FlowState::Established
    );
}

#[test]
fn datagrams_know_only_whether_they_were_answered() {
    let mut sent = Default::default();
    let mut udp = ConnTrack::new(protocol::UDP, None, &mut sent);
    udp.step(A, None, &mut sent);
    assert_eq!(udp.state, FlowState::Udp);
    udp.step(B, Some(&numbered(RST, 0, 0, 0)), &mut sent);
    assert_eq!(udp.state, FlowState::UdpReplied);
    for number in [protocol::ICMP, protocol::ICMPV6] {
        let mut icmp = ConnTrack::new(number, None, &mut sent);
        icmp.step(B, None, &mut sent);
        assert_eq!(icmp.state, FlowState::Icmp);
    }
    assert_eq!(ConnTrack::new(50, None, &mut sent).state, FlowState::Other);
    let unread = ConnTrack::new(protocol::TCP, None, &mut sent);
    assert_eq!(unread.state, FlowState::PickedUp);
}

#[test]
fn states_are_numbered_in_their_order() {
    for (number, state) in FlowState::ALL.into_iter().enumerate() {
        assert_eq!(state as usize, number);
    }
}
