//! Answers to the senders of refused packets, TCP resets and ICMP errors, and their rate limits.

use std::net::IpAddr;

use super::SenderReply;
use crate::mtu::minimum;
use crate::policy::Direction;
use crate::qos::Bucket;
use crate::time::Now;
use crate::vpc::{Link, LinkConfig};
use crate::wire::encapsulation::InnerProtocol;
use crate::wire::ethernet::{Ethernet, MAX_ETHERNET_HEADER_LEN, ethernet_header};
use crate::wire::header::HeaderBytes;
use crate::wire::icmp::{IcmpError, UnreachableReason};
use crate::wire::packet::{Packet, Transport};
use crate::wire::reset;

/// ICMP error rate limit per link, kind and direction: packets per second, and burst (RFC 1812 section 4.3.2.8, RFC
/// 4443 section 2.4 f).
const ERROR_RATE: u64 = 200;

/// Neighbour answer rate limit per link and direction: answers per second, and burst. Higher, because nothing flows
/// without them.
const NEIGHBORS: u64 = 1000;

/// Rate limits for answers to the packets of one link, of a fixed size: one for each kind and direction, so that no
/// link or kind uses up the answers of another.
#[derive(Debug)]
pub struct AnswerBudgets {
    /// Indexed by direction, then by kind.
    buckets: [[Bucket; 3]; 2],
}

impl Default for AnswerBudgets {
    fn default() -> Self {
        let each =
            || [NEIGHBORS, ERROR_RATE, ERROR_RATE].map(|answers| Bucket::new(answers, answers));
        AnswerBudgets {
            buckets: [each(), each()],
        }
    }
}

impl AnswerBudgets {
    /// Whether a packet of this direction may be answered; if so, counts the answer.
    #[must_use]
    pub fn take(&self, direction: Direction, answer: SenderReply, now: Now) -> bool {
        let kind = match answer {
            SenderReply::Neighbor(..) => 0,
            SenderReply::TooBig(_) => 1,
            SenderReply::Rejected => 2,
        };
        self.buckets[direction as usize][kind].take(1, now)
    }
}

/// Writes the answer to `packet`, which is at the start of `bytes`, into `out`: a whole IP packet from its
/// destination to its source, because the tunnel is one hop. A multicast address cannot be a source (RFC 4443 section
/// 2.2), so an oversized multicast packet is answered from an address of `link`. `None` if the packet must not be
/// answered (a reset, an ICMP error, a later fragment, other multicast, or a packet that is not too big) or `out` is
/// too small; 1,280 bytes suffice.
#[must_use]
pub fn answer(
    link: &LinkConfig,
    answer: SenderReply,
    packet: &Packet,
    bytes: &[u8],
    out: &mut [u8],
) -> Option<usize> {
    let error = match answer {
        SenderReply::Rejected => IcmpError::Unreachable(UnreachableReason::Prohibited),
        SenderReply::TooBig(mtu) => {
            // Packets up to the minimum MTU pass as fragments from now on, so their senders need not make them
            // shorter.
            let mtu = mtu.max(minimum(packet.version));
            if packet.total_len <= mtu {
                return None;
            }
            IcmpError::TooBig { mtu: mtu.into() }
        }
        SenderReply::Neighbor(..) => return None,
    };
    if !error.may_answer(packet) {
        return None;
    }
    match (answer, packet.transport) {
        (SenderReply::Rejected, Transport::Tcp { .. }) => reset::answer(packet, out),
        _ => error.build(source(link, packet.dst), packet, bytes, out),
    }
}

/// Returns the source address of an answer to a packet for `dst`.
fn source(link: &LinkConfig, dst: IpAddr) -> IpAddr {
    match dst {
        IpAddr::V6(group) if group.is_multicast() => link.own_v6().into(),
        one => one,
    }
}

/// Returns the header for an answer to the sender of a datagram that `link` received, and the inner packet of the
/// datagram.
#[must_use]
pub fn way_back<'a>(link: &Link, datagram: &'a [u8]) -> Option<(HeaderBytes, &'a [u8])> {
    let config = &link.config;
    let envelope = config.encapsulation.parse(datagram).ok()?;
    let mut header = config.encapsulation.header(config.vni, envelope.protocol);
    let inner = &datagram[envelope.header_len..];
    if config.inner == InnerProtocol::Ip {
        return Some((header, inner));
    }
    let frame = Ethernet::parse(inner).ok()?;
    if let Some(bridge) = &link.bridge {
        let (to, from) = bridge.reply_addresses(&frame);
        let mut back = [0; MAX_ETHERNET_HEADER_LEN];
        let back = &mut back[..frame.header_len()];
        back.copy_from_slice(frame.header_bytes());
        back[..6].copy_from_slice(&to.0);
        back[6..12].copy_from_slice(&from.0);
        return header.push(back).then_some((header, frame.payload()));
    }
    let back = ethernet_header(frame.src(), config.lladdr, frame.ether_type());
    header.push(&back).then_some((header, frame.payload()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ethernet::Mac;
    use crate::wire::nd::AdvertisementFlags;

    #[test]
    fn each_kind_and_direction_has_answers_of_its_own() {
        let budgets = AnswerBudgets::default();
        let second = |n: u64| Now(n * 1_000_000_000);
        let kinds = [
            (
                SenderReply::Neighbor(Mac::default(), AdvertisementFlags::default()),
                NEIGHBORS,
            ),
            (SenderReply::TooBig(1400), ERROR_RATE),
            (SenderReply::Rejected, ERROR_RATE),
        ];
        let directions = [Direction::Ingress, Direction::Egress];
        for now in [second(1), second(2)] {
            for (answer, most) in kinds {
                for direction in directions {
                    let taken = (0..10_000).filter(|_| budgets.take(direction, answer, now));
                    assert_eq!(taken.count() as u64, most, "{answer:?} {direction:?}");
                }
            }
        }
    }
}
