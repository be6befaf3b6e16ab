//! Services: virtual addresses with their backends.

use std::net::IpAddr;

use super::{DesiredState, presence, put, required};
use crate::config::args::{BackendArgs, ChangeVerb, ServiceArgs};
use crate::config::value::{
    AddrPort, AffinityValue, CheckValue, IfName, ObjectName, ProtocolValue, Seconds,
};
use crate::refusal::Refusal;

/// Maximum number of backends of a service.
pub const MAX_BACKENDS: usize = 1024;

/// A service; all its addresses are of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Virtual address that clients connect to.
    pub vip: IpAddr,
    /// TCP or UDP.
    pub proto: ProtocolValue,
    /// Port that clients connect to.
    pub port: u16,
    /// Backends: at least one, each address and port once.
    pub backends: Vec<BackendArgs>,
    /// Session affinity.
    pub affinity: AffinityValue,
    /// Health check of the backends.
    pub check: CheckValue,
    /// Timing and thresholds of the health check.
    pub pace: CheckTiming,
}

/// Timing of health checks, and thresholds for a change of health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CheckTiming {
    /// Time from the start of one check to the start of the next.
    pub interval: Seconds,
    /// Timeout of a check; not more than `interval`.
    pub timeout: Seconds,
    /// Number of consecutive successes that bring a backend up; at least 1.
    pub rise: u8,
    /// Number of consecutive failures that take it down; at least 1.
    pub fall: u8,
}

impl Default for CheckTiming {
    fn default() -> Self {
        CheckTiming {
            interval: Seconds::from_millis(2000),
            timeout: Seconds::from_millis(1000),
            rise: 2,
            fall: 3,
        }
    }
}

impl CheckTiming {
    fn overwrite(&mut self, words: &ServiceArgs) {
        put(&mut self.interval, words.interval);
        put(&mut self.timeout, words.timeout);
        put(&mut self.rise, words.rise);
        put(&mut self.fall, words.fall);
    }

    fn check(&self, object: &str) -> Result<(), Refusal> {
        for (word, count) in [("rise", self.rise), ("fall", self.fall)] {
            if count == 0 {
                return Err(Refusal::new(
                    format!("{object}: {word} \"0\" is wrong: from 1 to 255"),
                    "",
                ));
            }
        }
        if self.timeout > self.interval {
            return Err(Refusal::new(
                format!(
                    "{object}: timeout {} is longer than interval {}",
                    self.timeout, self.interval
                ),
                "a check ends before the next one begins",
            ));
        }
        Ok(())
    }
}

impl ServiceSpec {
    /// Address, port and weight of each backend.
    pub fn targets(&self) -> impl Iterator<Item = (IpAddr, u16, u16)> {
        self.backends.iter().map(|b| {
            (
                b.address,
                b.port.unwrap_or(self.port),
                b.weight.unwrap_or(1),
            )
        })
    }

    /// Converts to the words that create it.
    #[must_use]
    pub fn words(&self, dev: &IfName, name: &ObjectName) -> ServiceArgs {
        let checked = (self.check != CheckValue::None).then_some(self.pace);
        ServiceArgs {
            name: name.clone(),
            dev: dev.clone(),
            vip: Some(self.vip),
            proto: Some(self.proto),
            port: Some(self.port),
            backend: self.backends.clone(),
            affinity: Some(self.affinity),
            check: Some(self.check),
            interval: checked.map(|pace| pace.interval),
            timeout: checked.map(|pace| pace.timeout),
            rise: checked.map(|pace| pace.rise),
            fall: checked.map(|pace| pace.fall),
        }
    }

    fn from_words(object: &str, words: &ServiceArgs) -> Result<ServiceSpec, Refusal> {
        let proto = required(object, "proto", words.proto)?;
        let check = match proto {
            ProtocolValue::TCP => CheckValue::Tcp,
            _ => CheckValue::Icmp,
        };
        let mut pace = CheckTiming::default();
        pace.overwrite(words);
        if words.timeout.is_none() {
            pace.timeout = pace.timeout.min(pace.interval);
        }
        Ok(ServiceSpec {
            vip: required(object, "vip", words.vip)?,
            proto,
            port: required(object, "port", words.port)?,
            backends: words.backend.clone(),
            affinity: words.affinity.unwrap_or(AffinityValue::None),
            check: words.check.unwrap_or(check),
            pace,
        })
    }

