//! Delivery check of links in mode ip: nothing for other destinations reaches the interface.

use super::support::packets::unreachable;
use super::support::*;
use super::*;
use crate::wire::icmp::UnreachableReason;

const NOT_HERE_REASON: DropReason = DropReason::DestinationNotHere;

/// The first host, with two prefixes behind its link besides its own addresses.
fn router() -> TestHost {
    let mut config = vpc(LOCAL_HOST, 0, RED);
    config.allowed = ["10.9.0.0/24", "fd09::/64"]
        .map(|p| p.parse().unwrap())
        .into();
    config.broadcasts = vec!["10.0.0.255".parse().unwrap()];
    config.routes.extend([
        route("0.0.0.0/0", &[HOST_B], RouteOrigin::Remote),
        route("::/0", &[HOST_B], RouteOrigin::Remote),
        route("10.0.0.44/32", &[], RouteOrigin::Endpoint),
    ]);
    TestHost::new(LOCAL_HOST, vec![config])
}

fn heard(site: &TestHost, dst: &str) -> Result<(), DropReason> {
    let src = if ip(dst).is_ipv4() {
        "10.0.0.2"
    } else {
        "fd00::2"
    };
    site.hear(HOST_B, &udp(src, dst, (1000, 53), 0), &plain())
        .map(|went| {
            assert_eq!(went.tun(), 0);
            assert_eq!(went.packet().dst, ip(dst));
        })
}

#[test]
fn only_what_is_behind_the_link_is_delivered() {
    let site = router();
    let here = [
        "10.0.0.1",
        "fd00::1",
        "10.0.0.44",
        "10.9.0.7",
        "10.9.0.255",
        "fd09::7",
        "10.0.0.255",
        "224.0.0.251",
        "ff02::fb",
    ];
    for dst in here {
        assert_eq!(heard(&site, dst), Ok(()), "{dst}");
    }
    let elsewhere = [
        "192.0.2.1",
        "169.254.169.254",
        "10.0.0.3",
        "10.9.1.7",
        "255.255.255.255",
        "0.0.0.0",
        "fd09:1::1",
        "fe80::1",
        "10.8.0.255",
    ];
    let flows = site.flows();
    for dst in elsewhere {
        assert_eq!(heard(&site, dst), Err(NOT_HERE_REASON), "{dst}");
    }
    for dst in ["127.0.0.1", "::1"] {
        assert_eq!(heard(&site, dst), Err(DropReason::LoopbackAddress), "{dst}");
    }
    assert_eq!(site.flows(), flows);
    let (noted, _) = site.link(0).config.undelivered.all();
    let sum: u64 = noted.iter().map(|one| one.packets).sum();
    assert!(noted.len() == 8 && sum >= 8, "{noted:?}");
}

#[test]
fn a_prefix_that_is_behind_another_host_too_is_delivered_and_leaves_as_it_did() {
    let mut config = vpc(LOCAL_HOST, 0, RED);
    config.allowed = ["10.7.0.0/16", "0.0.0.0/0"]
        .map(|p| p.parse().unwrap())
        .into();
    config.routes.extend([
        route("10.7.0.0/16", &[HOST_C], RouteOrigin::Route),
        route("0.0.0.0/0", &[HOST_B], RouteOrigin::Remote),
    ]);
    let site = TestHost::new(LOCAL_HOST, vec![config]);
    for dst in ["10.7.0.1", "172.16.0.1"] {
        assert_eq!(heard(&site, dst), Ok(()), "{dst}");
    }
    let went = |dst| site.send(&udp("10.0.0.1", dst, (1, 2), 0)).unwrap().host();
    assert_eq!(
        (went("10.7.0.9"), went("172.16.0.9")),
        (ip(HOST_C), ip(HOST_B))
    );
    // Loopback is dropped even if its prefix is allowed.
    assert_eq!(heard(&site, "127.0.0.1"), Err(DropReason::LoopbackAddress));
}

