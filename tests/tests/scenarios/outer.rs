//! The outer header: TTL, DSCP, ECN, DF and UDP checksum.

use geneved::lab::netns::LabNetns;
use geneved::traffic::EchoRun;
use geneved_tests::on_both_backends;
use geneved_tests::packet::{ETHERTYPE_IPV6, Parsed, RawGeneve, ip_with};
use geneved_tests::peer::{INNER4, INNER6, Peer};
use geneved_tests::sniffer::Sniffer;
use geneved_tests::world::{Duo, TestBackend, TestDaemon, UnderlayFamily, link};
use nix::sys::socket::{setsockopt, sockopt};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// An outer packet's fields.
#[derive(Debug)]
struct OuterFields {
    tos: u8,
    ttl: u8,
    dont_fragment: bool,
    checksum: u16,
    inner_tos: u8,
    inner_ttl: u8,
}

struct OuterSender {
    daemon: TestDaemon,
    // Nobody reads from it; it is there so that nothing is refused.
    _peer: UdpSocket,
    ear: Sniffer,
    duo: Duo,
}

impl OuterSender {
    fn new(io: TestBackend, family: UnderlayFamily, more: &str) -> Self {
        let duo = Duo::new();
        let more = format!("remote = \"{}\"\n{more}", Duo::underlay(family, 1));
        let config = link("gnv0", 100, &["10.0.0.1/24", "fd00::1/64"], &more);
        let peer = Peer::bind(&duo, SocketAddr::new(Duo::underlay(family, 1), 6081));
        let daemon = duo.world.daemon(&duo.a, io, "", &config);
        let ear = Sniffer::new(duo.b.netns(), "u0");
        Self {
            daemon,
            _peer: peer,
            ear,
            duo,
        }
    }

    /// Sends one echo request with this TOS and TTL into the overlay, and catches it outside.
    fn ping(&self, to: &str, tos: u8, ttl: u8) -> OuterFields {
        let to: IpAddr = to.parse().unwrap();
        let echo = EchoRun {
            count: 1,
            timeout: Duration::from_millis(1),
            tos: Some(tos),
            ttl: Some(ttl),
            ..EchoRun::default()
        };
        echo.run(host(&self.duo).netns(), to).unwrap();
        let caught = self.ear.find(Duration::from_secs(3), |bytes| {
            let outer = Parsed::new(bytes)?;
            let inner = Parsed::new(outer.geneve(6081)?.1)?;
            (inner.to == to).then(|| OuterFields {
                tos: outer.tos,
                ttl: outer.ttl,
                dont_fragment: outer.dont_fragment,
                checksum: outer.udp_checksum().unwrap(),
                inner_tos: inner.tos,
                inner_ttl: inner.ttl,
            })
        });
        caught
            .unwrap_or_else(|| panic!("tos {tos}, ttl {ttl} to {to}: {}", self.daemon.link("gnv0")))
    }
}

fn host(duo: &Duo) -> &LabNetns {
    &duo.a
}

/// DSCP AF11, without ECN.
const AF11: u8 = 0x28;
const ECT0: u8 = 2;
const ECT1: u8 = 1;
const CE: u8 = 3;

