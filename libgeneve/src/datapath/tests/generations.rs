//! Which flows are decided again after a change: a rule counts each flow that it decides.

use super::support::*;
use super::*;
use crate::policy::{Direction, PolicyAction};

fn two_links() -> TestHost {
    let mut ruled = vpc(LOCAL_HOST, 0, RED);
    let allowing = rule("all", Direction::Egress, PolicyAction::Allow);
    ruled.functions.policy = policy(PolicyAction::Deny, PolicyAction::Deny, vec![allowing]);
    TestHost::new(LOCAL_HOST, vec![ruled, vpc(LOCAL_HOST, 1, BLUE)])
}

fn to(addr: &str) -> Vec<u8> {
    udp("10.0.0.1", addr, (1000, 80), 0)
}

fn moved(site: &mut TestHost, addr: &str, host: &str) {
    site.change(|configs| {
        let prefix = format!("{addr}/32").parse().unwrap();
        let mut routes = configs[0].routes.iter_mut();
        let route = routes.find(|route| route.prefix == prefix).unwrap();
        route.hosts = vec![ip(host)];
    });
}

#[test]
fn another_link_is_no_reason_to_decide_again() {
    let mut site = two_links();
    site.send(&to("10.0.0.2")).unwrap();
    site.change(|configs| configs[1].mtu = 1300);
    site.change(|configs| drop(configs.pop()));
    site.send(&to("10.0.0.2")).unwrap();
    assert_eq!(hits(&site, "all"), 1);
    site.change(|configs| configs[0].mtu = 1300);
    site.send(&to("10.0.0.2")).unwrap();
    assert_eq!(hits(&site, "all"), 2);
}

#[test]
fn an_endpoint_that_moves_concerns_its_own_flows() {
    let mut site = two_links();
    for addr in ["10.0.0.2", "10.0.0.3"] {
        site.send(&to(addr)).unwrap();
    }
    moved(&mut site, "10.0.0.3", HOST_B);
    assert_eq!(site.send(&to("10.0.0.2")).unwrap().host(), ip(HOST_B));
    assert_eq!(hits(&site, "all"), 2);
    assert_eq!(site.send(&to("10.0.0.3")).unwrap().host(), ip(HOST_B));
    assert_eq!(hits(&site, "all"), 3);
}

#[test]
fn a_flow_that_slept_through_many_changes_misses_none() {
    let mut site = two_links();
    assert_eq!(site.send(&to("10.0.0.3")).unwrap().host(), ip(HOST_C));
    moved(&mut site, "10.0.0.3", HOST_B);
    for _ in 0..300 {
        moved(&mut site, "10.0.0.2", HOST_C);
        moved(&mut site, "10.0.0.2", HOST_B);
    }
    assert_eq!(site.send(&to("10.0.0.3")).unwrap().host(), ip(HOST_B));
}

#[test]
fn a_rule_that_changes_concerns_every_flow_of_its_link() {
    let mut site = two_links();
    site.send(&to("10.0.0.2")).unwrap();
    site.functions(|f| f.policy = policy(PolicyAction::Deny, PolicyAction::Deny, Vec::new()));
    let refused = site.send(&to("10.0.0.2")).unwrap_err();
    assert_eq!(refused, DropReason::PolicyDenied);
    site.functions(|f| f.policy = None);
    site.send(&to("10.0.0.2")).unwrap();
}

#[test]
fn what_was_refused_is_asked_again_after_any_change_of_its_link() {
    let mut site = two_links();
    let web = || {
        let mut labelled = endpoint(EndpointType::Simple);
        labelled.labels = Some(labels("app=web"));
        labelled
    };
    let mut allowing = rule("web", Direction::Egress, PolicyAction::Allow);
    allowing.to = crate::policy::RulePeer::Selector("app=web".parse().unwrap());
    site.functions(|f| f.policy = policy(PolicyAction::Deny, PolicyAction::Deny, vec![allowing]));
    site.send(&to("10.0.0.2")).unwrap_err();
    site.functions(|f| drop(f.endpoints.insert(ip("10.0.0.2"), web())));
    site.send(&to("10.0.0.2")).unwrap();
    site.functions(|f| drop(f.endpoints.remove(&ip("10.0.0.2"))));
    site.send(&to("10.0.0.2")).unwrap_err();
}

#[test]
fn a_worker_with_older_tables_decides_again() {
    let mut site = two_links();
    let epoch = site.world.tables.epoch;
    site.change(|configs| configs[1].mtu = 1300);
    let of = |epoch| site.world.tables.is_current(LinkIndex(0), epoch, |_| true);
    assert!(of(epoch) && of(epoch + 1) && !of(epoch + 2));
    assert!(!site.world.tables.is_current(LinkIndex(7), epoch, |_| true));
}

#[test]
fn other_options_concern_everybody() {
    let site = two_links();
    let (tables, epoch) = (&site.world.tables, site.world.tables.epoch);
    let schema = Arc::new(crate::options::OptionSchema::new(OptionClass(7), Vec::new()).unwrap());
    let other = tables.next(epoch + 1, schema, []);
    assert!(!other.is_current(LinkIndex(0), epoch, |_| false));
    let again = tables.again(epoch + 1, &[LinkIndex(1)]);
    assert!(again.is_current(LinkIndex(0), epoch, |_| true));
    assert!(!again.is_current(LinkIndex(1), epoch, |_| false));
}
