//! Flow state tracking, as far as a middlebox can tell.
//!
//! TCP is tracked loosely, by flags and by their sender, so that a connection picked up midway works. Sequence
//! numbers decide only whether a connection is established: each end must have sent a SYN or data that the other
//! acknowledged within a window. Bare ACKs, and segments that one end makes up alone, never earn the long timeout of
//! an established connection. A new connection with the addresses and ports of an old one is detected as in Linux
//! (net/netfilter/nf_conntrack_proto_tcp.c): a SYN begins one at once if the old one is closed, otherwise once the
//! other end answers with a SYN-ACK. Datagram protocols only track whether they were answered. The timeout of each
//! state is up to [`timeouts`](super::timeouts).

use crate::wire::ip::protocol;
use crate::wire::packet::{Packet, Transport};
use crate::wire::transport::TcpFlags;

/// End of a flow that sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowDirection {
    /// The end whose packet began the flow.
    Original,
    /// The end that replies.
    Reply,
}

impl FlowDirection {
    /// Returns the other end.
    #[inline]
    #[must_use]
    pub const fn other(self) -> FlowDirection {
        match self {
            FlowDirection::Original => FlowDirection::Reply,
            FlowDirection::Reply => FlowDirection::Original,
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// State of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FlowState {
    /// TCP: one end has sent a SYN.
    SynSent,
    /// TCP: the other end has answered it with a SYN.
    SynReceived,
    /// TCP: picked up midway, and not yet known to be kept by both ends.
    PickedUp,
    /// TCP: each end has sent a SYN or data, and the other has acknowledged it.
    Established,
    /// TCP: one end has sent a FIN.
    FinWait,
    /// TCP: both ends have sent a FIN, or one an RST.
    Closed,
    /// Unanswered UDP.
    Udp,
    /// Answered UDP.
    UdpReplied,
    /// ICMP or ICMPv6.
    Icmp,
    /// Any other protocol.
    Other,
}

impl FlowState {
    /// All states, in numerical order.
    pub const ALL: [FlowState; 10] = [
        FlowState::SynSent,
        FlowState::SynReceived,
        FlowState::PickedUp,
        FlowState::Established,
        FlowState::FinWait,
        FlowState::Closed,
        FlowState::Udp,
        FlowState::UdpReplied,
        FlowState::Icmp,
        FlowState::Other,
    ];

    /// Returns the name shown on the command line and in JSON: lower case, with hyphens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FlowState::SynSent => "syn-sent",
            FlowState::SynReceived => "syn-received",
            FlowState::PickedUp => "picked-up",
            FlowState::Established => "established",
            FlowState::FinWait => "fin-wait",
            FlowState::Closed => "closed",
            FlowState::Udp => "unreplied",
            FlowState::UdpReplied => "replied",
            FlowState::Icmp => "icmp",
            FlowState::Other => "other",
        }
    }
}

impl std::fmt::Display for FlowState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Fields of a TCP segment that drive the flow state. A super-packet counts as one segment with all of its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpSegment {
    /// Flag bits.
    pub flags: TcpFlags,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Payload length in bytes.
    pub len: u16,
}

impl TcpSegment {
    /// Returns the segment of a packet; `None` for other protocols, and if the header cannot be read.
    #[inline]
    #[must_use]
    pub fn of(packet: &Packet) -> Option<TcpSegment> {
        match packet.transport {
            Transport::Tcp {
                flags, seq, ack, ..
            } => Some(TcpSegment {
                flags,
                seq,
                ack,
                len: packet.total_len.saturating_sub(packet.payload_offset),
            }),
            _ => None,
        }
    }

    /// Returns the sequence number after the segment; SYN and FIN count as one each (RFC 9293 section 3.4).
    fn end(&self) -> u32 {
        let one = |flag| u32::from(self.flags.contains(flag));
        let len = u32::from(self.len) + one(TcpFlags::SYN) + one(TcpFlags::FIN);
        self.seq.wrapping_add(len)
    }
}

