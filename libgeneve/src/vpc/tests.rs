use super::*;
use crate::flow::FlowHasher;

fn ip(addr: &str) -> IpAddr {
    addr.parse().unwrap()
}

fn config(index: u32, vni: u32, hosts: &[&str]) -> LinkConfig {
    LinkConfig {
        index: LinkIndex(index),
        encapsulation: Default::default(),
        inner: Default::default(),
        lladdr: Default::default(),
        neighbors: Default::default(),
        vni: Vni::new(vni).unwrap(),
        port: 6081,
        local: None,
        ttl: Ttl::default(),
        tos: Tos::default(),
        df: Df::default(),
        udp6_zero_csum_rx: false,
        mtu: 1464,
        addresses: vec![ip("10.0.0.1")],
        broadcasts: Vec::new(),
        allowed: Vec::new(),
        undelivered: Default::default(),
        routes: vec![RouteConfig {
            prefix: "10.0.0.0/24".parse().unwrap(),
            hosts: hosts.iter().map(|host| ip(host)).collect(),
            origin: RouteOrigin::Route,
            kind: EndpointType::Simple,
            local: false,
        }],
        functions: LinkFunctions::default(),
        bridge: None,
    }
}

#[test]
fn a_link_knows_each_host_once() {
    let mut registry = HostRegistry::default();
    let mut config = config(0, 1, &["192.0.2.9", "192.0.2.2", "2001:db8::1"]);
    config.routes.push(RouteConfig {
        prefix: "10.9.0.0/16".parse().unwrap(),
        hosts: vec![ip("192.0.2.2")],
        origin: RouteOrigin::Endpoint,
        kind: EndpointType::Simple,
        local: false,
    });
    let link = Link::new(config, &mut registry);
    let known: Vec<_> = link.hosts().iter().map(|host| host.addr).collect();
    assert_eq!(known, [ip("192.0.2.2"), ip("192.0.2.9"), ip("2001:db8::1")]);
    assert!(known.iter().all(|&addr| link.host(addr).is_some()));
    assert!(link.host(ip("192.0.2.3")).is_none());
}

#[test]
fn what_a_host_taught_survives_a_change_of_configuration() {
    let mut registry = HostRegistry::default();
    let before = Link::new(config(0, 1, &["192.0.2.2"]), &mut registry);
    let host = before.host(ip("192.0.2.2")).unwrap();
    assert!(host.gso() && host.path_mtu().is_none());
    host.set_path_mtu(Some(1400));
    host.set_gso(false);
    let after = Link::new(config(0, 1, &["192.0.2.3", "192.0.2.2"]), &mut registry);
    let host = after.host(ip("192.0.2.2")).unwrap();
    assert_eq!((host.path_mtu(), host.gso()), (Some(1400), false));
    assert_ne!(host.id, after.host(ip("192.0.2.3")).unwrap().id);
    host.set_path_mtu(None);
    assert!(host.path_mtu().is_none());
}

#[test]
fn hosts_that_nobody_names_are_forgotten() {
    let mut registry = HostRegistry::default();
    let first = Link::new(config(0, 1, &["192.0.2.2"]), &mut registry);
    let second = Link::new(config(1, 2, &["192.0.2.3"]), &mut registry);
    drop(first);
    registry.prune();
    assert!(registry.find(ip("192.0.2.2")).is_none());
    assert_eq!(registry.iter().count(), 1);
    // A new host does not get the ID of one whose packets may still be in flight.
    let kept = second.host(ip("192.0.2.3")).unwrap().id;
    assert_ne!(registry.host(ip("192.0.2.4")).id, kept);
}

#[test]
fn tables_find_links_by_place_and_by_vni() {
    let mut registry = HostRegistry::default();
    let links = [(4, 7), (1, 9)]
        .map(|(index, vni)| Arc::new(Link::new(config(index, vni, &["192.0.2.2"]), &mut registry)));
    let tables = Tables::new(links, FlowHasher::default());
    let vni = |id| Vni::new(id).unwrap();
    assert_eq!(
        tables.by_vni(6081, vni(7)).unwrap().config.index,
        LinkIndex(4)
    );
    assert!(tables.by_vni(6082, vni(7)).is_none() && tables.by_vni(6081, vni(8)).is_none());
    for gone in [0, 2, 3, 5, u32::MAX] {
        assert!(tables.link(LinkIndex(gone)).is_none(), "{gone}");
    }
    let order: Vec<_> = tables.iter().map(|link| link.config.index.0).collect();
    assert_eq!(order, [1, 4]);
}

#[test]
fn a_link_keeps_away_from_hosts_from_which_packets_come_back() {
    let mut registry = HostRegistry::default();
    let link = Link::new(config(0, 1, &["192.0.2.2", "192.0.2.3"]), &mut registry);
    assert!(!link.loops_to(link.host(ip("192.0.2.2")).unwrap()));
    let link = link.excluding_loops(|host| host == ip("192.0.2.2"));
    assert!(link.loops_to(link.host(ip("192.0.2.2")).unwrap()));
    assert!(!link.loops_to(link.host(ip("192.0.2.3")).unwrap()));
}
