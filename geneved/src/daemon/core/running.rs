//! Run-time state of a link: its interface, and what keeps it from working.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use libgeneve::vpc::LinkIndex;

use super::address_follower::AddressFollower;
use crate::config::state::LinkSpec;
use crate::net::interface::{InterfaceStatus, OwnInterface};
use crate::net::mtu::ComputedMtu;
use crate::net::netns::NetnsId;

/// Run-time state of a link, or why it does not run.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct LinkRuntime {
    pub(in crate::daemon) index: LinkIndex,
    pub(in crate::daemon) sum: ComputedMtu,
    /// The MTU that its interface should have.
    pub(in crate::daemon) mtu: u16,
    pub(in crate::daemon) obstacle: Option<Obstacle>,
    /// Index of its interface, or 0 without one: the name may pass to another interface.
    pub(in crate::daemon) ifindex: u32,
    /// Network namespace that its interface was moved to, if not the daemon's own.
    pub(super) netns: Option<NetnsId>,
    /// The name of its namespace was deleted; the interface may live on in it.
    pub(in crate::daemon) nameless: bool,
    /// What could not be restored on the interface, and why.
    pub(in crate::daemon) defect: Option<String>,
    pub(super) repairs: RepairLimit,
    /// Addresses that others gave its interface.
    pub(super) following: AddressFollower,
    pub(super) attempts: RetryBackoff,
    /// The interface as last reported to watchers.
    pub(super) told: Option<InterfaceStatus>,
    /// Not found at the last check. A removal is reported by the worker that reads the interface.
    pub(super) absent: bool,
}

impl LinkRuntime {
    pub(super) fn new(index: LinkIndex, mtu: u16, sum: ComputedMtu) -> Self {
        LinkRuntime {
            index,
            sum,
            mtu,
            obstacle: None,
            ifindex: 0,
            netns: None,
            nameless: false,
            defect: None,
            repairs: RepairLimit::default(),
            following: AddressFollower::default(),
            attempts: RetryBackoff::default(),
            told: None,
            absent: false,
        }
    }

    /// Whether it has an interface, even if packets cannot leave yet.
    pub(in crate::daemon) fn has_interface(&self) -> bool {
        matches!(self.obstacle, None | Some(Obstacle::NoSockets(_)))
    }

    /// Whether what was seen under its name is its own interface.
    pub(in crate::daemon) fn owns(&self, seen: &InterfaceStatus) -> bool {
        self.ifindex == seen.ifindex
    }

    /// Its interface, given that this is its link.
    pub(super) fn own(&self, link: &LinkSpec) -> OwnInterface {
        OwnInterface {
            netns: link.netns.clone(),
            name: link.name.to_string(),
            ifindex: self.ifindex,
        }
    }

    /// Whether a reload creates it again.
    pub(super) fn is_lost(&self) -> bool {
        matches!(
            self.obstacle,
            Some(Obstacle::Removed(_) | Obstacle::Elsewhere(_))
        )
    }

    /// Whether it becomes ready as soon as its obstacle is gone.
    pub(in crate::daemon) fn waits(&self) -> bool {
        matches!(
            self.obstacle,
            Some(Obstacle::NoInterface(_) | Obstacle::NoSockets(_))
        )
    }
}

/// What keeps a link from working, with a description of the cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Obstacle {
    /// Its interface was removed; it is created again on request.
    Removed(String),
    /// Its interface was renamed or moved to another namespace, and another one may have its name. It is created
    /// again on request, and taken back if it returns.
    Elsewhere(String),
    /// Its interface cannot be created yet.
    NoInterface(String),
    /// It has an interface, but its port or its local address is not available yet.
    NoSockets(String),
}

impl Obstacle {
    /// The description of the cause.
    pub(in crate::daemon) fn cause(&self) -> &str {
        let (Obstacle::Removed(cause)
        | Obstacle::Elsewhere(cause)
        | Obstacle::NoInterface(cause)
        | Obstacle::NoSockets(cause)) = self;
        cause
    }

    /// The link's state as one word.
    pub(in crate::daemon) fn state(&self) -> &'static str {
        match self {
            Obstacle::Removed(_) | Obstacle::Elsewhere(_) => "lost",
            Obstacle::NoInterface(_) | Obstacle::NoSockets(_) => "waiting",
        }
    }
}