/// Largest window in bytes (RFC 7323 section 2.3): sequence numbers further apart belong to different connections.
const LARGEST_WINDOW: u32 = 1 << 30;

/// How many bytes an acknowledgment may be behind what was sent: as much as a fast connection has in flight.
const UNDER_WAY: u32 = 1 << 24;

/// Sequence number after the last SYN or data that one end sent; 0 if it sent none. A flow has no room for more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LastSequence(u32);

impl LastSequence {
    /// Adds a segment. One further away than any window belongs to another connection.
    fn add(&mut self, segment: &TcpSegment) {
        let end = segment.end();
        if end == segment.seq {
            return;
        }
        let (ahead, behind) = (end.wrapping_sub(self.0), self.0.wrapping_sub(end));
        if self.0 == 0 || ahead <= LARGEST_WINDOW || behind > LARGEST_WINDOW {
            self.0 = end;
        }
    }

    /// Whether `ack` acknowledges something sent within a window, and nothing that was not sent.
    fn acknowledged(self, ack: u32) -> bool {
        self.0 != 0 && self.0.wrapping_sub(ack) < UNDER_WAY
    }
}

const HEARD_BOTH: u8 = 0b0011;
const FINISHED: u8 = 0b1100;
const ACKNOWLEDGED: u8 = 0b1100_0000;

/// State of a flow, with what its transitions depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnTrack {
    pub(super) state: FlowState,
    /// Sender of the SYN that is being answered.
    opener: FlowDirection,
    /// Bits 0 and 1: sides that sent a segment other than SYN and RST. Bits 2 and 3: sides that sent a FIN. Bits 4
    /// and 5: sides that sent a SYN on a connection that is not closed; the receiver decides whether to accept it.
    /// Bits 6 and 7: sides whose SYN or data the other end has acknowledged.
    ends: u8,
}

impl ConnTrack {
    /// The state after the first packet, which is of [`FlowDirection::Original`].
    pub(super) fn new(
        protocol: u8,
        tcp: Option<&TcpSegment>,
        sent: &mut [LastSequence; 2],
    ) -> ConnTrack {
        let state = match protocol {
            protocol::TCP => FlowState::PickedUp,
            protocol::UDP => FlowState::Udp,
            protocol::ICMP | protocol::ICMPV6 => FlowState::Icmp,
            _ => FlowState::Other,
        };
        let mut track = ConnTrack {
            state,
            opener: FlowDirection::Original,
            ends: 0,
        };
        if let Some(segment) = tcp.filter(|_| state == FlowState::PickedUp) {
            let flags = segment.flags;
            if flags.contains(TcpFlags::RST) {
                track.state = FlowState::Closed;
            } else if flags.contains(TcpFlags::SYN | TcpFlags::ACK) {
                track.begin(FlowState::SynReceived, FlowDirection::Reply);
                track.answer_syn(FlowDirection::Original, segment, sent);
            } else if flags.contains(TcpFlags::SYN) {
                track.state = FlowState::SynSent;
                sent[FlowDirection::Original as usize].add(segment);
            } else {
                track.segment(FlowDirection::Original, segment, sent);
            }
        }
        track
    }

    /// Updates the state for a further packet from `side`. `tcp` is its TCP segment, `sent` what both ends sent
    /// before.
    #[inline]
    pub(super) fn step(
        &mut self,
        side: FlowDirection,
        tcp: Option<&TcpSegment>,
        sent: &mut [LastSequence; 2],
    ) {
        match (self.state, tcp) {
            (FlowState::Udp, _) if side == FlowDirection::Reply => {
                self.state = FlowState::UdpReplied;
            }
            (FlowState::Udp | FlowState::UdpReplied | FlowState::Icmp | FlowState::Other, _)
            | (_, None) => {}
            // The most common case by far.
            (FlowState::Established, Some(segment))
                if !segment
                    .flags
                    .intersects(TcpFlags::SYN | TcpFlags::RST | TcpFlags::FIN) => {}
            (_, Some(segment)) => self.control(side, segment, sent),
        }
    }

