//! Nanoseconds for a policy to decide a new flow, by number and kind of its rules:
//! `cargo bench -p libgeneve --bench policy`.
//!
//! Every decision is timed separately, with a different packet each time, as for new flows; reading the clock is
//! included, and the first line shows its cost. For comparing two versions on one machine, not for publication.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use allocation_counter::measure;
use ipnet::{IpNet, Ipv4Net};
use libgeneve::label::{LabelKey, LabelMap, LabelSet, Labels, Selector};
use libgeneve::options::{EndpointType, OptionMatch};
use libgeneve::policy::{
    Direction, Policy, PolicyAction, PolicyDefaults, PolicyQuery, PolicyRule, RulePeer,
};
use libgeneve::wire::geneve::Geneve;
use libgeneve::wire::option::OptionIter;

const PACKETS: usize = 4096;
const POLICY_ROUNDS: usize = 8;
const APPS: u32 = 400;

fn main() {
    let key = LabelKey::from_secret(b"a secret of benchmarks");
    println!(
        "{:<34}{:>8}{:>9}{:>9}{:>10}{:>12}{:>9}{:>9}",
        "", "rules", "p50 ns", "p99 ns", "decided %", "allocations", "KiB", "ms"
    );
    row("clock only", None, &key);
    for count in [0, 100, 1_000, 10_000] {
        row("mixed", Some((count, mixed)), &key);
    }
    let kinds: [(&str, MakeRule); 11] = [
        ("distinct addresses", addresses),
        ("nested prefixes, none decides", nested),
        ("distinct selectors", selectors),
        ("shared labels, none decides", shared),
        ("mixed, none decides", undecided),
        ("five labels, none decides", five),
        ("selectors only negative", negative),
        ("wide port ranges, none decides", ranges),
        ("single ports", ports),
        ("option values", options),
        ("protocol alone, none decides", protocols),
    ];
    for (name, kind) in kinds {
        row(name, Some((10_000, kind)), &key);
    }
}

type MakeRule = fn(&mut Random, u32) -> PolicyRule;

fn row(name: &str, rules: Option<(u32, MakeRule)>, key: &LabelKey) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (count, make) = rules.unwrap_or((0, mixed));
    let rules: Vec<PolicyRule> = (0..count).map(|at| make(&mut random, at)).collect();
    let packets: Vec<QueryPacket> = (0..PACKETS)
        .map(|_| QueryPacket::new(&mut random, key))
        .collect();
    let mut policy = None;
    let begin = Instant::now();
    let memory = measure(|| policy = Some(compile(rules, key)));
    let millis = begin.elapsed().as_secs_f64() * 1e3;
    let policy = policy.expect("compiled above");
    let mut times = Vec::with_capacity(PACKETS * POLICY_ROUNDS);
    let mut decided = 0;
    let counted = measure(|| {
        for packet in (0..POLICY_ROUNDS).flat_map(|_| &packets) {
            let query = packet.query();
            let begin = Instant::now();
            if name == "clock only" {
                black_box(&query);
            } else {
                let verdict = black_box(policy.decide(black_box(&query)));
                decided += usize::from(verdict.rule.is_some());
            }
            times.push(begin.elapsed().as_nanos());
        }
    });
    times.sort_unstable();
    println!(
        "{name:<34}{count:>8}{:>9}{:>9}{:>10.1}{:>12}{:>9}{millis:>9.0}",
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        decided as f64 * 100.0 / times.len() as f64,
        counted.count_total,
        memory.bytes_current / 1024,
    );
}

fn compile(rules: Vec<PolicyRule>, key: &LabelKey) -> Policy {
    let defaults = PolicyDefaults {
        ingress: PolicyAction::Deny,
        egress: PolicyAction::Allow,
    };
    Policy::compile(rules, defaults, Some(key), &mut |_| Arc::default()).expect("sound rules")
}

/// Returns a rule such as an operator of three hundred services would have.
fn mixed(random: &mut Random, at: u32) -> PolicyRule {
    let mut rule = rule(at);
    rule.pref = random.below(1000);
    rule.action = [
        PolicyAction::Allow,
        PolicyAction::Allow,
        PolicyAction::Deny,
        PolicyAction::Reject,
    ][random.below(4) as usize];
    let app = random.below(APPS);
    rule.from = match random.below(4) {
        0 => prefix(random.address(), 16 + random.below(17) as u8),
        1 => selector(&format!("app in (a{app},a{}),env=prod", random.below(APPS))),
        2 => selector(&format!("app=a{app},tier notin (web,db)")),
        _ => prefix(random.address(), 32),
    };
    rule.to = match random.below(4) {
        0 => RulePeer::Any,
        1 => selector(&format!("app=a{},env!=dev", random.below(APPS))),
        _ => prefix(random.address(), 20 + random.below(13) as u8),
    };
    if random.below(3) > 0 {
        rule.protocol = Some(if random.below(3) > 0 { 6 } else { 17 });
        let low = random.below(9_000) as u16;
        let wide = [0, 0, 10, 1_000][random.below(4) as usize];
        rule.dports = vec![low..=low + wide, 443..=443];
    }
    rule
}

fn undecided(random: &mut Random, at: u32) -> PolicyRule {
    PolicyRule {
        to: selector("app,env,tier=none"),
        ..mixed(random, at)
    }
}

