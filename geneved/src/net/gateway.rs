//! Kernel settings for packets between a link's interface and the world outside the VPC: forwarding, and the route to
//! an address. Read in the link's own network namespace.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::host_path;
use super::netns::{NetnsError, within};

/// Forwarding and routes of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateway {
    netns: Option<String>,
    link: String,
    forwards_v4: bool,
    forwards_v6: bool,
    /// The device that packets to an address leave by, or why there is none.
    ways: BTreeMap<IpAddr, Result<String, String>>,
}

/// What keeps packets from passing between a link and the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayProblem<'a> {
    /// The kernel does not forward this address family.
    Forwarding(&'a Gateway, IpAddr),
    /// Packets to this outside address, and to this many others, are not routed into the link.
    Route(&'a Gateway, IpAddr, usize),
}

impl Gateway {
    /// Queries the kernel about a link and these addresses.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub async fn query(
        netns: Option<String>,
        link: String,
        addresses: Vec<IpAddr>,
    ) -> Result<Self, NetnsError> {
        within(netns.clone(), move |handle| async move {
            let mut ways = BTreeMap::new();
            let mut devices = host_path::UnderlayDevices::new();
            for addr in addresses {
                let way = host_path::query_host_path(&handle, addr, None, &mut devices).await;
                let dev = way.map(|way| match way.own {
                    true => "lo".to_owned(),
                    false => way.dev().to_owned(),
                });
                ways.insert(addr, dev.map_err(|e| e.to_string()));
            }
            Gateway {
                netns,
                forwards_v4: forwards_v4(&link),
                forwards_v6: setting("ipv6/conf/all/forwarding"),
                link,
                ways,
            }
        })
        .await
    }

    /// Whether the kernel forwards this address's family.
    #[must_use]
    pub fn forwards(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(_) => self.forwards_v4,
            IpAddr::V6(_) => self.forwards_v6,
        }
    }

    /// The device that packets to `addr`, one of the queried addresses, leave by.
    ///
    /// # Errors
    /// If there is none, in the kernel's words.
    pub fn route(&self, addr: IpAddr) -> Result<&str, &str> {
        match self.ways.get(&addr) {
            Some(Ok(dev)) => Ok(dev),
            Some(Err(why)) => Err(why),
            None => Err("not asked"),
        }
    }

    /// Whether packets to `addr` are routed into the link.
    #[must_use]
    pub fn leads_in(&self, addr: IpAddr) -> bool {
        self.route(addr) == Ok(&self.link)
    }

    /// What is missing for these addresses to lead from outside into the link's VPC.
    pub fn lacks<'a>(&'a self, outside: &'a [IpAddr]) -> impl Iterator<Item = GatewayProblem<'a>> {
        let family = |v4: bool| outside.iter().find(move |addr| addr.is_ipv4() == v4);
        let families = [family(true), family(false)].into_iter().flatten();
        let still = families.filter(|addr| !self.forwards(**addr));
        let mut elsewhere = outside.iter().filter(|addr| !self.leads_in(**addr));
        let route = elsewhere.next().map(|addr| (addr, elsewhere.count()));
        still
            .map(|addr| GatewayProblem::Forwarding(self, *addr))
            .chain(route.map(|(addr, more)| GatewayProblem::Route(self, *addr, more)))
    }

    /// Command that routes packets to `addr` into the link.
    #[must_use]
    pub fn route_command(&self, addr: impl fmt::Display) -> String {
        let netns = self.netns.as_ref();
        let inside = netns.map_or_else(String::new, |name| format!("-n {name} "));
        format!("ip {inside}route add {addr} dev {}", self.link)
    }

    /// Command that enables forwarding of this address's family.
    #[must_use]
    pub fn forwarding_command(&self, addr: IpAddr) -> String {
        let netns = self.netns.as_ref();
        let inside = netns.map_or_else(String::new, |name| format!("ip netns exec {name} "));
        format!("{inside}sysctl -w {}=1", forwarding_setting(addr))
    }
}

/// Sysctl that enables forwarding of this address's family.
#[must_use]
pub const fn forwarding_setting(addr: IpAddr) -> &'static str {
    match addr {
        IpAddr::V4(_) => "net.ipv4.ip_forward",
        IpAddr::V6(_) => "net.ipv6.conf.all.forwarding",
    }
}