    fn control(&mut self, side: FlowDirection, segment: &TcpSegment, sent: &mut [LastSequence; 2]) {
        let flags = segment.flags;
        if flags.contains(TcpFlags::RST) {
            self.state = FlowState::Closed;
            self.ends &= FINISHED | ACKNOWLEDGED;
        } else if flags.contains(TcpFlags::SYN | TcpFlags::ACK) {
            self.syn_ack(side, segment, sent);
        } else if flags.contains(TcpFlags::SYN) {
            self.syn(side, segment, sent);
        } else {
            self.segment(side, segment, sent);
        }
    }

    fn syn(&mut self, side: FlowDirection, segment: &TcpSegment, sent: &mut [LastSequence; 2]) {
        match self.state {
            FlowState::SynSent if side == self.opener => {}
            FlowState::SynSent => self.state = FlowState::SynReceived,
            FlowState::Closed | FlowState::PickedUp => {
                self.begin(FlowState::SynSent, side);
                *sent = Default::default();
            }
            _ => {
                self.ends |= side.bit() << 4;
                return;
            }
        }
        sent[side as usize] = LastSequence(segment.end());
    }

    fn syn_ack(&mut self, side: FlowDirection, segment: &TcpSegment, sent: &mut [LastSequence; 2]) {
        if self.state == FlowState::SynSent && side != self.opener {
            self.state = FlowState::SynReceived;
            self.follow(side, segment, sent);
        } else if self.ends & side.other().bit() << 4 != 0 {
            // The receiver had no connection, or gave it up for the new one.
            self.begin(FlowState::SynReceived, side.other());
            self.answer_syn(side, segment, sent);
        } else if self.state == FlowState::SynReceived {
            self.follow(side, segment, sent);
        }
    }

    /// Handles a SYN-ACK for a SYN whose sequence number was not recorded: it is one less than the acknowledgment.
    fn answer_syn(
        &mut self,
        side: FlowDirection,
        segment: &TcpSegment,
        sent: &mut [LastSequence; 2],
    ) {
        sent[side as usize] = LastSequence(segment.end());
        sent[side.other() as usize] = LastSequence(segment.ack);
        self.ends |= side.other().bit() << 6;
    }

    /// Starts over for a new connection with the same addresses and ports.
    fn begin(&mut self, state: FlowState, opener: FlowDirection) {
        *self = ConnTrack {
            state,
            opener,
            ends: 0,
        };
    }

    /// Records what `side` sends, and whether it acknowledges what the other end sent.
    fn follow(&mut self, side: FlowDirection, segment: &TcpSegment, sent: &mut [LastSequence; 2]) {
        sent[side as usize].add(segment);
        let other = side.other();
        if segment.flags.contains(TcpFlags::ACK) && sent[other as usize].acknowledged(segment.ack) {
            self.ends |= other.bit() << 6;
        }
    }

    fn segment(&mut self, side: FlowDirection, segment: &TcpSegment, sent: &mut [LastSequence; 2]) {
        self.ends |= side.bit();
        if segment.flags.contains(TcpFlags::FIN) {
            self.ends |= side.bit() << 2;
        }
        if self.state != FlowState::Established {
            self.follow(side, segment, sent);
        }
        let heard_both = self.ends & HEARD_BOTH == HEARD_BOTH;
        let acknowledged = self.ends & ACKNOWLEDGED == ACKNOWLEDGED;
        let finished = self.ends & FINISHED;
        if finished == FINISHED {
            self.state = FlowState::Closed;
            return;
        }
        match self.state {
            FlowState::SynReceived if acknowledged && self.ends & self.opener.bit() != 0 => {
                self.state = FlowState::Established;
            }
            // After an RST that its receiver did not accept, both ends go on.
            FlowState::SynSent | FlowState::PickedUp | FlowState::Closed
                if acknowledged && heard_both =>
            {
                self.state = FlowState::Established;
            }
            _ => {}
        }
        if self.state == FlowState::Established && finished != 0 {
            self.state = FlowState::FinWait;
        }
    }
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
