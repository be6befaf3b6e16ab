//! The path MTU to one host: what this host's route allows, and what an ICMP error reported of the rest of the way.
//!
//! Owns for how long a report holds and what it never goes below. Whether it is believed is decided before
//! ([`datapath::judge_icmp_error`](crate::datapath::judge_icmp_error)).

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::mtu::MIN_IPV6;
use crate::time::Now;

/// For how long a report holds: ten minutes (RFC 1191 section 6.3, RFC 8201 section 4).
pub const REPORT_LIFETIME: Duration = Duration::from_secs(600);
/// What no report over IPv4 goes below unless the operator says otherwise: what every host takes (RFC 791
/// section 3.1).
pub const MIN_PATH_MTU_V4: u32 = 576;

/// Why a reported path MTU is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathMtuEvidence {
    /// The error quotes a packet of a flow that is there, longer than the reported MTU.
    Flow,
    /// A datagram that is longer than the reported MTU left lately from the quoted port.
    Length,
}

/// A reported path MTU that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtuReport {
    /// The MTU that is sent by, in bytes of outer IP packet.
    pub mtu: u32,
    /// What the error said; less than `mtu` where that is the least that is believed.
    pub reported: u32,
    /// Whose address the error came from, which may be forged.
    pub by: IpAddr,
    /// When it came.
    pub at: Now,
    /// Why it is believed.
    pub evidence: PathMtuEvidence,
}

/// What is known of the MTU of the path to a host.
#[derive(Debug, Default)]
pub struct PathMtu {
    /// What the report comes to, for the packet path; 0 where there is none.
    reported: AtomicU32,
    /// What the route of this host allows; 0 where that is not known.
    route: AtomicU32,
    report: Mutex<Option<PathMtuReport>>,
}

impl PathMtu {
    /// What was reported, in bytes of outer IP packet.
    #[inline]
    #[must_use]
    pub fn reported(&self) -> Option<u32> {
        Some(self.reported.load(Relaxed)).filter(|&mtu| mtu != 0)
    }

    /// What this host's route allows, in bytes of outer IP packet.
    #[inline]
    #[must_use]
    pub fn route(&self) -> Option<u32> {
        Some(self.route.load(Relaxed)).filter(|&mtu| mtu != 0)
    }

    /// Sets what the route allows; `None` where there is none.
    pub fn set_route(&self, mtu: Option<u32>) {
        self.route.store(mtu.unwrap_or(0), Relaxed);
    }

    /// The report that holds.
    #[must_use]
    pub fn report(&self) -> Option<PathMtuReport> {
        *self.lock()
    }

    /// Believes a report, if it makes the path narrower than it is known to be; `least` is the operator's bound. Returns the
    /// report as it holds from now on. One that says what is known already does not hold any longer for it.
    pub fn learn(&self, report: PathMtuReport, least: Option<u32>) -> Option<PathMtuReport> {
        let report = PathMtuReport {
            mtu: report.reported.max(least_of(report.by, least)),
            ..report
        };
        let known = [self.reported(), self.route()].into_iter().flatten().min();
        if known.is_some_and(|known| report.mtu >= known) {
            return None;
        }
        let mut held = self.lock();
        *held = Some(report);
        self.reported.store(report.mtu, Relaxed);
        Some(report)
    }

    /// Forgets the report; returns it where there was one.
    pub fn forget(&self) -> Option<PathMtuReport> {
        let mut held = self.lock();
        self.reported.store(0, Relaxed);
        held.take()
    }

    /// Forgets a report that has held for so long; returns it.
    pub fn expire(&self, now: Now, lifetime: Duration) -> Option<PathMtuReport> {
        let over = |report: &PathMtuReport| now.since(report.at) >= lifetime;
        self.report().filter(over).and_then(|_| self.forget())
    }

    /// Sets what is reported without saying by whom.
    pub(super) fn set_reported(&self, mtu: Option<u32>) {
        self.reported.store(mtu.unwrap_or(0), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Option<PathMtuReport>> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What no report from a router of this family goes below; `operator` is the operator's bound, which is no less than the
/// family's own for IPv6.
#[must_use]
pub fn least_of(router: IpAddr, operator: Option<u32>) -> u32 {
    match router {
        IpAddr::V4(_) => operator.unwrap_or(MIN_PATH_MTU_V4),
        IpAddr::V6(_) => operator.unwrap_or(MIN_IPV6).max(MIN_IPV6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now(seconds * 1_000_000_000)
    }

    fn report(reported: u32, by: &str, seconds: u64) -> PathMtuReport {
        PathMtuReport {
            mtu: 0,
            reported,
            by: by.parse().unwrap(),
            at: at(seconds),
            evidence: PathMtuEvidence::Flow,
        }
    }

    #[test]
    fn a_report_makes_a_path_narrower_until_its_time_is_over() {
        let path = PathMtu::default();
        path.set_route(Some(1500));
        assert_eq!(path.learn(report(1500, "192.0.2.7", 1), None), None);
        let held = path.learn(report(1400, "192.0.2.7", 1), None).unwrap();
        assert_eq!((held.mtu, path.reported()), (1400, Some(1400)));
        // Saying it again does not make it hold any longer, and a wider one is no news.
        assert_eq!(path.learn(report(1400, "192.0.2.7", 300), None), None);
        assert_eq!(path.learn(report(1450, "192.0.2.7", 300), None), None);
        assert_eq!(path.expire(at(600), REPORT_LIFETIME), None);
        assert_eq!(path.expire(at(601), REPORT_LIFETIME), Some(held));
        assert_eq!((path.reported(), path.report()), (None, None));
        assert!(path.learn(report(1300, "192.0.2.7", 700), None).is_some());
        assert!(path.learn(report(1200, "192.0.2.7", 800), None).is_some());
        assert_eq!(path.expire(at(1399), REPORT_LIFETIME), None);
        assert!(path.forget().is_some() && path.forget().is_none());
    }

    #[test]
    fn no_report_goes_below_what_every_path_carries_or_the_operator_says() {
        for (reported, by, least, held) in [
            (0, "192.0.2.7", None, 576),
            (68, "192.0.2.7", None, 576),
            (68, "192.0.2.7", Some(1400), 1400),
            (400, "192.0.2.7", Some(300), 400),
            (68, "2001:db8::7", None, 1280),
            (68, "2001:db8::7", Some(300), 1280),
            (68, "2001:db8::7", Some(1400), 1400),
            (1420, "2001:db8::7", Some(1400), 1420),
        ] {
            let path = PathMtu::default();
            let learned = path.learn(report(reported, by, 1), least).unwrap();
            assert_eq!(
                (learned.mtu, learned.reported),
                (held, reported),
                "{by} {least:?}"
            );
        }
    }
}
