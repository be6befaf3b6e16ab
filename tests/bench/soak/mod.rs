//! `bench soak`: a long run under all kinds of load and trouble at once, which fails on any drift.
//!
//! Three hosts with VPCs of every kind carry traffic that is checked byte by byte, while an attacker and hostile
//! tenants send bad packets, configurations change, links, namespaces and the underlay go down and up, and daemons
//! are stopped or killed. After each storm all actors rest; then all counters must add up, all buffers and ports must
//! be free again, and memory, descriptors and threads must be back at their old level.

mod account;
mod actor;
mod arguments;
mod clients;
mod conversation;
mod gate;
mod hostile;
mod hosts;
mod logs;
mod tenant;
mod trouble;
mod verdict;

use account::{Reading, TrafficDelta};
use actor::{Actor, ActorThreads, Ledger};
use arguments::SoakArguments;
use conversation::{Conversation, ConversationKind};
use gate::Gate;
use geneved::lab::{interrupt, netns};
use hosts::{CHURNED_VPC, ConfigVariant, KILLED_VPC, STANDING, SoakHosts, Vpc};
use logs::Logs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use verdict::SoakVerdict;

/// How long actors may take to rest: a stalled TCP stream gives up earlier.
const REST_TIMEOUT: Duration = Duration::from_secs(90);
/// In a storm at least this long, each conversation must make progress.
const PATIENT: Duration = Duration::from_secs(30);
/// From then on it is worth a look at what they wait for.
const UNEASE: Duration = Duration::from_secs(20);
/// How long after a storm all VPCs may take to carry traffic again and all sums to match.
const RECOVERY: Duration = Duration::from_secs(20);

/// Runs the soak with these command-line arguments.
pub fn main(words: impl Iterator<Item = String>) -> ExitCode {
    let arguments = match SoakArguments::parse(words) {
        Ok(arguments) => arguments,
        Err(words) => {
            eprintln!("{words}");
            return ExitCode::from(1);
        }
    };
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs the soak. Returns whether it passed.
fn run(arguments: &SoakArguments) -> io::Result<bool> {
    netns::prepare()?;
    interrupt::tidy_on_signal(SoakHosts::tidy())?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(65_536)), hard)?;
    println!(
        "soak: {} rounds of {:.0} s, seed {}, {}",
        arguments.rounds,
        arguments.storm.as_secs_f64(),
        arguments.seed,
        arguments.geneved.display()
    );
    let hosts = Arc::new(SoakHosts::new(arguments)?);
    hosts.await_all_carry(RECOVERY).map_err(io::Error::other)?;
    let (gate, ledger) = (Arc::new(Gate::new()), Arc::new(Ledger::new()));
    let troupe = ActorThreads::start(&gate, &ledger, arguments.seed, cast(&hosts, arguments)?);
    let mut soak = Soak {
        rounds: arguments.rounds,
        narrow: arguments.has("icmp-mtu"),
        verdict: SoakVerdict::new(take(&hosts)?, arguments.rounds),
        logs: Logs::default(),
        hosts,
        gate,
        ledger,
    };
    for round in 1..=arguments.rounds {
        if let Err(error) = soak.round(round, arguments.storm) {
            soak.ledger.fail(format!("round {round}: {error}"));
        }
        if !soak.ledger.failures().is_empty() {
            soak.describe("state");
            break;
        }
    }
    drop(troupe);
    let well = soak.verdict.print(&soak.ledger, &soak.logs);
    if arguments.keep || !well {
        println!(
            "soak: logs, configurations and states are in {}",
            soak.hosts.directory().display()
        );
    } else {
        let _ = std::fs::remove_dir_all(soak.hosts.directory());
    }
    Ok(well)
}

/// Returns all actors.
fn cast(hosts: &Arc<SoakHosts>, arguments: &SoakArguments) -> io::Result<Vec<Box<dyn Actor>>> {
    let mut all = Vec::new();
    let both_ways = |vpc: &Vpc| {
        let ways = [(0, false), (1, true), (0, true), (1, false)];
        ways.map(|(side, six)| hosts.ends(vpc, six, if side == 0 { 0 } else { vpc.peer }))
            .to_vec()
    };
    for vpc in STANDING {
        for kind in [
            ConversationKind::Tcp,
            ConversationKind::Udp,
            ConversationKind::PingPong,
            ConversationKind::Ping,
        ] {
            all.push(Conversation::actor(kind, vpc.device, both_ways(vpc), false));
        }
    }
    for vpc in [&CHURNED_VPC, &KILLED_VPC] {
        for kind in [
            ConversationKind::Tcp,
            ConversationKind::Udp,
            ConversationKind::Ping,
        ] {
            all.push(Conversation::actor(kind, vpc.device, both_ways(vpc), true));
        }
    }
    for kind in [ConversationKind::Tcp, ConversationKind::PingPong] {
        all.push(Conversation::actor(
            kind,
            "outside",
            vec![hosts.outside()],
            false,
        ));
    }
    all.extend(hostile::attackers(hosts, arguments)?);
    all.extend(tenant::tenants(hosts, arguments)?);
    all.extend(trouble::troubles(hosts, arguments));
    if arguments.has("clients") {
        all.push(clients::Clients::actor(hosts));
    }
    Ok(all)
}

