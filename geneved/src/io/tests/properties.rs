//! Property tests with arbitrary input, faults, and order of completions.

use std::collections::HashMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::io::simulation::REMOTE_HOSTS;

const IP: SimulatedLink = SimulatedLink::Ip;
const RATED: SimulatedLink = SimulatedLink::Rated;

/// One step of a test case.
#[derive(Clone, Debug)]
enum Step {
    /// A flow sends this many segments from here, at once.
    Out(u16, u32),
    /// The same on the rate-limited link.
    OutRated(u16, u32),
    /// A flow sends this many segments to here, in a train.
    In(u16, u32),
    FailSend(InjectedFault),
    FailWrite(InjectedFault),
    FailDirect(InjectedFault),
    /// Whether the underlay refuses trains from now on.
    RefuseTrains(bool),
    Pass(Duration),
    Turn,
}

fn fault() -> impl Strategy<Value = InjectedFault> {
    let errno = prop_oneof![
        Just(libc::EIO),
        Just(libc::EINVAL),
        Just(libc::EAGAIN),
        Just(libc::EMSGSIZE),
        Just(libc::ENOBUFS),
        Just(libc::ECONNREFUSED),
        Just(libc::EBUSY),
    ];
    prop_oneof![
        4 => errno.prop_map(InjectedFault::Errno),
        1 => Just(InjectedFault::Short),
    ]
}

/// Generates steps without faults.
fn sound_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6_u16, 1..60_u32).prop_map(|(flow, count)| Step::Out(flow, count)),
        2 => (0..6_u16, 1..30_u32).prop_map(|(flow, count)| Step::OutRated(flow, count)),
        6 => (0..6_u16, 1..60_u32).prop_map(|(flow, count)| Step::In(flow, count)),
        1 => (0..50_u64).prop_map(|millis| Step::Pass(Duration::from_millis(millis))),
        3 => Just(Step::Turn),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => sound_step(),
        1 => fault().prop_map(Step::FailSend),
        1 => fault().prop_map(Step::FailWrite),
        1 => fault().prop_map(Step::FailDirect),
        1 => any::<bool>().prop_map(Step::RefuseTrains),
    ]
}

/// Segments sent so far by link and direction, and the next number of each flow.
#[derive(Default)]
struct Traffic {
    numbers: HashMap<(u32, bool, u16), u32>,
    segments: u64,
}

impl Traffic {
    fn next(&mut self, link: SimulatedLink, outward: bool, flow: u16, count: u32) -> Segments {
        let key = (link.index().0, outward, flow);
        let number = self.numbers.entry(key).or_default();
        let first = *number;
        *number += count;
        self.segments += u64::from(count);
        // Flows with an odd half are TCP; flows of either protocol go to each host.
        match flow / 2 % 2 {
            0 => Segments::udp(flow, first, count),
            _ => Segments::tcp(flow, first, count),
        }
    }

    fn take(&mut self, simulation: &mut Simulation, step: &Step) {
        match *step {
            Step::Out(flow, count) => {
                let segments = self.next(IP, true, flow, count);
                simulation.feed_tun(IP, segments.as_tun_read());
            }
            Step::OutRated(flow, count) => {
                let segments = self.next(RATED, true, flow, count);
                simulation.feed_tun(RATED, segments.as_tun_read());
            }
            Step::In(flow, count) => {
                let (segment, bytes) = self.next(IP, false, flow, count).as_train(IP);
                let host = REMOTE_HOSTS[usize::from(flow % 2)];
                simulation.feed_socket(host, segment, bytes);
            }
            Step::FailSend(fault) => simulation.faults().sends.push_back(Some(fault)),
            Step::FailWrite(fault) => simulation.faults().writes.push_back(Some(fault)),
            Step::FailDirect(fault) => simulation.faults().direct.push_back(Some(fault)),
            Step::RefuseTrains(all) => simulation.faults().trains = all.then_some(libc::EIO),
            Step::Pass(time) => simulation.advance(time),
            Step::Turn => simulation.turn(),
        }
    }
}

