use proptest::prelude::*;

use super::*;

const SUPER: u64 = 65_226;
const BUCKET_SECOND: u64 = 1_000_000_000;
/// Bytes a second: 8 kbit/s, 1 Mbit/s, 100 Mbit/s, 10 Gbit/s, 100 Gbit/s.
const RATES: [u64; 5] = [1_000, 125_000, 12_500_000, 1_250_000_000, 12_500_000_000];

/// Offers packets of `size` every `gap` nanoseconds for `span` nanoseconds; returns the bytes that passed.
fn flat_out(bucket: &Bucket, size: u64, gap: f64, from: u64, span: u64) -> u64 {
    let offers = (span as f64 / gap) as u64;
    let arrival = |n: u64| Now(from + (n as f64 * gap) as u64);
    (0..offers)
        .filter(|&n| bucket.take(size, arrival(n)))
        .count() as u64
        * size
}

fn assert_near(passed: u64, wanted: f64, slack: f64, what: &str) {
    let tolerance = wanted * 0.01 + slack;
    let passed = passed as f64;
    assert!(
        (passed - wanted).abs() <= tolerance,
        "{what}: {passed} for {wanted}"
    );
}

#[test]
fn twice_the_rate_is_held_to_the_rate_at_every_speed_and_size() {
    for rate in RATES {
        for size in [64, 1400, SUPER] {
            // A long span if one packet takes long, but no more packets than the test has time for.
            let packet = size as f64 * BUCKET_SECOND as f64 / rate as f64;
            let span =
                ((packet * 300.0) as u64).max((3 * BUCKET_SECOND).min((packet * 3e5) as u64));
            let bucket = Bucket::new(rate, 2 * SUPER);
            // Use up the burst before measuring.
            let start = BUCKET_SECOND;
            while bucket.take(size, Now(start)) {}
            let passed = flat_out(&bucket, size, packet / 2.0, start, span);
            let wanted = rate as f64 * span as f64 / BUCKET_SECOND as f64;
            assert_near(
                passed,
                wanted,
                size as f64,
                &format!("{rate} B/s, {size} B"),
            );
        }
    }
}

#[test]
fn a_sender_that_backs_off_like_tcp_gets_the_rate_with_the_default_burst() {
    // At higher rates, additive increase recovers too slowly with any bucket.
    for rate in [1_250_000, 12_500_000, 125_000_000] {
        let bucket = Bucket::new(rate, Bucket::default_burst(rate));
        // Round trips of 1 ms: slow start until the first loss, then additive increase and multiplicative decrease.
        let round = BUCKET_SECOND / 1000;
        let segment = 1400.0_f64;
        let (mut window, mut growth, mut passed) = (10.0 * segment, 2.0, 0u64);
        for at in (0..3 * BUCKET_SECOND).step_by(round as usize) {
            let packets = (window / segment) as u64;
            let arrivals = (0..packets).map(|n| Now(at + round * n / packets));
            let through = arrivals.filter(|&now| bucket.take(1400, now)).count() as u64;
            passed += through * 1400;
            if through < packets {
                (window, growth) = ((window / 2.0).max(segment), 1.0);
            } else {
                window = window * growth + segment;
            }
        }
        let wanted = 3.0 * rate as f64;
        let got = passed as f64 / wanted;
        assert!((0.95..1.05).contains(&got), "{rate}: {got}");
    }
}

#[test]
fn a_packet_larger_than_the_burst_passes_when_the_bucket_is_full_and_is_paid_for() {
    let bucket = Bucket::new(1_000, 100);
    assert!(bucket.take(5_000, Now(0)));
    for second in 1..5 {
        assert!(!bucket.would_take(1, Now(second * BUCKET_SECOND), 0));
        assert!(!bucket.take(5_000, Now(second * BUCKET_SECOND)));
    }
    assert!(bucket.take(5_000, Now(5 * BUCKET_SECOND)));
    assert!(!bucket.take(1, Now(6 * BUCKET_SECOND)));
}