/// Takes snapshots of hosts a and b.
fn take(hosts: &SoakHosts) -> io::Result<[Reading; 2]> {
    Ok([Reading::take(hosts, 0)?, Reading::take(hosts, 1)?])
}

struct Soak {
    rounds: usize,
    narrow: bool,
    hosts: Arc<SoakHosts>,
    gate: Arc<Gate>,
    ledger: Arc<Ledger>,
    verdict: SoakVerdict,
    logs: Logs,
}

impl Soak {
    /// Runs one storm and the rest after it.
    fn round(&mut self, round: usize, storm: Duration) -> io::Result<()> {
        // In every other round the switch segments trains, so that the kernel's counts match the daemon's.
        let single = round % 2 == 1;
        self.hosts.cut_trains(single)?;
        let before = self.ledger.entries();
        self.gate
            .storm(storm, || !self.ledger.failures().is_empty() || self.ended());
        if let Err(names) = self.gate.rest(UNEASE) {
            println!("soak: after {UNEASE:?} of rest there still work: {names}");
            self.describe("stuck");
        }
        self.gate
            .rest(REST_TIMEOUT)
            .map_err(|names| io::Error::other(format!("it does not end: {names}")))?;
        if !self.ledger.failures().is_empty() || self.ended() {
            return Err(io::Error::other("the storm was broken off"));
        }
        for side in 0..2 {
            self.hosts.write(side, ConfigVariant::Usual)?;
            self.hosts.cli(side, "reload")?;
        }
        self.hosts
            .await_all_carry(RECOVERY)
            .map_err(|words| io::Error::other(format!("after the storm {words}")))?;
        // In a short storm on a busy machine a single conversation may starve; over all storms it must make progress.
        match storm < PATIENT {
            false => self.ledger.check_progress(&before),
            true if round == self.rounds => self.ledger.check_progress(&BTreeMap::new()),
            true => {}
        }
        self.settle(single)?;
        self.logs.read(&self.hosts, &self.ledger)?;
        self.verdict.row(round, &before, &self.ledger);
        Ok(())
    }

    /// Writes the state of the daemons and of the tenants' TCP next to the logs.
    fn describe(&mut self, extension: &str) {
        let _ = self.logs.read(&self.hosts, &self.ledger);
        for side in 0..2 {
            let mut text = String::new();
            for words in [
                "-s link show",
                "host show",
                "flow show",
                "nat show",
                "qos show",
            ] {
                let shown = self
                    .hosts
                    .cli(side, words)
                    .unwrap_or_else(|error| error.to_string());
                text += &format!("---- {words}\n{shown}\n");
            }
            for vpc in hosts::ALL_VPCS.into_iter().filter(|vpc| vpc.is_on(side)) {
                // Part of iproute2.
                let sockets = self.hosts.tenant(vpc, side).exec("ss", &["-tine"]);
                text += &format!("---- {}\n{}\n", vpc.device, sockets.unwrap_or_default());
            }
            let path = self.hosts.site(side).log().with_extension(extension);
            let _ = std::fs::write(path, text);
        }
    }

    /// Whether a daemon has exited without being killed.
    fn ended(&self) -> bool {
        let mut ended = false;
        for (side, daemon) in self.hosts.daemons.iter().take(2).enumerate() {
            let mut daemon = daemon
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(Ok(Some(status))) = daemon
                .as_mut()
                .map(geneved::lab::daemon::DaemonProcess::exited)
            {
                self.ledger
                    .fail(format!("the daemon of host {side} ended: {status}"));
                *daemon = None;
                ended = true;
            }
            ended |= daemon.is_none();
        }
        ended
    }

    /// Discrepancies in these snapshots.
    fn faults(&self, now: &[Reading; 2], single: bool) -> Vec<String> {
        let mut faults = Vec::new();
        for (side, host) in ["a", "b"].into_iter().enumerate() {
            let passed = TrafficDelta {
                side,
                before: self.verdict.last(),
                now,
                single,
                narrow: self.narrow,
            };
            let drift = self.verdict.drift(side, &now[side]);
            let all = passed.faults().into_iter().chain(drift);
            faults.extend(all.map(|words| format!("host {host}: {words}")));
        }
        faults
    }

    /// Reports whether new packets clear a discrepancy, which means that something waited for them and should not
    /// have.
    fn look_again(&self, single: bool) {
        let carried = self.hosts.await_all_carry(RECOVERY);
        std::thread::sleep(Duration::from_millis(300));
        if let (Ok(()), Ok(now)) = (carried, take(&self.hosts)) {
            for words in self.faults(&now, single) {
                println!("soak: after further packets: {words}");
            }
        }
    }

    /// Takes snapshots until there is no discrepancy, or time is up.
    fn settle(&mut self, single: bool) -> io::Result<()> {
        let end = Instant::now() + RECOVERY;
        loop {
            for side in 0..2 {
                self.hosts.cli(side, "flow flush")?;
            }
            std::thread::sleep(Duration::from_millis(300));
            let now = take(&self.hosts)?;
            let faults = self.faults(&now, single);
            if faults.is_empty() || Instant::now() > end {
                if !faults.is_empty() {
                    self.look_again(single);
                }
                faults.into_iter().for_each(|words| self.ledger.fail(words));
                self.verdict.add(now);
                return Ok(());
            }
        }
    }
}
