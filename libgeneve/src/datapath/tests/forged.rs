//! Forged packets, and packets of expired flows, have no effect.

use super::support::*;
use super::*;
use crate::flow;

const INNER_A: &str = "10.0.0.1";
const INNER_FAR: &str = "10.0.0.2";

/// Returns the state and packet counts of the only flow.
fn flow_of(site: &TestHost) -> (flow::FlowState, [u64; 2]) {
    let mut found = None;
    let world = &site.world;
    world.state.flows.for_each(world.now, |flow| {
        found = Some((flow.state, flow.packets));
    });
    found.expect("one flow")
}

#[test]
fn a_reset_in_anothers_name_is_not_counted_and_closes_nothing() {
    let site = site(LinkFunctions::default());
    let to_here = |flags| tcp(INNER_FAR, INNER_A, (1000, 80), flags);
    site.hear(HOST_B, &to_here(SYN), &plain()).unwrap();
    site.send(&tcp(INNER_A, INNER_FAR, (80, 1000), SYN_ACK))
        .unwrap();
    site.hear(HOST_B, &to_here(ACK), &plain()).unwrap();
    let before = flow_of(&site);
    assert_eq!(before, (flow::FlowState::Established, [2, 1]));
    let forged = site.hear(HOST_C, &to_here(TcpFlags::RST), &plain());
    assert_eq!(forged.unwrap_err(), DropReason::SourceMismatch);
    assert_eq!(flow_of(&site), before);
}

#[test]
fn the_packet_for_which_a_flow_is_decided_again_is_counted() {
    let mut site = site(LinkFunctions::default());
    let bytes = tcp(INNER_A, INNER_FAR, (80, 1000), SYN);
    site.send(&bytes).unwrap();
    site.functions(|_| ());
    site.hear(
        HOST_B,
        &tcp(INNER_FAR, INNER_A, (1000, 80), SYN_ACK),
        &plain(),
    )
    .unwrap();
    assert_eq!(flow_of(&site), (flow::FlowState::SynReceived, [1, 1]));
    site.functions(|_| ());
    site.send(&tcp(INNER_A, INNER_FAR, (80, 1000), ACK))
        .unwrap();
    assert_eq!(flow_of(&site), (flow::FlowState::Established, [2, 1]));
}

#[test]
fn a_first_fragment_in_anothers_name_leads_no_later_one_astray() {
    let site = site(LinkFunctions::default());
    let [first, later] = fragments(&udp(INNER_FAR, INNER_A, (1000, 53), 0), 9);
    let [forged, _] = fragments(&udp(INNER_FAR, INNER_A, (1000, 666), 0), 9);
    site.hear(HOST_B, &first, &plain()).unwrap();
    let heard = site.hear(HOST_C, &forged, &plain());
    assert_eq!(heard.unwrap_err(), DropReason::SourceMismatch);
    site.hear(HOST_B, &later, &plain()).unwrap();
    assert_eq!((site.flows(), flow_of(&site).1), (1, [2, 0]));
}

#[test]
fn a_flow_that_ended_between_two_turns_is_decided_anew() {
    let site = site(LinkFunctions::default());
    let (link, mut egress) = (site.link(0), Egress::default());
    let bytes = udp(INNER_A, INNER_FAR, (1, 2), 0);
    for _ in 0..2 {
        site.send_with(&mut egress, &link, &bytes).unwrap();
        egress.flush(&site.world.cx());
        assert_eq!(site.flows(), 1);
        site.world.state.flows.flush(|_| true);
    }
}