    fn overwrite(&mut self, words: &ServiceArgs) {
        put(&mut self.vip, words.vip);
        put(&mut self.proto, words.proto);
        put(&mut self.port, words.port);
        put(&mut self.affinity, words.affinity);
        put(&mut self.check, words.check);
        self.pace.overwrite(words);
        if !words.backend.is_empty() {
            self.backends.clone_from(&words.backend);
        }
    }

    fn check(&self, object: &str) -> Result<(), Refusal> {
        let refuse =
            |what: String, hint: &str| Err(Refusal::new(format!("{object}: {what}"), hint));
        if !self.proto.has_ports() {
            return refuse(
                format!("protocol {} has no ports that geneved reads", self.proto),
                "\"proto tcp\" or \"proto udp\"",
            );
        }
        if self.port == 0 || self.backends.iter().any(|b| b.port == Some(0)) {
            return refuse(
                "port \"0\" is wrong: invalid port".into(),
                "the port is from 1 to 65535",
            );
        }
        if self.backends.is_empty() {
            return refuse(
                "Not enough information: \"backend\" argument is required.".into(),
                "add \"backend ADDR[:PORT]\"",
            );
        }
        if self.backends.len() > MAX_BACKENDS {
            return refuse(format!("more than {MAX_BACKENDS} backends"), "");
        }
        self.pace.check(object)?;
        let mut seen = std::collections::BTreeSet::new();
        for (addr, port, _) in self.targets() {
            let shown = AddrPort {
                addr,
                port: Some(port),
            };
            if addr.is_ipv4() != self.vip.is_ipv4() {
                return refuse(
                    format!(
                        "vip {} and backend {addr} are of different families",
                        self.vip
                    ),
                    "a service does not translate between IPv4 and IPv6",
                );
            }
            if addr == self.vip {
                return refuse(format!("backend {addr} is the vip itself"), "");
            }
            if !seen.insert((addr, port)) {
                return refuse(
                    format!("backend \"{shown}\" is duplicate"),
                    "give it a larger weight instead",
                );
            }
        }
        Ok(())
    }
}

impl DesiredState {
    pub(super) fn change_service(
        &mut self,
        verb: ChangeVerb,
        words: &ServiceArgs,
    ) -> Result<(), Refusal> {
        let ServiceArgs { name, dev, .. } = words;
        self.link(dev)?;
        let object = format!("service \"{name}\" dev {dev}");
        let key = (dev.clone(), name.clone());
        let there = self.services.get(&key);
        let names = self.services_of(dev).map(|(name, _)| name);
        presence(verb, there.is_some(), &object, ("service", name), names)?;
        if verb == ChangeVerb::Del {
            self.services.remove(&key);
            return Ok(());
        }
        let service = match there.filter(|_| verb == ChangeVerb::Set) {
            None => ServiceSpec::from_words(&object, words)?,
            Some(there) => {
                let mut service = there.clone();
                service.overwrite(words);
                service
            }
        };
        service.check(&object)?;
        // A host that relays to a backend carries the client's original destination in an option.
        self.check_carried(dev, &object, "service")?;
        let paced = [words.interval, words.timeout].iter().any(Option::is_some)
            || [words.rise, words.fall].iter().any(Option::is_some);
        if service.check == CheckValue::None && paced {
            return Err(Refusal::new(
                format!(
                    "{object}: backends that are not checked have no interval, timeout, rise or fall"
                ),
                "add \"check tcp\" or \"check icmp\", or leave them out",
            ));
        }
        let asked = |s: &ServiceSpec| (s.vip, s.proto, s.port);
        let taken = self
            .services_of(dev)
            .find(|(other, s)| *other != name && asked(s) == asked(&service));
        if let Some((other, s)) = taken {
            return Err(Refusal::new(
                format!(
                    "{object}: {} port {} of {} is already that of service \"{other}\"",
                    s.proto, s.port, s.vip
                ),
                "choose another vip or port",
            ));
        }
        self.services.insert(key, service);
        Ok(())
    }
}
