//! Operator changes and failures: reloads, changes of rules and links, namespaces that vanish, an underlay that goes
//! down, daemons that are stopped or killed.

use super::actor::{Actor, ActorContext, any_of};
use super::arguments::SoakArguments;
use super::hosts::{CHURNED_VPC, ConfigVariant, PLAIN_VPC, SoakHosts, underlay};
use geneved::lab::netns::{self, LabNetns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Kind of trouble.
#[derive(Clone, Copy)]
enum TroubleKind {
    Reload,
    Rules,
    Links,
    Netns,
    Underlay,
    Stall,
    Kill,
}

struct Trouble {
    kind: TroubleKind,
    hosts: Arc<SoakHosts>,
}

/// Returns the actors for all requested trouble.
pub fn troubles(hosts: &Arc<SoakHosts>, arguments: &SoakArguments) -> Vec<Box<dyn Actor>> {
    let kinds = [
        TroubleKind::Reload,
        TroubleKind::Rules,
        TroubleKind::Links,
        TroubleKind::Netns,
        TroubleKind::Underlay,
        TroubleKind::Stall,
        TroubleKind::Kill,
    ];
    let wanted = kinds.into_iter().filter(|kind| arguments.has(kind.word()));
    wanted
        .map(|kind| {
            Box::new(Trouble {
                kind,
                hosts: Arc::clone(hosts),
            }) as Box<dyn Actor>
        })
        .collect()
}

impl TroubleKind {
    fn word(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Rules => "rules",
            Self::Links => "links",
            Self::Netns => "netns",
            Self::Underlay => "underlay",
            Self::Stall => "stall",
            Self::Kill => "kill",
        }
    }

    /// Maximum pause between two steps, in milliseconds.
    fn pause(self) -> u64 {
        match self {
            Self::Reload | Self::Links | Self::Netns => 1500,
            Self::Rules => 200,
            Self::Underlay | Self::Stall => 10_000,
            Self::Kill => 3000,
        }
    }
}

impl Actor for Trouble {
    fn name(&self) -> String {
        format!("trouble {}", self.kind.word())
    }

    fn step(&mut self, cx: &mut ActorContext<'_>) -> Result<u64, String> {
        let outcome = match self.kind {
            TroubleKind::Reload => self.reload(cx),
            TroubleKind::Rules => self.change_rules(cx),
            TroubleKind::Links => self.change_links(cx),
            TroubleKind::Netns => self.take_namespace(cx),
            TroubleKind::Underlay => self.take_underlay(cx),
            TroubleKind::Stall => self.stall(cx),
            TroubleKind::Kill => self.kill(cx),
        };
        cx.gate
            .pause(Duration::from_millis(cx.rng.u64(..self.kind.pause())));
        outcome.map_err(|error| error.to_string())
    }
}

fn milliseconds(cx: &mut ActorContext<'_>, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(cx.rng.u64(range))
}

impl Trouble {
    /// Tries a command that may fail because another change came first: its object may be gone or already exist.
    fn try_command(&self, cx: &ActorContext<'_>, side: usize, words: &str) -> u64 {
        let done = u64::from(self.hosts.cli(side, words).is_ok());
        cx.ledger.count("commands refused", 1 - done);
        done
    }

    fn reload(&self, cx: &mut ActorContext<'_>) -> io::Result<u64> {
        let side = cx.rng.usize(..2);
        self.hosts
            .write(side, ConfigVariant::More(cx.rng.u32(1..40)))?;
        self.hosts.cli(side, "reload")?;
        let time = milliseconds(cx, 0..1000);
        cx.gate.pause(time);
        self.hosts.write(side, ConfigVariant::Usual)?;
        self.hosts.cli(side, "reload")?;
        Ok(2)
    }

