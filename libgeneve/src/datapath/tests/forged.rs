//! What packets in another's name, and flows that are over, cannot do.

use super::support::*;
use super::*;
use crate::flow;

const A: &str = "10.0.0.1";
const FAR: &str = "10.0.0.2";

/// The state of the only flow, and its packets.
fn flow_of(site: &Site) -> (flow::State, [u64; 2]) {
    let mut found = None;
    let world = &site.world;
    world.state.flows.for_each(world.now, |flow| {
        found = Some((flow.state, flow.packets));
    });
    found.expect("one flow")
}

#[test]
fn a_reset_in_anothers_name_is_not_counted_and_closes_nothing() {
    let site = site(Functions::default());
    let to_here = |flags| tcp(FAR, A, (1000, 80), flags);
    site.hear(B, &to_here(SYN), &plain()).unwrap();
    site.send(&tcp(A, FAR, (80, 1000), SYN_ACK)).unwrap();
    site.hear(B, &to_here(ACK), &plain()).unwrap();
    let before = flow_of(&site);
    assert_eq!(before, (flow::State::Established, [2, 1]));
    let forged = site.hear(C, &to_here(TcpFlags::RST), &plain());
    assert_eq!(forged.unwrap_err(), DropReason::SourceMismatch);
    assert_eq!(flow_of(&site), before);
}

#[test]
fn the_packet_for_which_a_flow_is_decided_again_is_counted() {
    let mut site = site(Functions::default());
    let bytes = tcp(A, FAR, (80, 1000), SYN);
    site.send(&bytes).unwrap();
    site.functions(|_| ());
    site.hear(B, &tcp(FAR, A, (1000, 80), SYN_ACK), &plain())
        .unwrap();
    assert_eq!(flow_of(&site), (flow::State::SynReceived, [1, 1]));
    site.functions(|_| ());
    site.send(&tcp(A, FAR, (80, 1000), ACK)).unwrap();
    assert_eq!(flow_of(&site), (flow::State::Established, [2, 1]));
}

#[test]
fn a_first_fragment_in_anothers_name_leads_no_later_one_astray() {
    let site = site(Functions::default());
    let [first, later] = fragments(&udp(FAR, A, (1000, 53), 0), 9);
    let [forged, _] = fragments(&udp(FAR, A, (1000, 666), 0), 9);
    site.hear(B, &first, &plain()).unwrap();
    let heard = site.hear(C, &forged, &plain());
    assert_eq!(heard.unwrap_err(), DropReason::SourceMismatch);
    site.hear(B, &later, &plain()).unwrap();
    assert_eq!((site.flows(), flow_of(&site).1), (1, [2, 0]));
}

#[test]
fn a_flow_that_ended_between_two_turns_is_decided_anew() {
    let site = site(Functions::default());
    let (link, mut egress) = (site.link(0), Egress::default());
    let bytes = udp(A, FAR, (1, 2), 0);
    for _ in 0..2 {
        site.send_with(&mut egress, &link, &bytes).unwrap();
        egress.settle(&site.world.cx());
        assert_eq!(site.flows(), 1);
        site.world.state.flows.flush(|_| true);
    }
}