impl fmt::Display for GatewayProblem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GatewayProblem::Forwarding(gateway, addr) => {
                let (link, setting) = (&gateway.link, forwarding_setting(*addr));
                let command = gateway.forwarding_command(*addr);
                write!(
                    f,
                    "the kernel does not forward between {link} and other interfaces ({setting}); \"{command}\""
                )
            }
            GatewayProblem::Route(gateway, addr, more) => {
                let link = &gateway.link;
                let others = match more {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                };
                match gateway.route(*addr) {
                    Ok("lo") => {
                        return write!(
                            f,
                            "{addr}{others} is an address of this host, so packets to it do not enter {link}; take it off its interface"
                        );
                    }
                    Ok(dev) => write!(f, "{addr}{others} is routed to {dev}, not to {link}")?,
                    Err(why) => write!(f, "there is no route to {addr}{others}: {why}")?,
                }
                write!(f, "; \"{}\"", gateway.route_command(addr))
            }
        }
    }
}

/// Address families that a kernel forwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardedFamilies {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// Reads what the kernel of a namespace forwards of packets that come in by one of these links.
///
/// # Errors
/// If the namespace cannot be entered.
pub async fn forwarding(
    netns: Option<String>,
    links: Vec<String>,
) -> Result<ForwardedFamilies, NetnsError> {
    within(netns, move |_| async move {
        ForwardedFamilies {
            v4: links.iter().any(|link| lets_in_v4(link)),
            v6: setting("ipv6/conf/all/forwarding"),
        }
    })
    .await
}

/// Whether IPv4 packets received on this device are forwarded. A device that does not exist yet will take the
/// default.
fn lets_in_v4(device: &str) -> bool {
    let own = match Path::new("/proc/sys/net/ipv4/conf").join(device).exists() {
        true => device,
        false => "default",
    };
    setting(&format!("ipv4/conf/{own}/forwarding"))
}

/// Whether IPv4 packets pass from the link to another device and back: the setting of the receiving device decides.
fn forwards_v4(link: &str) -> bool {
    let on = |device: &str| setting(&format!("ipv4/conf/{device}/forwarding"));
    let devices = fs::read_dir("/proc/sys/net/ipv4/conf")
        .into_iter()
        .flatten();
    let mut names = devices.flatten().map(|entry| entry.file_name());
    let other = names.any(|name| {
        let name = name.to_string_lossy();
        !["all", "default", "lo", link].contains(&&*name) && on(&name)
    });
    other && lets_in_v4(link)
}

/// Whether a setting below `/proc/sys/net` of the calling thread's namespace is on.
fn setting(name: &str) -> bool {
    let text = fs::read_to_string(Path::new("/proc/sys/net").join(name));
    text.is_ok_and(|text| text.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_command() {
        let outside: [IpAddr; 4] = [
            "198.51.100.1".parse().unwrap(),
            "198.51.100.2".parse().unwrap(),
            "198.51.100.3".parse().unwrap(),
            "2001:db8:5::1".parse().unwrap(),
        ];
        let mut gateway = Gateway {
            netns: Some("red".into()),
            link: "gnv0".into(),
            forwards_v6: true,
            ..Gateway::default()
        };
        let ways = [
            Ok("eth0".to_owned()),
            Ok("lo".to_owned()),
            Ok("gnv0".to_owned()),
            Err("Network is unreachable".to_owned()),
        ];
        gateway.ways = outside.into_iter().zip(ways).collect();
        let said = |outside: &[IpAddr]| -> Vec<String> {
            gateway
                .lacks(outside)
                .map(|lack| lack.to_string())
                .collect()
        };
        assert_eq!(
            said(&outside[..1]),
            [
                "the kernel does not forward between gnv0 and other interfaces (net.ipv4.ip_forward); \
                 \"ip netns exec red sysctl -w net.ipv4.ip_forward=1\"",
                "198.51.100.1 is routed to eth0, not to gnv0; \"ip -n red route add 198.51.100.1 dev gnv0\"",
            ]
        );
        assert!(said(&outside)[1].starts_with("198.51.100.1 (and 2 more) is routed to eth0"));
        assert_eq!(
            said(&outside[1..2])[1],
            "198.51.100.2 is an address of this host, so packets to it do not enter gnv0; take it off its interface"
        );
        assert_eq!(
            said(&outside[3..]),
            [
                "there is no route to 2001:db8:5::1: Network is unreachable; \"ip -n red route add 2001:db8:5::1 dev gnv0\""
            ]
        );
        let forwarding = Gateway {
            forwards_v4: true,
            ..gateway.clone()
        };
        assert_eq!(forwarding.lacks(&outside[2..3]).count(), 0);
    }
}