#[test]
fn what_is_behind_the_link_does_not_leave_by_it_and_does_not_come_from_elsewhere() {
    let site = router();
    let out = site.send(&udp("10.0.0.1", "10.9.0.7", (1, 2), 0));
    assert_eq!(out.unwrap_err(), DropReason::NoRoute);
    let forged = site.hear(HOST_B, &udp("10.9.0.7", "10.0.0.1", (1, 2), 0), &plain());
    assert_eq!(forged.unwrap_err(), DropReason::SourceMismatch);
    let own = site.send(&udp("10.9.0.7", "10.0.0.2", (1, 2), 0));
    assert_eq!(own.unwrap().host(), ip(HOST_B));
}

#[test]
fn addresses_that_come_and_go_count_at_the_next_packet() {
    let mut site = router();
    assert_eq!(heard(&site, "10.0.0.77"), Err(NOT_HERE_REASON));
    site.change(|configs| configs[0].addresses.push(ip("10.0.0.77")));
    for _ in 0..2 {
        assert_eq!(heard(&site, "10.0.0.77"), Ok(()));
    }
    site.change(|configs| {
        configs[0].addresses.pop();
    });
    // The change ends its existing flow.
    assert_eq!(heard(&site, "10.0.0.77"), Err(NOT_HERE_REASON));
}

#[test]
fn answers_go_to_whom_the_link_may_deliver() {
    let site = router();
    let asked = |src: &str| {
        site.send(&udp(src, "10.0.0.2", (1000, 53), 0)).unwrap();
        site.hear(HOST_B, &udp("10.0.0.2", src, (53, 1000), 0), &plain())
            .map(|_| ())
    };
    assert_eq!(asked("10.0.0.1"), Ok(()));
    assert_eq!(asked("10.9.0.7"), Ok(()));
    // The kernel used the address of another interface as its source.
    assert_eq!(asked("192.0.2.1"), Err(NOT_HERE_REASON));
}

#[test]
fn the_destination_after_translation_counts() {
    let rules = || {
        vec![
            dnat("203.0.113.9", None, "10.9.0.7", None),
            dnat("203.0.113.10", None, "10.0.0.3", None),
            snat(
                "out",
                "10.0.0.2/32",
                ("198.51.100.1", "198.51.100.1"),
                (5000, 5999),
            ),
        ]
    };
    let mut site = router();
    site.functions(|f| f.nat = translation(0, rules()));
    let ask = |dst: &str| site.hear(HOST_B, &udp("10.0.0.2", dst, (1000, 53), 0), &plain());
    let inside = ask("203.0.113.9").unwrap();
    assert_eq!((inside.tun(), inside.packet().dst), (0, ip("10.9.0.7")));
    assert_eq!(ask("203.0.113.10").unwrap().host(), ip(HOST_C));
    // This host is the gateway of 10.0.0.2, but not of others.
    let out = ask("8.8.8.8").unwrap();
    assert_eq!((out.tun(), out.packet().src), (0, ip("198.51.100.1")));
    let other = site.hear(
        HOST_B,
        &udp("10.20.0.2", "8.8.8.8", (1000, 53), 0),
        &plain(),
    );
    assert_eq!(other.unwrap_err(), NOT_HERE_REASON);
    // A client known by its translated address gets its answer.
    site.send(&udp("8.8.4.4", "203.0.113.10", (9, 53), 0))
        .unwrap();
    let answer = site.hear(HOST_C, &udp("10.0.0.3", "8.8.4.4", (53, 9), 0), &plain());
    assert_eq!(answer.unwrap().packet().src, ip("203.0.113.10"));
}

#[test]
fn an_error_is_for_whoever_sent_what_it_quotes() {
    let site = router();
    let sent = udp("10.0.0.1", "10.0.0.2", (1000, 53), 0);
    site.send(&sent).unwrap();
    let error = unreachable(&sent, ip("10.0.0.2"), UnreachableReason::Prohibited);
    let told = site.hear(HOST_B, &error, &plain()).unwrap();
    assert_eq!(told.packet().dst, ip("10.0.0.1"));
    // The same error about the same flow to other destinations, one of them an address of the link.
    for dst in ["169.254.169.254", "192.0.2.1", "10.0.0.44"] {
        let forged = packets::in_ip(
            (ip("10.0.0.2"), ip(dst)),
            protocol::ICMP,
            (0, true),
            &error[20..],
        );
        assert_eq!(
            site.hear(HOST_B, &forged, &plain()).unwrap_err(),
            DropReason::IcmpUnrelated,
            "{dst}"
        );
    }
}
