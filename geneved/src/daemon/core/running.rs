//! What is known of a link while the daemon runs: its interface, and what keeps it from working.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use libgeneve::vpc::LinkIndex;

use super::address_follower::AddressFollower;
use crate::config::state::LinkSpec;
use crate::net::interface::{InterfaceStatus, OwnInterface};
use crate::net::mtu::ComputedMtu;
use crate::net::netns::NetnsId;

/// A link as it runs, or why it does not.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct LinkRuntime {
    pub(in crate::daemon) index: LinkIndex,
    pub(in crate::daemon) sum: ComputedMtu,
    /// The MTU that its interface is to have.
    pub(in crate::daemon) mtu: u16,
    pub(in crate::daemon) obstacle: Option<Obstacle>,
    /// The number of its interface, 0 where it has none: another interface may get its name.
    pub(in crate::daemon) ifindex: u32,
    /// The network namespace that its interface was put into, where that is not the daemon's own.
    pub(super) netns: Option<NetnsId>,
    /// Somebody deleted the name of its namespace; the interface may live on in it.
    pub(in crate::daemon) nameless: bool,
    /// What could not be given back to the interface, and why.
    pub(in crate::daemon) defect: Option<String>,
    pub(super) repairs: RepairLimit,
    /// The addresses that others gave its interface.
    pub(super) following: AddressFollower,
    pub(super) attempts: RetryBackoff,
    /// The interface as those who watch were told of it last.
    pub(super) told: Option<InterfaceStatus>,
    /// It was not found at the last look. One that was removed is told of by the worker that reads it.
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

    /// Whether it has an interface, whether or not packets can leave by it.
    pub(in crate::daemon) fn has_interface(&self) -> bool {
        matches!(self.obstacle, None | Some(Obstacle::NoSockets(_)))
    }

    /// Whether what was seen under its name is its own interface.
    pub(in crate::daemon) fn owns(&self, seen: &InterfaceStatus) -> bool {
        self.ifindex == seen.ifindex
    }

    /// Its interface, which is to be that of this link.
    pub(super) fn own(&self, link: &LinkSpec) -> OwnInterface {
        OwnInterface {
            netns: link.netns.clone(),
            name: link.name.to_string(),
            ifindex: self.ifindex,
        }
    }

    /// Whether it is made anew on a reload.
    pub(super) fn is_lost(&self) -> bool {
        matches!(
            self.obstacle,
            Some(Obstacle::Removed(_) | Obstacle::Elsewhere(_))
        )
    }

    /// Whether it is made ready as soon as what keeps it from that is gone.
    pub(in crate::daemon) fn waits(&self) -> bool {
        matches!(
            self.obstacle,
            Some(Obstacle::NoInterface(_) | Obstacle::NoSockets(_))
        )
    }
}

/// What keeps a link from working, with the cause in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Obstacle {
    /// Somebody removed its interface, which is made again when somebody asks for it.
    Removed(String),
    /// Somebody renamed its interface, or moved it to another namespace; another one may have its name. It is made again when somebody asks for it, and
    /// taken back where it comes back.
    Elsewhere(String),
    /// Its interface cannot be made yet.
    NoInterface(String),
    /// It has an interface, but its port or its local address cannot be had yet.
    NoSockets(String),
}

impl Obstacle {
    /// Why.
    pub(in crate::daemon) fn cause(&self) -> &str {
        let (Obstacle::Removed(cause)
        | Obstacle::Elsewhere(cause)
        | Obstacle::NoInterface(cause)
        | Obstacle::NoSockets(cause)) = self;
        cause
    }

    /// The link's state in a word.
    pub(in crate::daemon) fn state(&self) -> &'static str {
        match self {
            Obstacle::Removed(_) | Obstacle::Elsewhere(_) => "lost",
            Obstacle::NoInterface(_) | Obstacle::NoSockets(_) => "waiting",
        }
    }
}

/// When it is tried again to make a link ready: soon at first, then every second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RetryBackoff {
    next: Option<Instant>,
    pause: Duration,
}

impl RetryBackoff {
    pub(super) const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(1);

    /// Whether it is time; notes an attempt if so.
    pub(super) fn due(&mut self, now: Instant) -> bool {
        if self.next.is_some_and(|next| now < next) {
            return false;
        }
        self.pause = (self.pause * 2).clamp(Self::FIRST, Self::LONGEST);
        self.next = Some(now + self.pause);
        true
    }
}

/// How often an interface was set right of late: whoever changes it again and again is not fought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RepairLimit {
    since: Option<Instant>,
    count: u32,
    /// It is not as it should be, and is left so for the moment.
    pub(super) pending: bool,
}

impl RepairLimit {
    /// Repairs within the window.
    const BURST: u32 = 5;
    const WINDOW: Duration = Duration::from_secs(30);

    /// Whether one more is allowed now.
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

    /// What was to be set right cannot be: it is tried again when the window is over.
    pub(super) fn failed(&mut self) {
        (self.count, self.pending) = (Self::BURST + 1, true);
    }

    /// Whether this is the first that is not allowed.
    pub(super) fn just_ended(&self) -> bool {
        self.count == Self::BURST + 1
    }
}

/// How an interface differs from what it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InterfaceDrift {
    /// The MTU that it should have.
    pub(super) mtu: Option<u16>,
    /// Configured addresses that it has not.
    pub(super) missing: Vec<IpNet>,
}

impl InterfaceDrift {
    /// Compares what the kernel says with what is configured. The addresses of an interface that is down are left
    /// alone: the kernel keeps none of IPv6 there.
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
