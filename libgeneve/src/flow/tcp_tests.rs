//! Tests of what counts as an established TCP connection.

use super::Side::{Original as A, Reply as B};
use super::*;

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const RST: TcpFlags = TcpFlags::RST;
const FIN: TcpFlags = TcpFlags(0x11);
const SYN_ACK: TcpFlags = TcpFlags(0x12);

/// Two ends that send what they are told to, one byte in each segment that is not a SYN, an RST or a FIN, and
/// acknowledge all that the other has sent.
struct Talk {
    next: [u32; 2],
}

impl Talk {
    fn segment(&mut self, side: Side, flags: TcpFlags) -> TcpSegment {
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

fn after(first: TcpFlags, rest: &[(Side, TcpFlags)]) -> State {
    // Numbers that wrap around.
    let next = [u32::MAX - 2, 77];
    let (mut talk, mut sent) = (Talk { next }, Default::default());
    let mut track = Track::new(protocol::TCP, Some(&talk.segment(A, first)), &mut sent);
    for &(side, flags) in rest {
        track.step(side, Some(&talk.segment(side, flags)), &mut sent);
    }
    track.state
}

fn after_segments(segments: &[(Side, TcpSegment)]) -> State {
    let mut sent = Default::default();
    let mut track = Track::new(protocol::TCP, Some(&segments[0].1), &mut sent);
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
    assert_eq!(after_segments(&both), State::PickedUp);
    let zero = [
        (A, ack(0, 0)),
        (B, ack(0, 0)),
        (A, ack(1, 1)),
        (B, ack(1, 1)),
    ];
    assert_eq!(after_segments(&zero), State::PickedUp);
}

#[test]
fn data_that_the_other_end_did_not_acknowledge_counts_for_nothing() {
    let data = |seq, ack| numbered(ACK, seq, ack, 100);
    let one_end = [(A, data(1000, 1)), (A, data(1100, 2)), (A, data(1200, 3))];
    assert_eq!(after_segments(&one_end), State::PickedUp);
    // Made up, beyond what was sent, and before it.
    for made_up in [0xff00_0000, 1101, 0x8000_0000] {
        let steps = [
            (A, data(1000, 50)),
            (B, data(50, made_up)),
            (A, data(1100, 150)),
        ];
        assert_eq!(after_segments(&steps), State::PickedUp, "{made_up}");
    }
    let steps = [
        (A, data(1000, 50)),
        (B, data(50, 1100)),
        (A, data(1100, 150)),
    ];
    assert_eq!(after_segments(&steps), State::Established);
    let syn = numbered(SYN, 1000, 0, 0);
    let syn_ack = |ack| numbered(SYN_ACK, 50, ack, 0);
    let ack = |ack| numbered(ACK, 1001, ack, 0);
    for (second, third, state) in [
        (1001, 51, State::Established),
        (1002, 51, State::SynReceived),
        (1001, 52, State::SynReceived),
        (0x8000_0007, 7, State::SynReceived),
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
    assert_eq!(after_segments(&steps), State::Established);
    // What is late, or sent again, changes nothing.
    let mut sent = Sent::default();
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
    assert_eq!(after(SYN, &[]), State::SynSent);
    assert_eq!(after(SYN, &[(A, SYN), (A, ACK), (A, ACK)]), State::SynSent);
    assert_eq!(after(SYN, &[(B, SYN_ACK)]), State::SynReceived);
    assert_eq!(
        after(SYN, &[(B, SYN_ACK), (B, SYN_ACK)]),
        State::SynReceived
    );
    assert_eq!(after(SYN, &[(B, SYN_ACK), (A, ACK)]), State::Established);
    assert_eq!(after(SYN_ACK, &[(B, ACK)]), State::Established);
    assert_eq!(after(SYN, &[(A, ACK), (B, ACK)]), State::SynSent);
    let without_syn_ack = [(A, ACK), (B, ACK), (A, ACK)];
    assert_eq!(after(SYN, &without_syn_ack), State::Established);
    let simultaneous = [(B, SYN), (A, SYN_ACK), (B, SYN_ACK), (A, ACK)];
    assert_eq!(after(SYN, &simultaneous), State::Established);
}

#[test]
fn a_connection_picked_up_is_established_when_data_of_both_ends_was_acknowledged() {
    assert_eq!(after(ACK, &[(A, ACK)]), State::PickedUp);
    assert_eq!(after(ACK, &[(B, ACK)]), State::PickedUp);
    assert_eq!(after(ACK, &[(B, ACK), (A, ACK)]), State::Established);
    assert_eq!(after(ACK, &[(A, FIN)]), State::PickedUp);
    assert_eq!(after(FIN, &[(B, ACK), (A, ACK)]), State::FinWait);
}

#[test]
fn two_fins_or_one_reset_close_and_a_syn_opens_again() {
    let open = [(B, SYN_ACK), (A, ACK)];
    let with = |more: &[(Side, TcpFlags)]| after(SYN, &[&open[..], more].concat());
    assert_eq!(with(&[(A, FIN)]), State::FinWait);
    assert_eq!(with(&[(A, FIN), (B, ACK), (B, ACK)]), State::FinWait);
    assert_eq!(with(&[(A, FIN), (A, FIN)]), State::FinWait);
    let closed = [(A, FIN), (B, FIN), (A, ACK), (B, ACK)];
    assert_eq!(with(&closed), State::Closed);
    assert_eq!(with(&[&closed[..], &[(B, SYN)]].concat()), State::SynSent);
    let again = [&closed[..], &[(B, SYN), (A, SYN_ACK), (B, ACK)]].concat();
    assert_eq!(with(&again), State::Established);
    assert_eq!(with(&[(B, RST)]), State::Closed);
    assert_eq!(after(RST, &[]), State::Closed);
}

/// Linux' table of transitions (`tcp_conntracks` in net/netfilter/nf_conntrack_proto_tcp.c) where it says what a SYN or a
/// SYN-ACK does to a connection that is known, by how it came to the state.
#[test]
fn a_syn_on_a_known_connection_does_what_linux_documents() {
    type Steps = [(Side, TcpFlags)];
    let established: &Steps = &[(B, SYN_ACK), (A, ACK)];
    let by = |more: &Steps| [established, more].concat();
    let fin_wait = by(&[(A, FIN)]);
    let close_wait = by(&[(A, FIN), (B, ACK)]);
    let last_ack = by(&[(A, FIN), (B, ACK), (B, FIN)]);
    let time_wait = by(&[(A, FIN), (B, FIN), (A, ACK)]);
    let reset = by(&[(B, RST)]);
    let syn_sent: &Steps = &[];
    let syn_received: &Steps = &[(B, SYN_ACK)];
    let cases: &[(&str, &Steps, &Steps, State)] = &[
        ("sSS syn -> sSS", syn_sent, &[(A, SYN)], State::SynSent),
        ("sSS syn -> sS2", syn_sent, &[(B, SYN)], State::SynReceived),
        (
            "sSR syn -> sIG",
            syn_received,
            &[(A, SYN)],
            State::SynReceived,
        ),
        (
            "sES syn -> sIG",
            established,
            &[(A, SYN)],
            State::Established,
        ),
        ("sFW syn -> sIG", &fin_wait, &[(A, SYN)], State::FinWait),
        ("sCW syn -> sIG", &close_wait, &[(A, SYN)], State::FinWait),
        (
            "sES synack -> sIG",
            established,
            &[(B, SYN_ACK)],
            State::Established,
        ),
        (
            "sFW synack -> sIG",
            &fin_wait,
            &[(B, SYN_ACK)],
            State::FinWait,
        ),
        ("sTW syn -> sSS", &time_wait, &[(A, SYN)], State::SynSent),
        ("sTW syn -> sSS", &time_wait, &[(B, SYN)], State::SynSent),
        ("sCL syn -> sSS", &reset, &[(A, SYN)], State::SynSent),
        // A SYN-ACK that acknowledges a SYN which was ignored: both ends are in sync, and it is a new connection.
        (
            "sES syn synack -> sSR",
            established,
            &[(A, SYN), (B, SYN_ACK)],
            State::SynReceived,
        ),
        (
            "sFW syn synack -> sSR",
            &fin_wait,
            &[(A, SYN), (B, SYN_ACK)],
            State::SynReceived,
        ),
        (
            "sCW syn synack -> sSR",
            &close_wait,
            &[(A, SYN), (B, SYN_ACK)],
            State::SynReceived,
        ),
        (
            "sLA syn synack -> sSR",
            &last_ack,
            &[(A, SYN), (B, SYN_ACK)],
            State::SynReceived,
        ),
        // Whoever began the old one need not begin the new one.
        (
            "sFW syn synack -> sSR",
            &fin_wait,
            &[(B, SYN), (A, SYN_ACK)],
            State::SynReceived,
        ),
        // The SYN's own sender does not answer it.
        (
            "sFW syn synack -> sIG",
            &fin_wait,
            &[(A, SYN), (A, SYN_ACK)],
            State::FinWait,
        ),
        // An ACK that challenges the SYN (RFC 5961 section 4) leaves all as it is; the RST that follows does not.
        (
            "sCW syn ack -> sCW",
            &close_wait,
            &[(A, SYN), (B, ACK)],
            State::FinWait,
        ),
        (
            "sCW syn ack rst -> sCL",
            &close_wait,
            &[(A, SYN), (B, ACK), (A, RST)],
            State::Closed,
        ),
        (
            "sCL synack",
            &reset,
            &[(A, ACK), (B, SYN_ACK)],
            State::Closed,
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
    let with = |more: &[(Side, TcpFlags)]| after(SYN, &[&old[..], more].concat());
    let anew = [(A, SYN), (B, SYN_ACK), (A, ACK)];
    assert_eq!(with(&anew), State::Established);
    // The FIN of the old one is not counted again.
    assert_eq!(with(&[&anew[..], &[(B, FIN)]].concat()), State::FinWait);
    let closed = [&anew[..], &[(B, FIN), (A, FIN)]].concat();
    assert_eq!(with(&closed), State::Closed);
    // An old SYN is not answered by a SYN-ACK of the connection after it.
    let late = [(A, SYN), (A, RST), (A, ACK), (B, ACK), (B, SYN_ACK)];
    assert_eq!(with(&late), State::FinWait);
}

#[test]
fn a_live_connection_survives_a_stray_syn_and_an_rst_that_nobody_believes() {
    let open = [(B, SYN_ACK), (A, ACK)];
    let with = |more: &[(Side, TcpFlags)]| after(SYN, &[&open[..], more].concat());
    assert_eq!(with(&[(A, SYN), (B, SYN)]), State::Established);
    assert_eq!(with(&[(A, RST), (A, ACK)]), State::Closed);
    assert_eq!(with(&[(A, RST), (A, ACK), (B, ACK)]), State::Established);
}

#[test]
fn datagrams_know_only_whether_they_were_answered() {
    let mut sent = Default::default();
    let mut udp = Track::new(protocol::UDP, None, &mut sent);
    udp.step(A, None, &mut sent);
    assert_eq!(udp.state, State::Udp);
    udp.step(B, Some(&numbered(RST, 0, 0, 0)), &mut sent);
    assert_eq!(udp.state, State::UdpReplied);
    for number in [protocol::ICMP, protocol::ICMPV6] {
        let mut icmp = Track::new(number, None, &mut sent);
        icmp.step(B, None, &mut sent);
        assert_eq!(icmp.state, State::Icmp);
    }
    assert_eq!(Track::new(50, None, &mut sent).state, State::Other);
    let unread = Track::new(protocol::TCP, None, &mut sent);
    assert_eq!(unread.state, State::PickedUp);
}

#[test]
fn states_are_numbered_in_their_order() {
    for (number, state) in State::ALL.into_iter().enumerate() {
        assert_eq!(state as usize, number);
    }
}