/// Schedule of attempts to bring up a link: short intervals at first, then every second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RetryBackoff {
    next: Option<Instant>,
    pause: Duration,
}

impl RetryBackoff {
    pub(super) const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(1);

    /// Whether an attempt is due; counts it if so.
    pub(super) fn due(&mut self, now: Instant) -> bool {
        if self.next.is_some_and(|next| now < next) {
            return false;
        }
        self.pause = (self.pause * 2).clamp(Self::FIRST, Self::LONGEST);
        self.next = Some(now + self.pause);
        true
    }
}

/// Rate limit of repairs to an interface, so that the daemon does not fight another program.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RepairLimit {
    since: Option<Instant>,
    count: u32,
    /// A difference is left alone for the moment.
    pub(super) pending: bool,
}

impl RepairLimit {
    /// Maximum number of repairs within the window.
    const BURST: u32 = 5;
    const WINDOW: Duration = Duration::from_secs(30);

    /// Whether another repair is allowed now.
    pub(super) fn allow(&mut self, now: Instant) -> bool {
        if self
            .since
            .is_none_or(|since| now.duration_since(since) >= Self::WINDOW)
        {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count += 1;
        self.pending = self.count > Self::BURST;
        !self.pending
    }

    /// Records that a repair failed: it is retried when the window is over.
    pub(super) fn failed(&mut self) {
        (self.count, self.pending) = (Self::BURST + 1, true);
    }

    /// Whether this is the first repair over the limit.
    pub(super) fn just_ended(&self) -> bool {
        self.count == Self::BURST + 1
    }
}

/// How an interface differs from its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InterfaceDrift {
    /// The MTU that it should have.
    pub(super) mtu: Option<u16>,
    /// Configured addresses that it lacks.
    pub(super) missing: Vec<IpNet>,
}

impl InterfaceDrift {
    /// Compares an interface with its configuration. Addresses of an interface that is down are ignored: the kernel
    /// keeps no IPv6 addresses there.
    pub(super) fn of(seen: &InterfaceStatus, mtu: u16, addresses: &[IpNet]) -> Self {
        let missing = |address: &&IpNet| {
            seen.is_up()
                && !seen.addresses.contains(address)
                && crate::net::interface::can_have(address, mtu)
        };
        InterfaceDrift {
            mtu: (seen.mtu != u32::from(mtu)).then_some(mtu),
            missing: addresses.iter().filter(missing).copied().collect(),
        }
    }

    pub(super) fn is_none(&self) -> bool {
        *self == InterfaceDrift::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_soon_at_first_and_every_second_then() {
        let (mut attempts, start) = (RetryBackoff::default(), Instant::now());
        let mut at = Vec::new();
        for ms in (0..6000).step_by(250) {
            if attempts.due(start + Duration::from_millis(ms)) {
                at.push(ms);
            }
        }
        assert_eq!(at, [0, 250, 750, 1750, 2750, 3750, 4750, 5750]);
    }

    #[test]
    fn whoever_changes_an_interface_again_and_again_is_left_alone_for_a_while() {
        let (mut repairs, start) = (RepairLimit::default(), Instant::now());
        let mut fight = |second| repairs.allow(start + Duration::from_secs(second));
        assert!((0..5).all(&mut fight));
        assert!(!fight(6));
        assert!(repairs.just_ended() && repairs.pending);
        assert!(!repairs.allow(start + Duration::from_secs(29)));
        assert!(!repairs.just_ended());
        assert!(repairs.allow(start + Duration::from_secs(30)) && !repairs.pending);
    }

    #[test]
    fn what_differs_is_told_from_what_the_kernel_cannot_have() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let addresses = [net("10.0.0.1/24"), net("fd00::1/64")];
        let mut seen = InterfaceStatus {
            mtu: 1400,
            flags: vec!["UP".into()],
            addresses: vec![net("10.0.0.1/24"), net("192.0.2.1/24")],
            ..InterfaceStatus::default()
        };
        let drift = InterfaceDrift::of(&seen, 1464, &addresses);
        assert_eq!(drift.mtu, Some(1464));
        assert_eq!(drift.missing, [net("fd00::1/64")]);
        assert_eq!(InterfaceDrift::of(&seen, 1200, &addresses).missing, []);
        seen.flags.clear();
        assert!(InterfaceDrift::of(&seen, 1400, &addresses).is_none());
    }
}
