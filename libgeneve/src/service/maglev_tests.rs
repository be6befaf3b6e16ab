use proptest::prelude::*;

use super::*;

type Member = ([u8; 4], u32);

fn members(weights: &[u32]) -> Vec<Member> {
    let id = |at: usize| (0x0a00_0001 + at as u32).to_be_bytes();
    let numbered = weights.iter().enumerate();
    numbered.map(|(at, &weight)| (id(at), weight)).collect()
}

fn slots_of(table: &Maglev, member: usize) -> usize {
    let own = |slot: &&u16| usize::from(**slot) == member;
    table.slots.iter().filter(own).count()
}

/// Share of hashes that are remapped to another identity by a change.
fn moved(before: &[Member], after: &[Member], build: fn(&[Member]) -> Option<Maglev>) -> f64 {
    const HASHES: u64 = 100_000;
    let (old, new) = (build(before).unwrap(), build(after).unwrap());
    let differs = |n: &u64| {
        let hash = stable(&n.to_be_bytes());
        before[old.pick(hash)].0 != after[new.pick(hash)].0
    };
    (0..HASHES).filter(differs).count() as f64 / HASHES as f64
}

fn worst_loss(count: usize, build: fn(&[Member]) -> Option<Maglev>) -> f64 {
    let all = members(&vec![1; count]);
    let without = |gone| [&all[..gone], &all[gone + 1..]].concat();
    (0..count)
        .step_by(count.div_ceil(6))
        .map(|gone| moved(&all, &without(gone), build))
        .fold(0.0, f64::max)
}

#[test]
fn losing_one_of_n_moves_hardly_more_than_its_own_flows() {
    for count in [2, 3, 4, 7, 16, 17, 33, 100, MAX_MEMBERS] {
        let worst = worst_loss(count, Maglev::new);
        assert!(worst <= 1.0 / count as f64 + 0.01, "{count}: {worst}");
    }
    for (count, more) in [(2, 0.01), (5, 0.01), (16, 0.01), (17, 0.02), (100, 0.02)] {
        let worst = worst_loss(count, Maglev::compact);
        assert!(
            worst <= 1.0 / count as f64 + more,
            "compact {count}: {worst}"
        );
    }
}

#[test]
fn a_member_of_weight_zero_leaves_like_one_that_is_removed() {
    let all = members(&[3, 1, 0, 2]);
    let listed = [all[0], all[1], all[3]];
    assert_eq!(moved(&all, &listed, Maglev::new), 0.0);
    assert_eq!(slots_of(&Maglev::new(&all).unwrap(), 2), 0);
}

#[test]
fn there_is_no_table_without_weight_or_with_too_many() {
    assert!(Maglev::new::<[u8; 4]>(&[]).is_none());
    assert!(Maglev::new(&members(&[0, 0])).is_none());
    assert!(Maglev::new(&members(&vec![1; MAX_MEMBERS + 1])).is_none());
    let one = Maglev::compact(&members(&[0, u32::MAX])).unwrap();
    assert!(
        [0, 1 << 63, u64::MAX]
            .iter()
            .all(|&hash| one.pick(hash) == 1)
    );
}

#[test]
fn the_lightest_member_is_reachable_beside_the_heaviest() {
    let mut weights = vec![u32::MAX; MAX_MEMBERS - 1];
    weights.push(1);
    let table = Maglev::new(&members(&weights)).unwrap();
    assert_eq!(slots_of(&table, MAX_MEMBERS - 1), 1);
}

#[test]
fn hashes_are_the_same_in_every_version() {
    // The first three values come from another implementation of SipHash-1-3.
    let flow = |client: &str, dst: &str| BalancingKey {
        client: client.parse().unwrap(),
        dst: dst.parse().unwrap(),
        protocol: 6,
        client_port: 40_000,
        dst_port: 443,
    };
    let v4 = flow("10.0.0.1", "10.0.0.100");
    let v6 = flow("2001:db8::1", "2001:db8::100");
    assert_eq!(v4.hash(), 0x9139dcc76ec63c23);
    assert_eq!(v6.hash(), 0x9c0b542902599fa7);
    assert_eq!(v4.client_hash(), 0xa615a907a835a61e);
    let table = Maglev::new(&members(&[1, 2, 3])).unwrap();
    let digest = table
        .slots
        .iter()
        .map(|slot| *slot as u8)
        .collect::<Vec<_>>();
    // If this one changes, hosts of different versions disagree.
    assert_eq!(stable(&digest), 17100516197273238838);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn shares_follow_weights(weights in prop::collection::vec(0u32..40, 2..40)) {
        let sum: u32 = weights.iter().sum();
        prop_assume!(sum > 0);
        let table = Maglev::new(&members(&weights)).unwrap();
        for (member, &weight) in weights.iter().enumerate() {
            let share = slots_of(&table, member) as f64 / f64::from(MAGLEV_SLOTS);
            let wanted = f64::from(weight) / f64::from(sum);
            let tolerance = (wanted * 0.01).max(1.0 / f64::from(MAGLEV_SLOTS));
            prop_assert!((share - wanted).abs() <= tolerance, "{share} for {wanted}");
        }
    }

    #[test]
    fn the_order_of_members_does_not_matter(
        weights in prop::collection::vec(0u32..9, 2..20),
        seed in any::<u64>(),
    ) {
        let listed = members(&weights);
        prop_assume!(weights.iter().any(|&w| w > 0));
        let mut shuffled = listed.clone();
        shuffled.sort_by_key(|(id, _)| stable(&[&id[..], &seed.to_be_bytes()].concat()));
        let (a, b) = (Maglev::compact(&listed).unwrap(), Maglev::compact(&shuffled).unwrap());
        for hash in (0..1000u64).map(|n| stable(&n.to_be_bytes())) {
            prop_assert_eq!(listed[a.pick(hash)].0, shuffled[b.pick(hash)].0);
        }
    }
}
