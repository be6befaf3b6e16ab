//! Path MTU to one host: the MTU of the local route, and the MTU that an ICMP error reported for the rest of the
//! path.
//!
//! Owns how long a report is valid, and its lower bound. Whether it is believed is decided by
//! [`datapath::judge_icmp_error`](crate::datapath::judge_icmp_error).

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::mtu::MIN_IPV6;
use crate::time::Now;

/// How long a report is valid: ten minutes (RFC 1191 section 6.3, RFC 8201 section 4).
pub const REPORT_LIFETIME: Duration = Duration::from_secs(600);
/// Lower bound of reports over IPv4 unless the operator sets another: the packet size that every host must accept
/// (RFC 791 section 3.1).
pub const MIN_PATH_MTU_V4: u32 = 576;

/// Why a reported path MTU is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathMtuEvidence {
    /// The error quotes a packet of an existing flow, longer than the reported MTU.
    Flow,
    /// A datagram longer than the reported MTU was recently sent from the quoted port.
    Length,
}

/// An accepted path MTU report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtuReport {
    /// The MTU to use, in bytes of outer IP packet.
    pub mtu: u32,
    /// The MTU in the error; less than `mtu` if it was below the lower bound.
    pub reported: u32,
    /// Source address of the error, which may be forged.
    pub by: IpAddr,
    /// When the error arrived.
    pub at: Now,
    /// Why it is believed.
    pub evidence: PathMtuEvidence,
}

/// Path MTU to a host, as far as known.
#[derive(Debug, Default)]
pub struct PathMtu {
    /// MTU of the valid report, for the packet path; 0 if there is none.
    reported: AtomicU32,
    /// MTU of the local route; 0 if not known.
    route: AtomicU32,
    report: Mutex<Option<PathMtuReport>>,
}

impl PathMtu {
    /// Returns the reported MTU, in bytes of outer IP packet.
    #[inline]
    #[must_use]
    pub fn reported(&self) -> Option<u32> {
        Some(self.reported.load(Relaxed)).filter(|&mtu| mtu != 0)
    }

    /// Returns the MTU of the local route, in bytes of outer IP packet.
    #[inline]
    #[must_use]
    pub fn route(&self) -> Option<u32> {
        Some(self.route.load(Relaxed)).filter(|&mtu| mtu != 0)
    }

    /// Sets the MTU of the local route; `None` if there is none.
    pub fn set_route(&self, mtu: Option<u32>) {
        self.route.store(mtu.unwrap_or(0), Relaxed);
    }

    /// Returns the valid report.
    #[must_use]
    pub fn report(&self) -> Option<PathMtuReport> {
        *self.lock()
    }

    /// Accepts a report if it lowers the known path MTU, and returns it with the MTU that is used; `least` is the
    /// operator's lower bound. A report of an MTU that is already known does not extend its lifetime.
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

    /// Removes the report, and returns it if there was one.
    pub fn forget(&self) -> Option<PathMtuReport> {
        let mut held = self.lock();
        self.reported.store(0, Relaxed);
        held.take()
    }

    /// Removes and returns a report that is older than `lifetime`.
    pub fn expire(&self, now: Now, lifetime: Duration) -> Option<PathMtuReport> {
        let over = |report: &PathMtuReport| now.since(report.at) >= lifetime;
        self.report().filter(over).and_then(|_| self.forget())
    }

    /// Sets the reported MTU without a report.
    pub(super) fn set_reported(&self, mtu: Option<u32>) {
        self.reported.store(mtu.unwrap_or(0), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Option<PathMtuReport>> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the lower bound for reports of a router of this family; `operator` is the operator's bound, which for IPv6
/// is never less than the family's own minimum.
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
        // Repeating a report does not extend its lifetime, and a larger MTU is ignored.
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
