//! Where a flow is in its life, as far as a host in the middle can tell.
//!
//! TCP is followed loosely: by flags and by who sent them, never by sequence numbers, so that a
//! connection picked up in its middle works. New connections by the numbers of an old one are told
//! as Linux tells them (net/netfilter/nf_conntrack_proto_tcp.c): a SYN begins one at once where the
//! old one is closed, and elsewhere once the other end answers it with SYN and ACK. Datagram
//! protocols only know whether they were answered. Leaves to [`timeouts`](super::timeouts) how long
//! each state may last.

use crate::wire::ip::protocol;
use crate::wire::transport::TcpFlags;

/// Which end of a flow sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The end whose packet began the flow.
    Original,
    /// The end that answers.
    Reply,
}

impl Side {
    /// The other end.
    #[inline]
    #[must_use]
    pub const fn other(self) -> Side {
        match self {
            Side::Original => Side::Reply,
            Side::Reply => Side::Original,
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// TCP: one end has sent a SYN.
    SynSent,
    /// TCP: the other end has answered it with a SYN.
    SynReceived,
    /// TCP: seen in its middle, from one end only.
    PickedUp,
    /// TCP: the handshake was seen, or data of both ends.
    Established,
    /// TCP: one end has sent a FIN.
    FinWait,
    /// TCP: both ends have sent a FIN, or one an RST.
    Closed,
    /// UDP that was not answered.
    Udp,
    /// UDP that was answered.
    UdpReplied,
    /// ICMP or ICMPv6.
    Icmp,
    /// Any other protocol.
    Other,
}

impl State {
    /// Every state, in the order of its number.
    pub const ALL: [State; 10] = [
        State::SynSent,
        State::SynReceived,
        State::PickedUp,
        State::Established,
        State::FinWait,
        State::Closed,
        State::Udp,
        State::UdpReplied,
        State::Icmp,
        State::Other,
    ];

    /// The name that the command line and JSON show: lower case, hyphens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::SynSent => "syn-sent",
            State::SynReceived => "syn-received",
            State::PickedUp => "picked-up",
            State::Established => "established",
            State::FinWait => "fin-wait",
            State::Closed => "closed",
            State::Udp => "unreplied",
            State::UdpReplied => "replied",
            State::Icmp => "icmp",
            State::Other => "other",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

const HEARD_BOTH: u8 = 0b0011;
const FINISHED: u8 = 0b1100;

/// A flow's state and what it takes to move on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Track {
    pub(super) state: State,
    /// Who sent the SYN that is being answered.
    opener: Side,
    /// Bits 0 and 1: sides of which a segment other than SYN and RST was seen. Bits 2 and 3: sides
    /// that sent a FIN. Bits 4 and 5: sides that sent a SYN on a connection that is not closed, whose receiver decides
    /// whether to believe it.
    ends: u8,
}

impl Track {
    /// The state after the first packet, which is of [`Side::Original`].
    pub(super) fn new(protocol: u8, tcp: Option<TcpFlags>) -> Track {
        let state = match protocol {
            protocol::TCP => State::PickedUp,
            protocol::UDP => State::Udp,
            protocol::ICMP | protocol::ICMPV6 => State::Icmp,
            _ => State::Other,
        };
        let mut track = Track {
            state,
            opener: Side::Original,
            ends: 0,
        };
        if let Some(flags) = tcp.filter(|_| state == State::PickedUp) {
            if flags.contains(TcpFlags::RST) {
                track.state = State::Closed;
            } else if flags.contains(TcpFlags::SYN | TcpFlags::ACK) {
                track.opener = Side::Reply;
                track.state = State::SynReceived;
            } else if flags.contains(TcpFlags::SYN) {
                track.state = State::SynSent;
            } else {
                track.segment(Side::Original, flags);
            }
        }
        track
    }

    /// What a further packet of `side` changes. `tcp` are the flags of a TCP segment.
    #[inline]
    pub(super) fn step(&mut self, side: Side, tcp: Option<TcpFlags>) {
        match (self.state, tcp) {
            (State::Udp, _) if side == Side::Reply => self.state = State::UdpReplied,
            (State::Udp | State::UdpReplied | State::Icmp | State::Other, _) | (_, None) => {}
            // What nearly every segment is.
            (State::Established, Some(flags))
                if !flags.intersects(TcpFlags::SYN | TcpFlags::RST | TcpFlags::FIN) => {}
            (_, Some(flags)) => self.control(side, flags),
        }
    }

    fn control(&mut self, side: Side, flags: TcpFlags) {
        if flags.contains(TcpFlags::RST) {
            self.state = State::Closed;
            self.ends &= FINISHED;
        } else if flags.contains(TcpFlags::SYN | TcpFlags::ACK) {
            self.syn_ack(side);
        } else if flags.contains(TcpFlags::SYN) {
            self.syn(side);
        } else {
            self.segment(side, flags);
        }
    }

    fn syn(&mut self, side: Side) {
        match self.state {
            State::SynSent if side == self.opener => {}
            State::SynSent => self.state = State::SynReceived,
            State::Closed | State::PickedUp => self.begin(State::SynSent, side),
            _ => self.ends |= side.bit() << 4,
        }
    }

    fn syn_ack(&mut self, side: Side) {
        if self.state == State::SynSent && side != self.opener {
            self.state = State::SynReceived;
        } else if self.ends & side.other().bit() << 4 != 0 {
            // The receiver had no connection, or none that it would keep.
            self.begin(State::SynReceived, side.other());
        }
    }

    /// Another connection by the same numbers.
    fn begin(&mut self, state: State, opener: Side) {
        *self = Track {
            state,
            opener,
            ends: 0,
        };
    }

    fn segment(&mut self, side: Side, flags: TcpFlags) {
        self.ends |= side.bit();
        if flags.contains(TcpFlags::FIN) {
            self.ends |= side.bit() << 2;
        }
        let heard_both = self.ends & HEARD_BOTH == HEARD_BOTH;
        let finished = self.ends & FINISHED;
        if finished == FINISHED {
            self.state = State::Closed;
            return;
        }
        match self.state {
            State::SynReceived if self.ends & self.opener.bit() != 0 => {
                self.state = State::Established;
            }
            // After an RST that its receiver did not believe, both ends go on.
            State::SynSent | State::PickedUp | State::Closed if heard_both => {
                self.state = State::Established;
            }
            _ => {}
        }
        if self.state == State::Established && finished != 0 {
            self.state = State::FinWait;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Side::{Original as A, Reply as B};
    use super::*;

    const SYN: TcpFlags = TcpFlags::SYN;
    const ACK: TcpFlags = TcpFlags::ACK;
    const RST: TcpFlags = TcpFlags::RST;
    const FIN: TcpFlags = TcpFlags(0x11);
    const SYN_ACK: TcpFlags = TcpFlags(0x12);

    fn after(first: TcpFlags, rest: &[(Side, TcpFlags)]) -> State {
        let mut track = Track::new(protocol::TCP, Some(first));
        for &(side, flags) in rest {
            track.step(side, Some(flags));
        }
        track.state
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
        assert_eq!(after(SYN, &[(A, ACK), (B, ACK)]), State::Established);
        let simultaneous = [(B, SYN), (A, SYN_ACK), (B, SYN_ACK), (A, ACK)];
        assert_eq!(after(SYN, &simultaneous), State::Established);
    }

    #[test]
    fn a_connection_picked_up_is_established_when_both_ends_were_heard() {
        assert_eq!(after(ACK, &[(A, ACK)]), State::PickedUp);
        assert_eq!(after(ACK, &[(B, ACK)]), State::Established);
        assert_eq!(after(ACK, &[(A, FIN)]), State::PickedUp);
        assert_eq!(after(FIN, &[(B, ACK)]), State::FinWait);
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
        let mut udp = Track::new(protocol::UDP, None);
        udp.step(A, None);
        assert_eq!(udp.state, State::Udp);
        udp.step(B, Some(RST));
        assert_eq!(udp.state, State::UdpReplied);
        for number in [protocol::ICMP, protocol::ICMPV6] {
            let mut icmp = Track::new(number, None);
            icmp.step(B, None);
            assert_eq!(icmp.state, State::Icmp);
        }
        assert_eq!(Track::new(50, None).state, State::Other);
        assert_eq!(Track::new(protocol::TCP, None).state, State::PickedUp);
    }

    #[test]
    fn states_are_numbered_in_their_order() {
        for (number, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
        }
    }
}