on_both_backends! {
    fn rfc8926_33_ttl_and_dscp_follow_the_pipe_model_by_default(io) {
        for family in UnderlayFamily::BOTH {
            let sender = OuterSender::new(io, family, "");
            for to in ["10.0.0.2", "fd00::2"] {
                let outer = sender.ping(to, AF11, 7);
                assert_eq!((outer.tos, outer.ttl), (0, 64), "{outer:?}");
                assert_eq!((outer.inner_tos, outer.inner_ttl), (AF11, 7), "{outer:?}");
            }
        }
    }

    fn rfc8926_33_ttl_and_dscp_are_what_the_operator_says(io) {
        for family in UnderlayFamily::BOTH {
            let fixed = OuterSender::new(io, family, "ttl = 9\ntos = 0x40");
            let outer = fixed.ping("10.0.0.2", AF11, 7);
            assert_eq!((outer.tos, outer.ttl), (0x40, 9), "{outer:?}");
            let inherit = OuterSender::new(io, family, "ttl = \"inherit\"\ntos = \"inherit\"");
            let outer = inherit.ping("10.0.0.2", AF11, 7);
            assert_eq!((outer.tos, outer.ttl), (AF11, 7), "{outer:?}");
        }
    }

    fn rfc8926_32_the_inner_ecn_field_is_copied_outwards(io) {
        for family in UnderlayFamily::BOTH {
            let sender = OuterSender::new(io, family, "");
            for to in ["10.0.0.2", "fd00::2"] {
                for ecn in [0, ECT0, ECT1, CE] {
                    let outer = sender.ping(to, ecn, 64);
                    assert_eq!(outer.tos, ecn, "{outer:?}");
                }
            }
        }
    }

    fn rfc8926_32_congestion_on_the_underlay_reaches_the_inner_packet(io) {
        for family in UnderlayFamily::BOTH {
            let peer = Peer::new(io, family, "");
            for six in [false, true] {
                let [from, to]: [IpAddr; 2] =
                    if six { INNER6 } else { INNER4 }.map(|text| text.parse().unwrap());
                // RFC 6040 figure 4: inner, outer, what comes out; None is a drop.
                for (inner, outer, result) in [
                    (0, 0, Some(0)), (0, ECT0, Some(0)), (0, ECT1, Some(0)), (0, CE, None),
                    (ECT0, 0, Some(ECT0)), (ECT0, ECT0, Some(ECT0)), (ECT0, ECT1, Some(ECT1)), (ECT0, CE, Some(CE)),
                    (ECT1, 0, Some(ECT1)), (ECT1, ECT0, Some(ECT1)), (ECT1, ECT1, Some(ECT1)), (ECT1, CE, Some(CE)),
                    (CE, 0, Some(CE)), (CE, ECT0, Some(CE)), (CE, ECT1, Some(CE)), (CE, CE, Some(CE)),
                ] {
                    match family {
                        UnderlayFamily::V4 => setsockopt(&peer.socket, sockopt::Ipv4Tos, &i32::from(outer)).unwrap(),
                        UnderlayFamily::V6 => setsockopt(&peer.socket, sockopt::Ipv6TClass, &i32::from(outer)).unwrap(),
                    }
                    let (port, made) = peer.inner_between(if six { INNER6 } else { INNER4 });
                    let segment = Parsed::new(&made).unwrap().segment.to_vec();
                    let packet = ip_with(from, to, 17, &segment, AF11 | inner, 64);
                    let protocol = if six { ETHERTYPE_IPV6 } else { 0x0800 };
                    let datagram = RawGeneve { protocol, ..RawGeneve::new(100) }.datagram(&packet);
                    match result {
                        None => peer.assert_vanishes(Some(port), &datagram, "ecn-congestion"),
                        Some(ecn) => {
                            let came = peer.assert_emerges(port, &datagram);
                            let came = Parsed::new(&came).unwrap();
                            assert_eq!(came.tos, AF11 | ecn, "inner {inner}, outer {outer}");
                            if !six {
                                assert_eq!(geneved_tests::packet::sum(0, &came.bytes[..20]), 0xffff);
                            }
                        }
                    }
                }
            }
        }
    }

    fn rfc8926_06_07_the_udp_checksum_is_sent_by_default(io) {
        for family in UnderlayFamily::BOTH {
            let outer = OuterSender::new(io, family, "").ping("10.0.0.2", 0, 64);
            assert_ne!(outer.checksum, 0, "{family:?}");
        }
    }

    fn rfc8926_24_25_the_udp_checksum_is_left_out_where_the_operator_says_so(io) {
        for (family, more) in [(UnderlayFamily::V4, "udpcsum = false"), (UnderlayFamily::V6, "udp6zerocsumtx = true")] {
            let outer = OuterSender::new(io, family, more).ping("10.0.0.2", 0, 64);
            assert_eq!(outer.checksum, 0, "{family:?}");
        }
    }

    fn rfc8926_30_df_is_what_the_operator_says(io) {
        for (more, set) in [("df = \"set\"", true), ("df = \"unset\"", false), ("df = \"inherit\"", true)] {
            let outer = OuterSender::new(io, UnderlayFamily::V4, more).ping("10.0.0.2", 0, 64);
            assert_eq!(outer.dont_fragment, set, "{more}");
        }
    }
}
