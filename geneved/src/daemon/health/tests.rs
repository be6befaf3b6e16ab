use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

use super::*;

fn quick() -> CheckTiming {
    CheckTiming {
        interval: "0.05".parse().unwrap(),
        timeout: "0.5".parse().unwrap(),
        ..CheckTiming::default()
    }
}

fn tcp(port: u16) -> CheckTarget {
    CheckTarget {
        link: "lo".into(),
        netns: None,
        addr: Ipv4Addr::LOCALHOST.into(),
        port: Some(port),
        check: CheckValue::Tcp,
        pace: quick(),
    }
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn next(changes: &mut mpsc::Receiver<HealthChange>) -> HealthChange {
    let change = tokio::time::timeout(Duration::from_secs(20), changes.recv());
    change.await.expect("a change in time").unwrap()
}

#[tokio::test]
async fn a_backend_goes_up_and_down_with_its_listener() {
    let (mut board, mut changes) = HealthBoard::new();
    let (listener, port) = listener();
    assert_eq!(board.state(&tcp(port)), CheckedHealth::Unknown);
    board.watch([tcp(port)]);
    let up = next(&mut changes).await;
    assert_eq!((up.target, up.health), (tcp(port), CheckedHealth::Up));
    assert_eq!(board.state(&tcp(port)), CheckedHealth::Up);
    drop(listener);
    let down = next(&mut changes).await;
    assert_eq!(
        down.health,
        CheckedHealth::Down("connection refused".into())
    );
    assert_eq!(board.state(&tcp(port)), down.health);
    let _again = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    assert_eq!(next(&mut changes).await.health, CheckedHealth::Up);
}

#[tokio::test]
async fn who_stays_keeps_what_is_known_and_who_leaves_is_forgotten() {
    let (mut board, mut changes) = HealthBoard::new();
    let (first, second) = (listener(), listener());
    let (first, second) = (tcp(first.1), tcp(second.1));
    board.watch([first.clone()]);
    assert_eq!(next(&mut changes).await.target, first);
    board.watch([first.clone(), second.clone()]);
    assert_ne!(board.state(&first), CheckedHealth::Unknown);
    assert_eq!(next(&mut changes).await.target, second);
    board.watch([second.clone()]);
    assert_eq!(board.state(&first), CheckedHealth::Unknown);
    assert_ne!(board.state(&second), CheckedHealth::Unknown);
    board.watch([]);
    assert_eq!(board.state(&second), CheckedHealth::Unknown);
    assert!(board.checkers.is_empty());
}

#[tokio::test]
async fn what_cannot_be_checked_stays_unknown() {
    let (mut board, mut changes) = HealthBoard::new();
    let unchecked = CheckTarget {
        check: CheckValue::None,
        ..tcp(1)
    };
    let without_port = CheckTarget {
        port: None,
        ..tcp(1)
    };
    let no_netns = CheckTarget {
        netns: Some("no-such-namespace".into()),
        ..tcp(1)
    };
    let no_link = CheckTarget {
        link: "no-such-link".into(),
        addr: "192.0.2.1".parse().unwrap(),
        ..tcp(1)
    };
    let all = [unchecked, without_port, no_netns, no_link];
    for _ in 0..2 {
        board.watch(all.clone());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(changes.try_recv().is_err());
    for target in &all {
        assert_eq!(board.state(target), CheckedHealth::Unknown, "{target:?}");
    }
}

#[tokio::test]
async fn an_echo_is_answered_in_both_families() {
    let loopback = |addr| CheckTarget {
        addr,
        port: None,
        check: CheckValue::Icmp,
        ..tcp(1)
    };
    for addr in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        match probe::probe(&loopback(addr), Duration::from_secs(2)).await {
            ProbeOutcome::Answered => {}
            ProbeOutcome::Failed(why) => panic!("{addr}: {why}"),
            ProbeOutcome::Untested(error) => println!("{addr} not tested here: {error}"),
        }
    }
}