/// A segment that came out, and whether it was sent again or by itself.
type Out = ((u32, bool, u16), u32, bool);

/// Takes all segments that came out, in order.
fn came_out(simulation: &mut Simulation) -> Vec<Out> {
    let mut all = Vec::new();
    for datagram in simulation.take_sent() {
        let geneve = Geneve::parse(&datagram.payload).unwrap();
        let link = geneve.vni().value() - 100;
        for (flow, number) in stamps(geneve.payload()) {
            all.push(((link, true, flow), number, datagram.direct));
        }
    }
    for (flow, number) in written_stamps(simulation, IP) {
        all.push(((IP.index().0, false, flow), number, false));
    }
    all
}

/// Checks that, by the worker's counters, every segment came out once or was dropped once.
fn assert_accounted(simulation: &Simulation, traffic: &Traffic, out: &[Out]) {
    let mut seen: Vec<_> = out
        .iter()
        .map(|&(flow, number, _)| (flow, number))
        .collect();
    let forwarded = seen.len() as u64;
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len() as u64, forwarded, "something came out twice");
    let sum = simulation.all_counters();
    let dropped: u64 = drops(&sum).iter().map(|&(.., count)| count).sum();
    assert_eq!(sum.tx_packets + sum.rx_packets, forwarded);
    assert_eq!(forwarded + dropped, traffic.segments);
}

fn assert_in_order(out: impl Iterator<Item = Out>) {
    let mut latest: HashMap<(u32, bool, u16), u32> = HashMap::new();
    for (flow, number, _) in out {
        if let Some(before) = latest.insert(flow, number) {
            assert!(
                before < number,
                "{number} came out after {before} of {flow:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 96 }))]

    #[test]
    fn with_faults_every_buffer_comes_back_and_every_packet_ends_once(
        steps in vec(step(), 1..60),
        disorder in any::<Option<u64>>(),
        tunnel_gso in any::<bool>(),
    ) {
        let mut simulation = Simulation::new(tunnel_gso);
        simulation.set_disorder(disorder);
        let mut traffic = Traffic::default();
        steps.iter().for_each(|step| traffic.take(&mut simulation, step));
        simulation.drain();
        let out = came_out(&mut simulation);
        assert_accounted(&simulation, &traffic, &out);
        // Only segments that are sent again after a refusal may be late.
        assert_in_order(out.into_iter().filter(|&(.., direct)| !direct));
    }

    #[test]
    fn without_faults_nothing_is_overtaken_or_lost_but_to_rates(
        steps in vec(sound_step(), 1..60),
        disorder in any::<Option<u64>>(),
    ) {
        let mut simulation = Simulation::new(false);
        simulation.set_disorder(disorder);
        let mut traffic = Traffic::default();
        steps.iter().for_each(|step| traffic.take(&mut simulation, step));
        simulation.drain();
        let out = came_out(&mut simulation);
        assert_accounted(&simulation, &traffic, &out);
        assert_in_order(out.iter().copied());
        let lost = drops(&simulation.all_counters());
        assert!(lost.iter().all(|&(_, reason, _)| reason == DropReason::RateExceeded), "{lost:?}");
    }

    #[test]
    fn where_no_trains_are_taken_nothing_is_lost_and_what_is_sent_again_stays_in_order(
        flows in vec((0..6_u16, 1..60_u32), 1..40),
    ) {
        let mut simulation = Simulation::new(false);
        simulation.faults().trains = Some(libc::EIO);
        let mut traffic = Traffic::default();
        for (flow, count) in flows {
            traffic.take(&mut simulation, &Step::Out(flow, count));
        }
        simulation.drain();
        let out = came_out(&mut simulation);
        assert_accounted(&simulation, &traffic, &out);
        // Until the host is known to take no trains, a single datagram that was queued behind a refused train
        // overtakes it.
        for again in [false, true] {
            assert_in_order(out.iter().copied().filter(|&(.., direct)| direct == again));
        }
        assert_eq!(out.len() as u64, traffic.segments);
    }
}
