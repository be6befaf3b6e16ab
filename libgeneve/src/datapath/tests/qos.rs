//! QoS: packets dropped above a rate limit, and class marks on the wire.

use super::support::*;
use super::*;
use crate::options::{ClassOption, SentOptions};
use crate::qos::{Bucket, ClassCounters, QosClass};
use crate::vpc::EndpointConfig;

const OVER: DropReason = DropReason::RateExceeded;

/// 1,000 bytes a second, with a burst of three packets of 60 bytes.
fn bucket() -> Option<Arc<Bucket>> {
    Some(Arc::new(Bucket::new(1000, 180)))
}

fn class(id: u8, dscp: Option<u8>) -> QosClass {
    QosClass {
        id,
        name: format!("class-{id}"),
        bucket: None,
        ingress: None,
        dscp,
        tally: Arc::new(ClassCounters::default()),
    }
}

fn out(port: u16) -> Vec<u8> {
    udp("10.0.0.1", "10.0.0.2", (port, 53), 0)
}

fn back(port: u16) -> Vec<u8> {
    udp("10.0.0.2", "10.0.0.1", (53, port), 0)
}

/// Sends packets of two flows alternately; returns how many pass.
fn passing(site: &TestHost, packets: u16) -> usize {
    let verdicts = (0..packets).map(|n| site.send(&out(n % 2)));
    let verdicts: Vec<_> = verdicts.map(|v| v.map(|_| ())).collect();
    assert!(verdicts.iter().all(|v| matches!(v, Ok(()) | Err(OVER))));
    verdicts.iter().filter(|v| v.is_ok()).count()
}

fn of_endpoint(edit: impl FnOnce(&mut EndpointConfig)) -> LinkFunctions {
    let mut functions = LinkFunctions::default();
    let mut own = endpoint(EndpointType::Simple);
    own.local = true;
    edit(&mut own);
    functions.endpoints.insert(ip("10.0.0.1"), own);
    functions
}

#[test]
fn link_endpoint_and_class_each_have_a_rate() {
    let link = LinkFunctions {
        rate: bucket(),
        ..LinkFunctions::default()
    };
    let mut of_class = of_endpoint(|e| e.class = Some(7));
    of_class.classes = vec![Arc::new(QosClass {
        bucket: bucket(),
        ..class(7, None)
    })];
    for functions in [link, of_endpoint(|e| e.rate = bucket()), of_class] {
        let mut site = site(functions);
        assert_eq!(passing(&site, 8), 3);
        // 120 ms are two packets.
        site.world.now = Now(site.world.now.0 + 120_000_000);
        assert_eq!(passing(&site, 8), 2);
        // Ingress has its own rate limits.
        for _ in 0..8 {
            site.hear(HOST_B, &back(0), &plain()).unwrap();
        }
    }
}

#[test]
fn the_way_in_is_held_to_its_own_rates() {
    let link = LinkFunctions {
        rate_ingress: bucket(),
        ..LinkFunctions::default()
    };
    let mut of_class = of_endpoint(|e| e.class = Some(7));
    of_class.classes = vec![Arc::new(QosClass {
        ingress: bucket(),
        ..class(7, None)
    })];
    for functions in [link, of_class] {
        let site = site(functions);
        let heard: Vec<_> = (0..8)
            .map(|n| site.hear(HOST_B, &back(n % 2), &plain()).is_ok())
            .collect();
        assert_eq!(heard.iter().filter(|&&passed| passed).count(), 3);
        for _ in 0..8 {
            site.send(&out(9)).unwrap();
        }
    }
}

#[test]
fn what_passes_a_class_and_what_does_not_is_counted() {
    let mut functions = of_endpoint(|e| e.class = Some(7));
    let seven = Arc::new(QosClass {
        bucket: bucket(),
        ..class(7, None)
    });
    functions.classes = vec![Arc::clone(&seven)];
    let site = site(functions);
    passing(&site, 8);
    let tallied = seven.tally.read();
    assert_eq!((tallied.passed, tallied.refused), (180, 300));
}

#[test]
fn a_class_is_told_to_the_underlay_and_to_the_receiver() {
    let mut functions = of_endpoint(|e| e.class = Some(7));
    // AF13: the highest drop precedence of its class.
    functions.classes = vec![Arc::new(class(7, Some(14)))];
    let went = site(functions.clone()).send(&out(1)).unwrap();
    let said = went.options().class.unwrap();
    assert_eq!((said.class, said.drop_precedence), (7, 2));
    assert_eq!(went.forward().outer.tos, 14 << 2);
    // The class does not set the ECN bits.
    let marked = udp("10.0.0.1", "10.0.0.2", (2, 53), 0x02);
    let went = site(functions).send(&marked).unwrap();
    assert_eq!(went.forward().outer.tos, 14 << 2 | 2);
}

#[test]
fn a_receiver_applies_its_own_class_of_that_id() {
    let options = |class, drop_precedence| SentOptions {
        class: Some(ClassOption {
            class,
            drop_precedence,
        }),
        ..SentOptions::default()
    };
    let functions = LinkFunctions {
        classes: vec![Arc::new(QosClass {
            ingress: bucket(),
            ..class(7, Some(46))
        })],
        ..LinkFunctions::default()
    };
    let heard = |options: &SentOptions| {
        let mut functions = functions.clone();
        functions.classes = vec![Arc::new(QosClass {
            ingress: bucket(),
            ..class(7, Some(46))
        })];
        let site = site(functions);
        let passed = (0..8)
            .filter(|_| site.hear(HOST_B, &back(1), options).is_ok())
            .count();
        (passed, site)
    };
    let (passed, site) = heard(&options(7, 0));
    assert_eq!(passed, 3);
    // Its replies get the class, with this host's configuration of it.
    let reply = site.send(&out(1)).unwrap();
    assert_eq!(reply.options().class.unwrap().class, 7);
    assert_eq!(reply.forward().outer.tos, 46 << 2);
    // Packets with a high drop precedence get less of the burst.
    assert_eq!(heard(&options(7, 2)).0, 1);
    // A class that is not configured on this host is ignored.
    let (passed, site) = heard(&options(8, 0));
    assert_eq!(
        (passed, site.send(&out(1)).unwrap().options().class),
        (8, None)
    );
}

#[test]
fn a_packet_that_one_rate_refuses_is_not_charged_to_another() {
    let mut functions = of_endpoint(|e| e.rate = bucket());
    functions.rate = Some(Arc::new(Bucket::new(1000, 300)));
    let site = site(functions);
    assert_eq!(passing(&site, 20), 3);
    // Tokens that the endpoint did not use are left for others.
    let other = |n| {
        site.send(&udp("172.16.0.1", "10.0.0.2", (n, 53), 0))
            .is_ok()
    };
    assert_eq!((0..8).filter(|&n| other(n)).count(), 2);
}