#[test]
fn what_would_be_taken_is_not_paid_for() {
    let bucket = Bucket::new(1_000, 100);
    for _ in 0..10 {
        assert!(bucket.would_take(100, Now(0), 0));
    }
    assert_eq!(bucket.level(Now(0)), 100);
    assert!(bucket.take(60, Now(0)));
    assert_eq!(bucket.level(Now(0)), 40);
    assert!(!bucket.would_take(41, Now(0), 0) && bucket.would_take(40, Now(0), 0));
}

#[test]
fn a_higher_drop_precedence_is_refused_first() {
    let bucket = Bucket::new(1_000_000, 90_000);
    let mut taken = [0u32; 3];
    // Offered in turns, at three times the rate in total.
    for n in 0..90_000u64 {
        let precedence = (n % 3) as u8;
        let now = Now(n * BUCKET_SECOND / 3000);
        taken[usize::from(precedence)] += u32::from(bucket.take_marked(1000, now, precedence));
    }
    assert!(taken[0] > 29_000, "{taken:?}");
    assert!(taken[2] <= taken[1] && taken[1] < 1_000, "{taken:?}");

    let alone = Bucket::new(1_000_000, 90_000);
    let arrivals = (0..9_000u64).map(|n| Now(n * BUCKET_SECOND / 3000));
    let passed = arrivals
        .filter(|&now| alone.take_marked(1000, now, 2))
        .count();
    assert!((2_970..=3_060).contains(&passed), "{passed}");
}

#[test]
fn all_buckets_are_charged_or_none() {
    let (wide, narrow) = (Bucket::new(1_000, 1_000), Bucket::new(1_000, 100));
    let both = [&wide, &narrow];
    assert!(take_all(both, 80, Now(0), 0));
    assert!(!take_all(both, 80, Now(0), 0));
    assert_eq!((wide.level(Now(0)), narrow.level(Now(0))), (920, 20));
    assert!(take_all([], 80, Now(0), 0));
}

#[test]
fn time_that_wraps_in_ticks_or_goes_back_a_little_stalls_nobody() {
    for rate in RATES {
        let bucket = Bucket::new(rate, 2 * SUPER);
        for now in [
            0,
            3,
            u64::MAX / 256 - 5,
            u64::MAX / 256 + 5,
            u64::MAX / 2 + 9 * BUCKET_SECOND,
            u64::MAX - 99 * BUCKET_SECOND,
        ] {
            assert!(bucket.take(SUPER, Now(now)), "{rate} at {now}");
        }
        let later = Now(BUCKET_SECOND << 10);
        while bucket.take(SUPER, later) {}
        assert!(
            !bucket.take(SUPER, Now(later.0 - BUCKET_SECOND / 2)),
            "{rate}"
        );
    }
}

#[test]
fn threads_together_take_no_more_than_there_is() {
    let bucket = Bucket::new(1_000, 1_000_000);
    let take = || (0..20_000).filter(|_| bucket.take(100, Now(7))).count();
    let total: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(total, 10_000);
}

proptest! {
    #[test]
    fn never_more_than_rate_and_burst_in_any_window(
        rate in 1u64..20_000_000_000,
        burst in 0u64..1_000_000,
        steps in prop::collection::vec((0u64..3_000_000, 1u64..=SUPER, 0u8..4), 1..200),
    ) {
        let bucket = Bucket::new(rate, burst);
        let mut now = 5;
        let mut passed: Vec<(u64, u64)> = Vec::new();
        for (gap, bytes, precedence) in steps {
            now += gap;
            let would = bucket.would_take(bytes, Now(now), precedence);
            prop_assert_eq!(would, bucket.take_marked(bytes, Now(now), precedence));
            if would {
                passed.push((now, bytes));
            }
        }
        let largest = passed.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
        for start in 0..passed.len() {
            let mut sum = 0u128;
            for &(at, bytes) in &passed[start..] {
                sum += u128::from(bytes);
                let span = u128::from(at - passed[start].0);
                let earned = u128::from(rate) * span / u128::from(BUCKET_SECOND);
                prop_assert!(sum <= earned + u128::from(burst.max(largest)) + 1);
            }
        }
    }
}
