//! Health checks of the backends of services.
//!
//! Owns the list of targets and what is known of each. `probe` makes a single check, and `verdict` interprets a
//! series of results. Acting on it, by publishing tables without a backend, is up to the daemon core.
//!
//! Checks run on one thread per network namespace, so that they see what the link's interface sees, and so that
//! thousands of them do not hold up the control side.

mod probe;
mod tracker;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use self::probe::ProbeOutcome;
use self::tracker::HealthTracker;
use crate::config::state::CheckTiming;
use crate::config::value::CheckValue;
use crate::net::netns;
use crate::random;

/// Capacity of the queue of changes; when it is full, checks wait for the daemon.
const CHANGES: usize = 1024;

/// Target of a health check, and where it is checked from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckTarget {
    /// The link's interface. Checks are bound to it, so that they reach this VPC even if the address exists elsewhere
    /// too.
    pub link: String,
    /// Network namespace of that interface; `None` for the daemon's own.
    pub netns: Option<String>,
    /// The backend's address in the VPC.
    pub addr: IpAddr,
    /// The backend's port; a TCP check needs one.
    pub port: Option<u16>,
    /// How it is checked; [`CheckValue::None`] is never checked and stays [`CheckedHealth::Unknown`].
    pub check: CheckValue,
    /// Interval and thresholds.
    pub pace: CheckTiming,
}

impl CheckTarget {
    /// Whether both are the same backend, checked the same way.
    fn asks_as(&self, other: &CheckTarget) -> bool {
        let pace = self.pace;
        *self
            == CheckTarget {
                pace,
                ..other.clone()
            }
    }

    fn checkable(&self) -> bool {
        match self.check {
            CheckValue::Tcp => self.port.is_some(),
            CheckValue::Icmp => true,
            CheckValue::None => false,
        }
    }
}

/// Health of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CheckedHealth {
    /// Not enough results yet, or no check.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It does not answer, with the reason.
    Down(String),
}

impl CheckedHealth {
    /// Whether it gets new flows; an unknown backend does.
    #[must_use]
    pub fn counts_as_up(&self) -> bool {
        !matches!(self, CheckedHealth::Down(_))
    }
}

/// Health change of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthChange {
    /// The backend.
    pub target: CheckTarget,
    /// Its new health.
    pub health: CheckedHealth,
}

/// Targets of health checks, and what is known of each.
#[derive(Debug)]
pub struct HealthBoard {
    changes: mpsc::Sender<HealthChange>,
    checkers: HashMap<Option<String>, Checker>,
}

impl HealthBoard {
    /// Returns an empty board, and the channel on which it reports changes. A change may arrive after its target is
    /// no longer watched; [`HealthBoard::state`] is authoritative.
    #[must_use]
    pub fn new() -> (HealthBoard, mpsc::Receiver<HealthChange>) {
        let (changes, receiver) = mpsc::channel(CHANGES);
        let board = HealthBoard {
            changes,
            checkers: HashMap::new(),
        };
        (board, receiver)
    }

    /// Watches exactly these targets. Targets watched before keep their health, even if the interval changes, unless
    /// their network namespace was created anew.
    pub fn watch(&mut self, targets: impl IntoIterator<Item = CheckTarget>) {
        let mut wanted: HashMap<Option<String>, HashSet<CheckTarget>> = HashMap::new();
        for target in targets.into_iter().filter(CheckTarget::checkable) {
            let there = wanted.entry(target.netns.clone()).or_default();
            there.insert(target);
        }
        self.checkers.retain(|netns, _| wanted.contains_key(netns));
        for (netns, targets) in wanted {
            let identity = netns.as_deref().and_then(netns::identity);
            let known = self.checkers.remove(&netns);
            if netns.is_some() && identity.is_none() {
                // Its checks would keep a deleted namespace alive.
                continue;
            }
            let known = known.filter(|c| c.identity == identity && !c.orders.is_closed());
            let mut checker = match known {
                Some(checker) => checker,
                None => match Checker::start(netns.clone(), identity, self) {
                    Ok(checker) => checker,
                    Err(error) => {
                        tracing::error!(netns, %error, "no thread for health checks, backends count as up: {error}");
                        continue;
                    }
                },
            };
            checker.watch(targets);
            self.checkers.insert(netns, checker);
        }
    }

    /// What is known of this target; [`CheckedHealth::Unknown`] where it is not watched.
    #[must_use]
    pub fn state(&self, target: &CheckTarget) -> CheckedHealth {
        let checker = self.checkers.get(&target.netns);
        let shared = checker.and_then(|c| c.watched.get(target));
        shared.map_or(CheckedHealth::Unknown, SharedHealth::get)
    }
}

/// Health of one target, written by its checks and read by the board.
#[derive(Clone, Debug, Default)]
struct SharedHealth(Arc<Mutex<CheckedHealth>>);

