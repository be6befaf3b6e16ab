//! A link's tunnel MTU: the least that any of its hosts allows, as a sum.
//!
//! What was learned of a path later (ICMP) does not lower it: that concerns one host, and the packet
//! path tells the inner senders by itself.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;

use libgeneve::mtu::TunnelMtu;
use libgeneve::wire::packet::IpVersion;
use rtnetlink::Handle;

use super::underlay::{self, Way};
use crate::control::protocol::MtuSum;

/// What is assumed of an underlay that nothing is known of, in bytes.
const ASSUMED: u32 = 1500;

/// The ways to hosts, each asked for once.
#[derive(Debug, Default)]
pub struct Ways {
    known: HashMap<(IpAddr, Option<IpAddr>), Result<Way, String>>,
}

impl Ways {
    /// Asks the kernel for the ways to all `hosts` of a link that are not known yet.
    pub async fn ask(&mut self, handle: &Handle, hosts: &[IpAddr], local: Option<IpAddr>) {
        for host in hosts {
            if let Entry::Vacant(unknown) = self.known.entry((*host, local)) {
                let way = underlay::way(handle, *host, local).await;
                unknown.insert(way.map_err(|e: io::Error| e.to_string()));
            }
        }
    }

    /// The numbers of the devices by which packets leave for each host that there is a way to.
    #[must_use]
    pub fn devices(&self) -> BTreeMap<IpAddr, BTreeSet<u32>> {
        let mut devices: BTreeMap<IpAddr, BTreeSet<u32>> = BTreeMap::new();
        for ((host, _), way) in &self.known {
            if let Ok(way) = way {
                devices.entry(*host).or_default().insert(way.index);
            }
        }
        devices
    }

    /// The tunnel MTU of a link with these hosts, which wraps packets as `shape` says; underlay and outer version are
    /// those of the hosts.
    #[must_use]
    pub fn sum(&self, hosts: &[IpAddr], local: Option<IpAddr>, shape: TunnelMtu) -> MtuSum {
        let known = |host: &IpAddr| {
            self.known
                .get(&(*host, local))
                .and_then(|w| w.as_ref().ok())
        };
        let tunnel = |underlay, v6| TunnelMtu {
            underlay,
            outer: if v6 { IpVersion::V6 } else { IpVersion::V4 },
            ..shape
        };
        let least = hosts
            .iter()
            .filter_map(|host| Some((host, known(host)?)))
            .map(|(host, way)| (tunnel(way.mtu, host.is_ipv6()), host, way))
            .min_by_key(|(tunnel, ..)| tunnel.mtu());
        if let Some((tunnel, host, way)) = least {
            return MtuSum {
                text: format!("{tunnel}; the route to {host} is dev {}", way.dev),
                underlay: way.mtu,
                host: Some(*host),
                dev: Some(way.dev.clone()),
                inner: tunnel.mtu().into(),
            };
        }
        let v6 = hosts
            .first()
            .or(local.as_ref())
            .is_some_and(IpAddr::is_ipv6);
        let tunnel = tunnel(ASSUMED, v6);
        let why = match hosts.first() {
            None => format!("the link has no host yet, so {ASSUMED} is assumed"),
            Some(host) => {
                let error = self
                    .known
                    .get(&(*host, local))
                    .and_then(|w| w.as_ref().err());
                let error = error.map_or("not asked", String::as_str);
                format!("no route to {host} ({error}), so {ASSUMED} is assumed")
            }
        };
        MtuSum {
            text: format!("{tunnel}; {why}"),
            underlay: ASSUMED,
            host: hosts.first().copied(),
            dev: None,
            inner: tunnel.mtu().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libgeneve::wire::encapsulation::{Encapsulation, Inner};

    fn shape(options: u16) -> TunnelMtu {
        TunnelMtu {
            underlay: 0,
            outer: IpVersion::V4,
            encapsulation: Encapsulation::Geneve,
            inner: Inner::Ip,
            options,
        }
    }

    fn ways(list: &[(&str, Result<u32, &str>)]) -> Ways {
        let mut ways = Ways::default();
        for (host, mtu) in list {
            let way = mtu
                .map(|mtu| Way {
                    dev: "eth0".into(),
                    index: 2,
                    mtu,
                })
                .map_err(str::to_owned);
            ways.known.insert((host.parse().unwrap(), None), way);
        }
        ways
    }

    #[test]
    fn rfc8926_31_the_narrowest_host_and_the_longest_options_decide() {
        let hosts = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let ways = ways(&[("192.0.2.1", Ok(1500)), ("2001:db8::1", Ok(1500))]);
        let sum = ways.sum(&hosts, None, shape(24));
        assert_eq!(
            (sum.inner, sum.host),
            (1500 - 40 - 8 - 8 - 24, Some(hosts[1]))
        );
        assert!(
            sum.text
                .ends_with("= 1420; the route to 2001:db8::1 is dev eth0"),
            "{}",
            sum.text
        );
    }

    #[test]
    fn what_is_not_known_is_assumed_and_said() {
        let host = ["192.0.2.1".parse().unwrap()];
        let sum = ways(&[("192.0.2.1", Err("Network is unreachable"))]).sum(&host, None, shape(0));
        assert_eq!(sum.inner, 1464);
        assert!(
            sum.text
                .contains("no route to 192.0.2.1 (Network is unreachable)"),
            "{}",
            sum.text
        );
        let sum = Ways::default().sum(&[], None, shape(0));
        assert!(
            sum.text.contains("no host yet, so 1500 is assumed"),
            "{}",
            sum.text
        );
    }
}