    fn change_rules(&self, cx: &mut ActorContext<'_>) -> io::Result<u64> {
        let side = cx.rng.usize(..2);
        let number = cx.rng.u32(..20);
        let (port, plain) = (20 + number, PLAIN_VPC.device);
        let words = match cx.rng.u8(..9) {
            0 | 1 => format!(
                "policy replace r-{number} dev gn ingress pref {number} proto tcp dport {port} reject log"
            ),
            2 => format!("policy del r-{number} dev gn"),
            3 => format!(
                "route replace 10.88.{number}.0/24 dev {plain} via {}",
                PLAIN_VPC.remote(side)
            ),
            4 => format!("route del 10.88.{number}.0/24 dev {plain}"),
            5 => format!(
                "endpoint replace 10.9.1.{} dev {plain} host {}",
                150 + number,
                PLAIN_VPC.remote(side)
            ),
            6 => format!("endpoint del 10.9.1.{} dev {plain}", 150 + number),
            7 => format!("qos set bulk dev gn rate {}mbit", cx.rng.u32(500..1500)),
            // Not on the VPC with source NAT: its connections would get new ports.
            _ => format!("flow flush dev {plain}"),
        };
        Ok(self.try_command(cx, side, &words))
    }

    fn change_links(&self, cx: &mut ActorContext<'_>) -> io::Result<u64> {
        let device = CHURNED_VPC.device;
        let mut done = self.try_command(cx, 0, &format!("link del {device}"));
        let time = milliseconds(cx, 0..500);
        cx.gate.pause(time);
        let netns = self.hosts.tenant(&CHURNED_VPC, 0).name();
        let [v4, v6] = CHURNED_VPC.prefixes(0);
        done += self.try_command(
            cx,
            0,
            &format!(
                "link add {device} type geneve id {} remote {} address {v4} address {v6} netns {netns}",
                CHURNED_VPC.vni,
                CHURNED_VPC.remote(0)
            ),
        );
        Ok(done)
    }

    /// Deletes a namespace with a link in it.
    fn take_namespace(&self, cx: &mut ActorContext<'_>) -> io::Result<u64> {
        let side = cx.rng.usize(..2);
        let host = LabNetns::new(&self.hosts.name("gone"))?;
        let remote = underlay(cx.rng.bool(), 1 - side);
        let kind = any_of(cx.rng, &["geneve", "vxlan"]);
        let words = format!(
            "link add gz type {kind} id 800 remote {remote} address 10.80.0.1/24 netns {}",
            host.name()
        );
        let mut done = self.try_command(cx, side, &words);
        let time = milliseconds(cx, 0..500);
        cx.gate.pause(time);
        netns::remove(host.name())?;
        let time = milliseconds(cx, 0..300);
        cx.gate.pause(time);
        done += self.try_command(cx, side, "link del gz");
        Ok(done)
    }

    fn take_underlay(&self, cx: &mut ActorContext<'_>) -> io::Result<u64> {
        let side = cx.rng.usize(..2);
        let far = cx.rng.bool();
        let tell = |way: &str| match far {
            true => self.hosts.switch.ip(&format!("link set p{side} {way}")),
            false => self.hosts.hosts[side].ip(&format!("link set u0 {way}")),
        };
        tell("down")?;
        let time = milliseconds(cx, 100..1500);
        cx.gate.pause(time);
        tell("up")?;
        Ok(1)
    }

    /// Stops a daemon for a while, like a machine that swaps or migrates.
    fn stall(&self, cx: &mut ActorContext<'_>) -> io::Result<u64> {
        let side = cx.rng.usize(..2);
        let pid = Pid::from_raw(self.hosts.pid(side).cast_signed());
        kill(pid, Signal::SIGSTOP)?;
        let time = milliseconds(cx, 50..1500);
        cx.gate.pause(time);
        kill(pid, Signal::SIGCONT)?;
        Ok(1)
    }

    /// Kills host c's daemon and starts another.
    fn kill(&self, cx: &mut ActorContext<'_>) -> io::Result<u64> {
        let place = &self.hosts.daemons[2];
        let killed = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(daemon) = killed {
            daemon.kill()?;
        }
        let time = milliseconds(cx, 0..1000);
        cx.gate.pause(time);
        let born = self.hosts.start(2)?;
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(born);
        Ok(1)
    }
}