fn addresses(random: &mut Random, at: u32) -> PolicyRule {
    let mut rule = rule(at);
    rule.from = prefix(random.address(), 32);
    if at.is_multiple_of(2) {
        rule.from = RulePeer::Any;
        rule.to = prefix(random.address(), 32);
    }
    rule
}

fn nested(random: &mut Random, at: u32) -> PolicyRule {
    let mut rule = rule(at);
    rule.endpoint_type = Some(EndpointType::Proxied);
    rule.from = prefix(random.address(), (at % 25) as u8);
    rule.to = prefix(random.address(), (at / 25 % 25) as u8);
    rule
}

fn selectors(random: &mut Random, at: u32) -> PolicyRule {
    let mut rule = rule(at);
    let app = random.below(APPS);
    rule.from = selector(&format!("app=a{app},id=i{at}"));
    rule
}

fn shared(_: &mut Random, at: u32) -> PolicyRule {
    let mut rule = rule(at);
    rule.from = selector("env,app");
    rule.to = selector("env in (prod,dev),tier=none");
    rule
}

fn five(_: &mut Random, at: u32) -> PolicyRule {
    let mut rule = rule(at);
    rule.from = selector("env=prod,app,tier,id,zone=none");
    rule.to = selector("env,app,tier,id");
    rule
}

fn negative(random: &mut Random, at: u32) -> PolicyRule {
    let mut rule = rule(at);
    let app = random.below(APPS);
    rule.from = selector(&format!("app!=a{app},id!=i{at},!tier"));
    rule.to = selector(&format!("env notin (prod,test,dev),zone!=z{at}"));
    rule
}

fn ranges(random: &mut Random, at: u32) -> PolicyRule {
    let mut rule = impossible(at);
    let low = random.below(30_000) as u16;
    rule.sports = vec![low..=low + 32_000];
    let low = random.below(500) as u16;
    rule.dports = vec![low..=low + random.below(60_000) as u16];
    rule
}

fn ports(_: &mut Random, at: u32) -> PolicyRule {
    let mut rule = rule(at);
    rule.dports = vec![at as u16..=at as u16];
    rule
}

fn options(_: &mut Random, at: u32) -> PolicyRule {
    let mut rule = rule(at);
    let text = format!("aws:1={at:016x}");
    rule.option = Some(text.parse::<OptionMatch>().expect("an option"));
    rule
}

fn protocols(_: &mut Random, at: u32) -> PolicyRule {
    let mut rule = impossible(at);
    rule.protocol = Some(6);
    rule
}

fn rule(at: u32) -> PolicyRule {
    PolicyRule::new(
        format!("rule-{at}"),
        Direction::Ingress,
        at,
        PolicyAction::Allow,
    )
}

/// Returns a rule whose last condition never matches.
fn impossible(at: u32) -> PolicyRule {
    PolicyRule {
        to: selector("none"),
        ..rule(at)
    }
}

fn prefix(addr: Ipv4Addr, len: u8) -> RulePeer {
    RulePeer::Prefix(IpNet::V4(Ipv4Net::new(addr, len).expect("at most 32")))
}

fn selector(text: &str) -> RulePeer {
    RulePeer::Selector(text.parse::<Selector>().expect("a selector"))
}

struct QueryPacket {
    src: Ipv4Addr,
    dst: Ipv4Addr,
    ports: (u16, u16),
    from: LabelSet,
    to: LabelSet,
    option: [u8; 20],
}

impl QueryPacket {
    fn new(random: &mut Random, key: &LabelKey) -> QueryPacket {
        let mut labels = || {
            let text = format!(
                "app=a{},id=i{},env={},tier={},zone=z{}",
                random.below(APPS),
                random.below(10_000),
                if random.below(3) > 0 { "prod" } else { "dev" },
                ["web", "db", "mid"][random.below(3) as usize],
                random.below(3),
            );
            let map: LabelMap = text.parse().expect("labels");
            map.hashed(key).expect("no collision")
        };
        let (from, to) = (labels(), labels());
        let mut option = [0; 20];
        option[..12].copy_from_slice(&[3, 0, 8, 0, 0, 0, 1, 0, 1, 8, 1, 2]);
        option[16..].copy_from_slice(&random.below(20_000).to_be_bytes());
        QueryPacket {
            src: random.address(),
            dst: random.address(),
            ports: (
                30_000 + random.below(30_000) as u16,
                random.below(10_000) as u16,
            ),
            from,
            to,
            option,
        }
    }

    fn query(&self) -> PolicyQuery<'_> {
        let options = Geneve::parse(&self.option).map(|header| header.options());
        PolicyQuery {
            direction: Direction::Ingress,
            src: self.src.into(),
            dst: self.dst.into(),
            protocol: 6,
            ports: Some(self.ports),
            icmp: None,
            from: Labels::Known(self.from.as_slice()),
            to: Labels::Known(self.to.as_slice()),
            dst_type: EndpointType::Simple,
            options: options.unwrap_or_else(|_| OptionIter::default()),
        }
    }
}

/// Xorshift generator: the same rules and packets in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) % u64::from(bound)) as u32
    }

    /// Returns an address in 10.0.0.0/14.
    fn address(&mut self) -> Ipv4Addr {
        Ipv4Addr::from(0x0a00_0000 | self.below(1 << 18))
    }
}
