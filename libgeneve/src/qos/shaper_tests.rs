use proptest::prelude::*;

use super::*;
use crate::qos::{ClassCounters, QosClass};

const SHAPER_MTU: u32 = 1448;
const SHAPER_SECOND: u64 = 1_000_000_000;
const SHAPER_MS: u64 = 1_000_000;
const PLENTY: QueueCapacity = [4096, 128];

fn meter(buckets: [Option<&Arc<Bucket>>; 3]) -> Arc<Meter> {
    Arc::new(Meter {
        buckets: buckets.map(|bucket| bucket.map(Arc::clone)),
        ..Meter::default()
    })
}

fn bucket(rate: u64, burst: u64) -> Arc<Bucket> {
    Arc::new(Bucket::new(rate, burst))
}

/// A packet: its flow, its number, its length.
type TestPacket = (u32, u64, u32);

/// A shaper with a record of what happened to packets.
struct TestShaper {
    shaper: Shaper<TestPacket>,
    now: u64,
    sent: Vec<(u64, TestPacket)>,
    dropped: Vec<TestPacket>,
    refused: Vec<TestPacket>,
}

impl TestShaper {
    fn new(capacity: QueueCapacity) -> TestShaper {
        TestShaper {
            shaper: Shaper::new(capacity),
            now: SHAPER_SECOND,
            sent: Vec::new(),
            dropped: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Offers a packet as a worker does.
    fn offer(&mut self, meter: &Arc<Meter>, item: TestPacket) -> bool {
        let (flow, _, bytes) = item;
        let metered = Metered {
            meter: Arc::clone(meter),
            flow: flow << 26,
            bytes: bytes.into(),
        };
        let now = Now(self.now);
        if !self.shaper.waits_for(meter) && metered.passes(now) {
            self.sent.push((self.now, item));
            return true;
        }
        loop {
            match self.shaper.admit(&metered, bytes, 0) {
                QueueAdmission::Granted => break,
                QueueAdmission::Evict(item) => self.dropped.push(item),
                QueueAdmission::Refused => {
                    self.refused.push(item);
                    return false;
                }
            }
        }
        let packet = EnqueueRequest {
            bytes,
            cost: bytes,
            ect: false,
            kind: 0,
        };
        self.shaper.push(&metered, packet, now, item);
        true
    }

    /// Sends what may leave now.
    fn serve(&mut self) {
        self.shaper.begin();
        while let Some(Dequeued { item, outcome }) = self.shaper.next(Now(self.now)) {
            match outcome {
                DequeueAction::Drop => self.dropped.push(item),
                _ => self.sent.push((self.now, item)),
            }
        }
    }

    /// Advances time; wakes up at each departure, or late by this much.
    fn run(&mut self, until: u64, late: u64) {
        self.serve();
        while let Some(departure) = self.shaper.departure() {
            assert!(departure.0 > self.now, "a packet that could leave was kept");
            if departure.0 + late > until {
                break;
            }
            self.now = departure.0 + late;
            self.serve();
        }
        self.now = until;
    }

    fn bytes(&self, flow: u32) -> u64 {
        let of = self.sent.iter().filter(|(_, item)| item.0 == flow);
        of.map(|(_, item)| u64::from(item.2)).sum()
    }
}

#[test]
fn what_is_offered_beyond_the_rate_leaves_at_exactly_the_rate() {
    for rate in [125_000, 1_250_000, 62_500_000, 250_000_000] {
        let all = meter([Some(&bucket(rate, Bucket::default_burst(rate))), None, None]);
        let mut line = TestShaper::new(PLENTY);
        let gap = SHAPER_SECOND * u64::from(SHAPER_MTU) / rate / 2;
        for n in 0..SHAPER_SECOND * 2 / gap {
            line.offer(&all, (1, n, SHAPER_MTU));
            line.run(line.now + gap, 0);
        }
        let wanted = 2 * rate + Bucket::default_burst(rate);
        let got = line.bytes(1);
        assert!(
            got.abs_diff(wanted) < wanted / 50,
            "{rate}: {got} of {wanted}"
        );
    }
}

#[test]
fn a_worker_that_is_late_catches_up_within_the_burst() {
    let rate = 1_250_000;
    let all = meter([Some(&bucket(rate, Bucket::default_burst(rate))), None, None]);
    let mut line = TestShaper::new(PLENTY);
    for n in 0..2000 {
        line.offer(&all, (1, n, SHAPER_MTU));
        line.run(line.now + SHAPER_MS, 3 * SHAPER_MS);
    }
    let wanted = 2 * rate + Bucket::default_burst(rate);
    let got = line.bytes(1);
    assert!(
        got > wanted * 95 / 100 && got < wanted * 102 / 100,
        "{got} of {wanted}"
    );
}

#[test]
fn a_flow_that_sends_little_waits_behind_nobody() {
    let rate = 1_250_000;
    let all = meter([Some(&bucket(rate, 3000)), None, None]);
    let mut line = TestShaper::new(PLENTY);
    let mut longest = 0;
    for n in 0..500 {
        for part in 0..4 {
            line.offer(&all, (1, 4 * n + part, SHAPER_MTU));
        }
        if n % 10 == 0 {
            let asked = line.now;
            line.offer(&all, (2, n, 84));
            line.run(line.now + 4 * SHAPER_MS, 0);
            let answered = line.sent.iter().rev().find(|(_, item)| item.0 == 2);
            longest = longest.max(answered.unwrap().0 - asked);
        }
        line.run(line.now + 2 * SHAPER_MS, 0);
    }
    // Time reserved for the packet before it, its own, and at the start that of the other flow's first quantum.
    assert!(longest < 4 * SHAPER_MS, "{longest}");
    assert!(line.shaper.queues[0].flows.bytes > 30_000);
}

#[test]
fn a_class_does_not_hold_up_the_others_of_its_link() {
    let link = bucket(12_500_000, 312_500);
    let slow = meter([Some(&link), None, Some(&bucket(125_000, 3_000))]);
    let free = meter([Some(&link), None, None]);
    let mut line = TestShaper::new(PLENTY);
    for n in 0..1000 {
        line.offer(&slow, (1, n, SHAPER_MTU));
        line.offer(&free, (2, n, SHAPER_MTU));
        line.run(line.now + SHAPER_MS, 0);
        let last = line.sent.iter().rev().find(|(_, item)| item.0 == 2);
        assert_eq!(last.unwrap().1.1, n, "it is far from the rate of the link");
    }
    assert!(line.bytes(1) < 135_000);
}

#[test]
fn two_queues_of_a_link_share_its_rate() {
    let link = bucket(1_250_000, 20_000);
    let [one, other] =
        [(); 2].map(|()| meter([Some(&link), None, Some(&bucket(u64::MAX, 20_000))]));
    let mut line = TestShaper::new(PLENTY);
    for n in 0..3000 {
        line.offer(&one, (1, n, SHAPER_MTU));
        line.offer(&other, (2, n, 200));
        line.offer(&other, (3, n, 1200));
        line.run(line.now + SHAPER_MS, 0);
    }
    let (one, other) = (line.bytes(1), line.bytes(2) + line.bytes(3));
    assert!(one.abs_diff(other) < one / 5, "{one} {other}");
}

#[test]
fn no_queue_takes_all_memory() {
    let mut line = TestShaper::new([100, 0]);
    let meters: Vec<_> = (0..3)
        .map(|_| meter([Some(&bucket(1_000_000_000, 1)), None, None]))
        .collect();
    for meter in &meters {
        for n in 0..200 {
            line.offer(meter, (1, n, 100));
        }
    }
    let waiting: Vec<_> = line.shaper.queues.iter().map(|q| q.packets[0]).collect();
    assert_eq!(waiting, [50, 25, 13]);
}

#[test]
fn who_takes_the_most_room_makes_room() {
    let all = meter([Some(&bucket(1_250_000, 1)), None, None]);
    let mut line = TestShaper::new(PLENTY);
    for n in 0..200 {
        line.offer(&all, (1, n, SHAPER_MTU));
    }
    assert!(line.dropped.is_empty() && !line.refused.is_empty());
    assert!(line.offer(&all, (2, 0, SHAPER_MTU)));
    assert_eq!(line.dropped.len(), 1);
    assert_eq!(line.dropped[0].0, 1);
}

#[test]
fn a_higher_drop_precedence_finds_less_room() {
    let all = bucket(12_500_000, 1);
    let waiting = [0, 1, 2].map(|precedence| {
        let meter = Arc::new(Meter {
            buckets: [Some(Arc::clone(&all)), None, None],
            precedence,
            ..Meter::default()
        });
        let mut line = TestShaper::new(PLENTY);
        for n in 0..500 {
            line.offer(&meter, (1, n, 1000));
        }
        line.shaper.queues[0].flows.bytes
    });
    assert_eq!(waiting, [250_000, 166_000, 83_000]);
}

#[test]
fn a_queue_that_stays_long_is_dropped_from_or_marked() {
    let tally = Arc::new(ClassCounters::default());
    let class = QosClass {
        id: 1,
        name: "bulk".into(),
        bucket: Some(bucket(1_250_000, 1)),
        ingress: None,
        dscp: None,
        tally: Arc::clone(&tally),
    };
    let meter = Arc::new(Meter {
        buckets: [None, None, class.bucket.clone()],
        class: Some(Arc::new(class)),
        ..Meter::default()
    });
    let metered = Metered {
        meter,
        flow: 1,
        bytes: SHAPER_MTU.into(),
    };
    let mut shaper = Shaper::new(PLENTY);
    let mut outcomes = Vec::new();
    for n in 0..1000_u64 {
        let now = Now(SHAPER_SECOND + n * SHAPER_MS);
        if matches!(
            shaper.admit(&metered, SHAPER_MTU, 0),
            QueueAdmission::Granted
        ) {
            let packet = EnqueueRequest {
                bytes: SHAPER_MTU,
                cost: SHAPER_MTU,
                ect: n % 2 == 0,
                kind: 0,
            };
            shaper.push(&metered, packet, now, n);
        }
        shaper.begin();
        while let Some(Dequeued { item, outcome }) = shaper.next(now) {
            outcomes.push((item, outcome));
        }
    }
    let of = |outcome| outcomes.iter().filter(move |(_, o)| *o == outcome);
    assert!(
        of(DequeueAction::Mark).count() > 0 && of(DequeueAction::Mark).all(|(n, _)| n % 2 == 0)
    );
    assert!(
        of(DequeueAction::Drop).count() > 0 && of(DequeueAction::Drop).all(|(n, _)| n % 2 == 1)
    );
    let tallied = tally.read();
    let bytes = |count: usize| count as u64 * u64::from(SHAPER_MTU);
    assert_eq!(tallied.marked, bytes(of(DequeueAction::Mark).count()));
    assert_eq!(tallied.refused, bytes(of(DequeueAction::Drop).count()));
    assert_eq!(tallied.passed, bytes(outcomes.len()) - tallied.refused);
    assert!(tallied.waiting > 0);
    let mut gone = 0;
    shaper.retain(|_| false, |_| gone += 1);
    assert_eq!(tally.read().waiting, 0);
    shaper.begin();
    assert!(gone > 0 && shaper.next(Now(2 * SHAPER_SECOND)).is_none() && shaper.is_empty());
    assert_eq!(shaper.free, PLENTY);
}

#[test]
fn a_class_that_is_published_anew_keeps_its_queue() {
    let limit = bucket(1_250_000, 3000);
    let tally = Arc::new(ClassCounters::default());
    let publish = || {
        let class = QosClass {
            id: 1,
            name: "bulk".into(),
            bucket: Some(Arc::clone(&limit)),
            ingress: None,
            dscp: None,
            tally: Arc::clone(&tally),
        };
        Arc::new(Meter {
            buckets: [None, None, Some(Arc::clone(&limit))],
            class: Some(Arc::new(class)),
            ..Meter::default()
        })
    };
    let mut line = TestShaper::new(PLENTY);
    for n in 0..20 {
        line.offer(&publish(), (1, n, SHAPER_MTU));
    }
    line.run(line.now + SHAPER_SECOND, 0);
    let order: Vec<_> = line.sent.iter().map(|(_, item)| item.1).collect();
    assert_eq!(order, (0..20).collect::<Vec<_>>());
}

#[test]
fn what_waits_for_a_limit_that_is_taken_away_waits_no_longer() {
    let slow = bucket(1_000, 1);
    let all = meter([Some(&slow), None, None]);
    let mut line = TestShaper::new(PLENTY);
    for n in 0..5 {
        line.offer(&all, (1, n, SHAPER_MTU));
    }
    line.run(line.now + SHAPER_MS, 0);
    assert_eq!(line.sent.len(), 1);
    slow.retire(true);
    // Earlier reservations are still waited for.
    line.run(line.now + 4 * SHAPER_SECOND, 0);
    assert_eq!(line.sent.len(), 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_packet_leaves_once_in_the_order_of_its_flow_and_within_the_rate(
        rate in 10_000_u64..500_000_000,
        burst in 1_u64..200_000,
        late in prop_oneof![Just(0), 0..3 * SHAPER_MS],
        steps in prop::collection::vec((0..2 * SHAPER_MS, 0_u32..8, 40_u32..9000, any::<bool>()), 1..300),
    ) {
        let link = bucket(rate, burst);
        let class = bucket(rate / 2, burst);
        let meters = [meter([Some(&link), None, None]), meter([Some(&link), None, Some(&class)])];
        let mut line = TestShaper::new([64, 0]);
        let mut offered = 0;
        for (gap, flow, bytes, classed) in steps {
            line.run(line.now + gap, late);
            line.offer(&meters[usize::from(classed)], (2 * flow + u32::from(classed), offered, bytes));
            offered += 1;
            let waiting: u64 = line.shaper.queues.iter().map(|q| q.flows.bytes).sum();
            prop_assert!(waiting <= 2 * (rate / 50).max(128 << 10) + 9000);
        }
        let end = line.now + 100_000 * SHAPER_SECOND;
        line.run(end, late);
        prop_assert!(line.shaper.is_empty());
        prop_assert_eq!(line.shaper.free, [64, 0]);
        prop_assert_eq!(line.sent.len() + line.dropped.len() + line.refused.len(), offered as usize);
        for flow in 0..16 {
            let of = line.sent.iter().filter(|(_, item)| item.0 == flow);
            let order: Vec<_> = of.map(|(_, item)| item.1).collect();
            prop_assert!(order.is_sorted_by(|a, b| a < b));
        }
        // A late queue may also send the one portion that it has reserved already.
        let largest = line.sent.iter().map(|(_, item)| u64::from(item.2)).max().unwrap_or(0);
        let portion = largest.max(burst / 4) + 1;
        for (limit, of, slack) in [(rate, None, 2), (rate / 2, Some(1), 1)] {
            let sent: Vec<_> = line.sent.iter()
                .filter(|(_, item)| of.is_none_or(|class| item.0 % 2 == class))
                .map(|&(at, item)| (at, u64::from(item.2)))
                .collect();
            for start in 0..sent.len() {
                let mut sum = 0_u128;
                for &(at, bytes) in &sent[start..] {
                    sum += u128::from(bytes);
                    let earned = u128::from(limit) * u128::from(at - sent[start].0) / u128::from(SHAPER_SECOND);
                    let most = earned + u128::from(burst.max(largest) + slack * portion);
                    prop_assert!(sum <= most, "{sum} of {most}");
                }
            }
        }
    }
}
