use super::*;

fn ip(addr: &str) -> IpAddr {
    addr.parse().unwrap()
}

fn backend(addr: &str) -> Backend {
    Backend {
        addr: ip(addr),
        port: None,
        weight: 1,
        healthy: true,
    }
}

fn web(backends: Vec<Backend>) -> ServiceConfig {
    ServiceConfig {
        name: "web".into(),
        vip: ip("10.0.0.100"),
        protocol: TCP,
        port: 80,
        backends,
        affinity: Affinity::None,
    }
}

fn three() -> Vec<Backend> {
    ["10.0.1.1", "10.0.1.2", "10.0.1.3"].map(backend).to_vec()
}

fn compile(config: ServiceConfig) -> Result<ServiceTable, ServiceError> {
    ServiceTable::new([config], None)
}

fn picks(config: &ServiceConfig) -> Vec<Option<IpAddr>> {
    let service = Service::new(config.clone());
    let addr = |port| service.pick(ip("10.0.9.9"), port).map(|(_, b)| b.addr);
    (1000..4000).map(addr).collect()
}

fn count(picks: &[Option<IpAddr>], addr: &str) -> usize {
    picks.iter().filter(|pick| **pick == Some(ip(addr))).count()
}

#[test]
fn a_service_is_found_by_address_protocol_and_port_alone() {
    let services = compile(web(three())).unwrap();
    let vip = ip("10.0.0.100");
    assert_eq!(services.find(vip, TCP, 80).unwrap().config.name, "web");
    assert!(services.find(vip, UDP, 80).is_none() && services.find(vip, TCP, 81).is_none());
    assert!(services.find(ip("10.0.1.1"), TCP, 80).is_none());
    assert!(services.by_vip(vip) && !services.by_vip(ip("10.0.1.1")));
    let none = ServiceTable::default();
    assert!(none.is_empty() && none.find(vip, TCP, 80).is_none() && !none.by_vip(vip));
}

#[test]
fn flows_spread_over_backends_and_stay_where_they_are_when_one_drains() {
    let before = picks(&web(three()));
    for addr in ["10.0.1.1", "10.0.1.2", "10.0.1.3"] {
        assert!((850..1150).contains(&count(&before, addr)), "{addr}");
    }
    let mut backends = three();
    backends[1].weight = 0;
    let after = picks(&web(backends));
    assert_eq!(count(&after, "10.0.1.2"), 0);
    let stayed = |(old, new): &(&Option<IpAddr>, &Option<IpAddr>)| old == new;
    let same = before.iter().zip(&after).filter(stayed).count();
    assert!(same >= 3000 - count(&before, "10.0.1.2") - 30, "{same}");
}

#[test]
fn a_drained_backend_keeps_its_flows_and_an_unhealthy_one_does_not() {
    let mut backends = three();
    backends[0].weight = 0;
    backends[1].healthy = false;
    backends[2].port = Some(8080);
    let service = Service::new(web(backends));
    assert!(service.keeps(ip("10.0.1.1"), 80));
    assert!(!service.keeps(ip("10.0.1.2"), 80));
    assert!(service.keeps(ip("10.0.1.3"), 8080) && !service.keeps(ip("10.0.1.3"), 80));
    assert!(!service.keeps(ip("10.0.1.4"), 80));
    let (index, only) = service.pick(ip("10.0.9.9"), 1).unwrap();
    assert_eq!((index, only.addr), (2, ip("10.0.1.3")));
}

#[test]
fn without_a_backend_for_new_flows_nothing_is_picked() {
    let mut backends = three();
    backends[0].weight = 0;
    backends[1].healthy = false;
    backends[2].healthy = false;
    for backends in [backends, Vec::new()] {
        let service = Service::new(web(backends));
        assert!(!service.available() && service.pick(ip("10.0.9.9"), 1).is_none());
    }
}

#[test]
fn affinity_keeps_a_client_on_one_backend_whatever_its_ports() {
    let mut config = web(three());
    config.affinity = Affinity::Client;
    let own = picks(&config);
    assert!(own.iter().all(|pick| *pick == own[0]));
    // A service with the same backends puts the client on the same backend.
    let mut tls = config.clone();
    tls.vip = ip("10.0.0.101");
    assert_eq!(picks(&tls), own);
    let service = Service::new(config);
    let clients = (0..64u8).map(|n| service.pick(IpAddr::from([10, 0, 8, n]), 5).unwrap().0);
    assert_eq!(clients.collect::<HashSet<_>>().len(), 3);
}

#[test]
fn what_contradicts_itself_or_another_is_refused_by_name() {
    let second = ServiceConfig {
        name: "other".into(),
        ..web(Vec::new())
    };
    let error = ServiceTable::new([web(three()), second.clone()], None).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("web") && text.contains("other") && text.contains("10.0.0.100"));
    let renamed = ServiceConfig {
        port: 81,
        ..web(Vec::new())
    };
    assert!(matches!(
        ServiceTable::new([web(three()), renamed], None),
        Err(ServiceError::Name(_))
    ));

    type SpoilConfig = fn(&mut ServiceConfig);
    let spoilt: [(SpoilConfig, &str); 8] = [
        (|c| c.port = 0, "need a port"),
        (|c| c.backends[0].port = Some(0), "need a port"),
        (|c| c.protocol = 1, "only TCP and UDP"),
        (
            |c| (c.protocol, c.port, c.backends[0].port) = (1, 0, Some(9)),
            "only TCP and UDP",
        ),
        (
            |c| c.backends[1].addr = "2001:db8::1".parse().unwrap(),
            "family",
        ),
        (|c| c.backends[1].addr = c.vip, "its own"),
        (
            |c| {
                c.backends[1] = Backend {
                    port: Some(80),
                    ..c.backends[0]
                }
            },
            "twice",
        ),
        (
            |c| c.backends = vec![c.backends[0]; MAX_MEMBERS + 1],
            "513 backends",
        ),
    ];
    for (spoil, says) in spoilt {
        let mut config = web(three());
        spoil(&mut config);
        let text = compile(config).unwrap_err().to_string();
        assert!(text.contains(says) && text.contains("web"), "{text}");
    }
}

#[test]
fn what_did_not_change_is_not_built_again() {
    let other = ServiceConfig {
        name: "dns".into(),
        protocol: UDP,
        port: 53,
        ..web(three())
    };
    let before = ServiceTable::new([web(three()), other.clone()], None).unwrap();
    let mut changed = web(three());
    changed.backends[0].healthy = false;
    let after = ServiceTable::new([changed, other], Some(&before)).unwrap();
    let same = |protocol, port| {
        let find = |services: &ServiceTable| {
            let found = services.find(ip("10.0.0.100"), protocol, port);
            Arc::clone(found.unwrap())
        };
        Arc::ptr_eq(&find(&before), &find(&after))
    };
    assert!(same(UDP, 53) && !same(TCP, 80));
    assert_eq!(after.iter().count(), 2);
}