impl SharedHealth {
    fn get(&self) -> CheckedHealth {
        let health = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        health.clone()
    }

    fn set(&self, to: &CheckedHealth) {
        let mut health = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        health.clone_from(to);
    }
}

enum CheckerCommand {
    Watch(CheckTarget, SharedHealth),
    Leave(CheckTarget),
}

/// Runs the checks in one network namespace; its thread ends when this is dropped.
#[derive(Debug)]
struct Checker {
    /// Distinguishes a namespace from a later one of the same name.
    identity: Option<netns::NetnsId>,
    orders: mpsc::UnboundedSender<CheckerCommand>,
    watched: HashMap<CheckTarget, SharedHealth>,
}

impl Checker {
    fn start(
        netns: Option<String>,
        identity: Option<netns::NetnsId>,
        board: &HealthBoard,
    ) -> std::io::Result<Checker> {
        let (orders, receiver) = mpsc::unbounded_channel();
        let changes = board.changes.clone();
        std::thread::Builder::new()
            .name("health".into())
            .spawn(move || run(netns.as_deref(), &changes, receiver))?;
        Ok(Checker {
            identity,
            orders,
            watched: HashMap::new(),
        })
    }

    fn watch(&mut self, mut targets: HashSet<CheckTarget>) {
        let mut left: Vec<(CheckTarget, CheckedHealth)> = Vec::new();
        self.watched.retain(|target, shared| {
            let stays = targets.remove(target);
            if !stays {
                let _ = self.orders.send(CheckerCommand::Leave(target.clone()));
                left.push((target.clone(), shared.get()));
            }
            stays
        });
        for target in targets {
            let shared = SharedHealth::default();
            if let Some((_, health)) = left.iter().find(|(other, _)| other.asks_as(&target)) {
                shared.set(health);
            }
            let order = CheckerCommand::Watch(target.clone(), shared.clone());
            // A thread that could not enter its namespace takes no orders; its targets stay unknown.
            let _ = self.orders.send(order);
            self.watched.insert(target, shared);
        }
    }
}

fn run(
    netns: Option<&str>,
    changes: &mpsc::Sender<HealthChange>,
    orders: mpsc::UnboundedReceiver<CheckerCommand>,
) {
    if let Some(name) = netns
        && let Err(error) = netns::enter(name)
    {
        tracing::warn!(%error, "no health checks, backends count as up: {error}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(run_checker(changes, orders)),
        Err(error) => {
            tracing::warn!(netns, %error, "no health checks, backends count as up: {error}");
        }
    }
}

async fn run_checker(
    changes: &mpsc::Sender<HealthChange>,
    mut orders: mpsc::UnboundedReceiver<CheckerCommand>,
) {
    let mut checks = JoinSet::new();
    let mut running: HashMap<CheckTarget, AbortHandle> = HashMap::new();
    while let Some(order) = orders.recv().await {
        match order {
            CheckerCommand::Watch(target, shared) => {
                let check = check(target.clone(), shared, changes.clone());
                running.insert(target, checks.spawn(check));
            }
            CheckerCommand::Leave(target) => {
                if let Some(check) = running.remove(&target) {
                    check.abort();
                }
            }
        }
        while checks.try_join_next().is_some() {}
    }
}

/// Checks one target until aborted.
async fn check(target: CheckTarget, shared: SharedHealth, changes: mpsc::Sender<HealthChange>) {
    let pace = target.pace;
    let mut verdict = HealthTracker::new(pace.fall, pace.rise, shared.get());
    let period = pace.interval.duration();
    let mut ticks = interval_at(Instant::now() + spread(period), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut untested = false;
    loop {
        ticks.tick().await;
        let result = match probe::probe(&target, pace.timeout.duration()).await {
            ProbeOutcome::Answered => Ok(()),
            ProbeOutcome::Failed(why) => Err(why),
            ProbeOutcome::Untested(error) => {
                if !std::mem::replace(&mut untested, true) {
                    let CheckTarget { link, addr, .. } = &target;
                    tracing::warn!(link, %addr, %error, "link \"{link}\": backend {addr} cannot be checked: {error}");
                }
                continue;
            }
        };
        untested = false;
        let changed = verdict.record(result);
        shared.set(verdict.health());
        if changed {
            let change = HealthChange {
                target: target.clone(),
                health: verdict.health().clone(),
            };
            if changes.send(change).await.is_err() {
                return;
            }
        }
    }
}

/// Returns a random part of the period, so that checks that start together spread out. Without a random number it is
/// the whole period: the check is late, but no less reliable.
fn spread(period: Duration) -> Duration {
    let drawn = random::number().unwrap_or(u64::MAX);
    period.mul_f64((drawn >> 11) as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests;
