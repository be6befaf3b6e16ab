//! ARP and Neighbor Discovery messages in common terms.

use std::net::IpAddr;

use crate::wire::arp::{Arp, ArpOperation};
use crate::wire::ethernet::Mac;
use crate::wire::nd::{AdvertisementFlags, Nd};

/// What a message announces and what it asks; either may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighborNotice {
    /// The IP to MAC address binding that the sender announces.
    pub claim: Option<(IpAddr, Mac)>,
    /// Flags of that binding; only a neighbour advertisement has them.
    pub flags: Option<AdvertisementFlags>,
    /// The address that the message asks to resolve.
    pub question: Option<NeighborQuery>,
}

/// Request for the MAC address of an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborQuery {
    /// The address to resolve.
    pub target: IpAddr,
    /// Duplicate address detection: the sender wants to use the address itself (RFC 5227, RFC 4862 section 5.4).
    pub probe: bool,
}

impl From<&Arp> for NeighborNotice {
    fn from(arp: &Arp) -> NeighborNotice {
        let asks = arp.operation == ArpOperation::Request && !arp.is_announcement();
        NeighborNotice {
            claim: (!arp.sender.is_unspecified()).then_some((arp.sender.into(), arp.sender_mac)),
            flags: None,
            question: asks.then_some(NeighborQuery {
                target: arp.target.into(),
                probe: arp.is_probe(),
            }),
        }
    }
}

impl From<&Nd> for NeighborNotice {
    fn from(nd: &Nd) -> NeighborNotice {
        match *nd {
            Nd::Solicitation { from, target, mac } => NeighborNotice {
                claim: mac.map(|mac| (from.into(), mac)),
                flags: None,
                question: Some(NeighborQuery {
                    target: target.into(),
                    probe: nd.is_probe(),
                }),
            },
            Nd::Advertisement {
                target, mac, flags, ..
            } => NeighborNotice {
                claim: mac.map(|mac| (target.into(), mac)),
                flags: Some(flags),
                question: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn arp(operation: ArpOperation, sender: [u8; 4], target: [u8; 4]) -> NeighborNotice {
        let arp = Arp {
            operation,
            sender_mac: SENDER_MAC,
            sender: sender.into(),
            target_mac: Mac([0; 6]),
            target: target.into(),
        };
        NeighborNotice::from(&arp)
    }

    fn question(target: &str, probe: bool) -> Option<NeighborQuery> {
        let target = target.parse().unwrap();
        Some(NeighborQuery { target, probe })
    }

    fn claim(addr: &str) -> Option<(IpAddr, Mac)> {
        Some((addr.parse().unwrap(), SENDER_MAC))
    }

    #[test]
    fn arp_asks_claims_probes_and_announces() {
        let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let request = arp(ArpOperation::Request, a, b);
        assert_eq!(request.claim, claim("10.0.0.1"));
        assert_eq!(request.question, question("10.0.0.2", false));
        let probe = arp(ArpOperation::Request, [0; 4], b);
        assert_eq!(
            (probe.claim, probe.question),
            (None, question("10.0.0.2", true))
        );
        for announcement in [
            arp(ArpOperation::Request, a, a),
            arp(ArpOperation::Reply, a, a),
        ] {
            assert_eq!(announcement.claim, claim("10.0.0.1"));
            assert_eq!(announcement.question, None);
        }
        let reply = arp(ArpOperation::Reply, a, b);
        assert_eq!((reply.claim, reply.question), (claim("10.0.0.1"), None));
    }

    #[test]
    fn neighbor_discovery_does_the_same() {
        let (a, b) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let asks = NeighborNotice::from(&Nd::Solicitation {
            from: a,
            target: b,
            mac: Some(SENDER_MAC),
        });
        assert_eq!(asks.claim, claim("fd00::1"));
        assert_eq!(asks.question, question("fd00::2", false));
        let probe = NeighborNotice::from(&Nd::Solicitation {
            from: std::net::Ipv6Addr::UNSPECIFIED,
            target: b,
            mac: None,
        });
        assert_eq!(
            (probe.claim, probe.question),
            (None, question("fd00::2", true))
        );
        let tells = NeighborNotice::from(&Nd::Advertisement {
            target: b,
            mac: Some(SENDER_MAC),
            solicited: false,
            flags: AdvertisementFlags {
                router: true,
                overrides: false,
            },
        });
        assert_eq!((tells.claim, tells.question), (claim("fd00::2"), None));
        assert!(tells.flags.is_some_and(|flags| flags.router) && asks.flags.is_none());
    }
}
