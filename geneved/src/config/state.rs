//! The desired state: validated objects that fit together.
//!
//! [`State::apply`] is the only way in, for a line of a file as for a command at run time, so both
//! obey the same rules and meet the same words of refusal. What must be done to get from one state
//! to another is [`super::plan`]'s.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use libgeneve::link::{Df, Tos, Ttl};
use libgeneve::wire::geneve::{GENEVE_PORT, Vni};

use super::value::{
    Action, DfWord, IfName, MtuWord, PortRange, Prefix, TosWord, TtlWord, tunnel_address,
};
use super::words::{Change, EndpointWords, Kind, LinkWords, RouteWords, Verb};

/// A link, every value decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The interface's name.
    pub name: IfName,
    /// The VPC's id.
    pub vni: Vni,
    /// The default route's host.
    pub remote: Option<IpAddr>,
    /// The outer source address.
    pub local: Option<IpAddr>,
    /// The UDP port that is sent to and listened on.
    pub port: u16,
    /// The outer TTL.
    pub ttl: Ttl,
    /// The outer DSCP.
    pub tos: Tos,
    /// The outer DF bit.
    pub df: Df,
    /// Whether a UDP checksum is sent over IPv4.
    pub udp_csum: bool,
    /// Whether the UDP checksum over IPv6 is left zero.
    pub udp6_zero_csum_tx: bool,
    /// Whether a zero UDP checksum is accepted over IPv6.
    pub udp6_zero_csum_rx: bool,
    /// The UDP source ports.
    pub srcport: PortRange,
    /// The inner MTU, or that it is computed.
    pub mtu: MtuWord,
    /// Addresses of the interface.
    pub addresses: Vec<IpNet>,
    /// The network namespace of the interface; `None` is the daemon's.
    pub netns: Option<String>,
}

/// Why a change is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Object, value and reason.
    pub reason: String,
    /// What to do next; may be empty.
    pub hint: String,
}

impl Refusal {
    /// A refusal with a reason and what to do next.
    pub fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Refusal {
            reason: reason.into(),
            hint: hint.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if self.hint.is_empty() {
            Ok(())
        } else {
            write!(f, "; {}", self.hint)
        }
    }
}

impl std::error::Error for Refusal {}

/// Everything that is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Links by name.
    pub links: BTreeMap<IfName, Link>,
    /// The hosts of each link's routes.
    pub routes: BTreeMap<(IfName, IpNet), Vec<IpAddr>>,
    /// The hosts of each link's endpoints; an empty list means this host.
    pub endpoints: BTreeMap<(IfName, IpAddr), Vec<IpAddr>>,
}

impl State {
    /// Makes one change.
    ///
    /// # Errors
    /// The change does not fit; the state is as before.
    pub fn apply(&mut self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change {
                verb,
                link: Some(link),
                route: None,
                endpoint: None,
            } => match verb {
                Verb::Add => self.add_link(link),
                Verb::Set => self.set_link(link),
                Verb::Del => self.del_link(&link.name),
            },
            Change {
                verb,
                link: None,
                route: Some(route),
                endpoint: None,
            } => self.change_route(*verb, route),
            Change {
                verb,
                link: None,
                route: None,
                endpoint: Some(endpoint),
            } => self.change_endpoint(*verb, endpoint),
            _ => Err(Refusal::new("a change must name exactly one object", "")),
        }
    }

    fn add_link(&mut self, words: &LinkWords) -> Result<(), Refusal> {
        if self.links.contains_key(&words.name) {
            return Err(Refusal::new(
                format!("link \"{}\" exists already", words.name),
                "delete it first, change it with \"geneved link set\", or choose another name",
            ));
        }
        let Some(id) = words.id else {
            return Err(Refusal::new(
                format!(
                    "link \"{}\": geneve: missing virtual network identifier",
                    words.name
                ),
                "add \"id VNI\"",
            ));
        };
        let mut link = Link {
            name: words.name.clone(),
            vni: id.0,
            remote: None,
            local: None,
            port: GENEVE_PORT,
            ttl: Ttl::default(),
            tos: Tos::default(),
            df: Df::default(),
            udp_csum: true,
            udp6_zero_csum_tx: false,
            udp6_zero_csum_rx: false,
            srcport: PortRange::default(),
            mtu: MtuWord::Auto,
            addresses: Vec::new(),
            netns: None,
        };
        overwrite(&mut link, words);
        self.check_link(&link, words)?;
        self.links.insert(link.name.clone(), link);
        Ok(())
    }

    fn set_link(&mut self, words: &LinkWords) -> Result<(), Refusal> {
        let mut link = self.link(&words.name)?.clone();
        if words.netns.is_some() && words.netns != link.netns {
            return Err(Refusal::new(
                format!(
                    "link \"{}\": its network namespace cannot be changed",
                    words.name
                ),
                "delete the link and add it with another \"netns\"",
            ));
        }
        overwrite(&mut link, words);
        self.check_link(&link, words)?;
        self.links.insert(link.name.clone(), link);
        Ok(())
    }

    fn check_link(&self, link: &Link, words: &LinkWords) -> Result<(), Refusal> {
        let name = &link.name;
        let taken = self
            .links
            .values()
            .find(|other| other.name != *name && (other.vni, other.port) == (link.vni, link.port));
        if let Some(other) = taken {
            return Err(Refusal::new(
                format!(
                    "link \"{name}\": id {} on port {} is already that of link \"{}\"",
                    link.vni, link.port, other.name
                ),
                "choose another id or dstport",
            ));
        }
        // The kernel lets datagrams without a checksum through for a socket, not for a VNI.
        let differs = self.links.values().find(|other| {
            other.name != *name
                && other.port == link.port
                && other.udp6_zero_csum_rx != link.udp6_zero_csum_rx
        });
        if let Some(other) = differs {
            return Err(Refusal::new(
                format!(
                    "link \"{name}\": udp6zerocsumrx is {} and that of link \"{}\" on the same port {} is not",
                    link.udp6_zero_csum_rx, other.name, link.port
                ),
                "choose another dstport",
            ));
        }
        for (word, addr) in [("remote", link.remote), ("local", link.local)] {
            if let Some(addr) = addr {
                tunnel_address(addr).map_err(|e| {
                    Refusal::new(
                        format!("link \"{name}\": {word} \"{addr}\" is wrong: {e}"),
                        "",
                    )
                })?;
            }
        }
        if let (Some(remote), Some(local)) = (link.remote, link.local) {
            same_family(name, local, remote)?;
            if remote == local {
                return Err(Refusal::new(
                    format!("link \"{name}\": remote and local are both {local}"),
                    "remote is the other host's address",
                ));
            }
        }
        if link.port == 0 {
            return Err(Refusal::new(
                format!("link \"{name}\": dstport \"0\" is wrong: invalid port"),
                "the port is from 1 to 65535; Geneve's is 6081",
            ));
        }
        if let (MtuWord::Fixed(mtu @ ..1280), true) = (
            link.mtu,
            link.addresses.iter().any(|a| matches!(a, IpNet::V6(_))),
        ) {
            return Err(Refusal::new(
                format!("link \"{name}\": mtu {mtu} is too small for its IPv6 address"),
                "IPv6 needs 1280 bytes",
            ));
        }
        if words
            .netns
            .as_deref()
            .is_some_and(|n| n.is_empty() || n.contains('/') || n == "..")
        {
            return Err(Refusal::new(
                format!("link \"{name}\": netns is not the name of a network namespace"),
                "\"ip netns\" lists the names",
            ));
        }
        for (word, action) in [("ingress", words.ingress), ("egress", words.egress)] {
            if action == Some(Action::Deny) {
                return Err(Refusal::new(
                    format!(
                        "link \"{name}\": {word} \"deny\" cannot be enforced: this version has no policies"
                    ),
                    format!("leave \"{word}\" out, or filter on the interface with nftables"),
                ));
            }
        }
        Ok(())
    }

    fn del_link(&mut self, name: &IfName) -> Result<(), Refusal> {
        self.link(name)?;
        self.links.remove(name);
        self.routes.retain(|(dev, _), _| dev != name);
        self.endpoints.retain(|(dev, _), _| dev != name);
        Ok(())
    }

    /// The link of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn link(&self, name: &IfName) -> Result<&Link, Refusal> {
        self.links.get(name).ok_or_else(|| {
            let names: Vec<_> = self.links.keys().map(IfName::as_str).collect();
            let hint = match nearest(name.as_str(), names) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "\"geneved link show\" lists the links".to_owned(),
            };
            Refusal::new(format!("Cannot find device \"{name}\""), hint)
        })
    }

    fn change_route(&mut self, verb: Verb, words: &RouteWords) -> Result<(), Refusal> {
        let RouteWords { prefix, dev, via } = words;
        let link = self.link(dev)?;
        if prefix.has_host_bits() {
            return Err(Refusal::new(
                format!("route \"{prefix}\": bits beyond the prefix length are set"),
                format!("did you mean \"{}\"?", prefix.0.trunc()),
            ));
        }
        let object = format!("route \"{prefix}\" dev {dev}");
        let key = (dev.clone(), prefix.0);
        let there = self.routes.contains_key(&key);
        presence(verb, there, &object, "geneved route show")?;
        if verb == Verb::Del {
            self.routes.remove(&key);
            return Ok(());
        }
        check_hosts(&object, "via", link, via)?;
        self.routes.insert(key, via.clone());
        Ok(())
    }

    fn change_endpoint(&mut self, verb: Verb, words: &EndpointWords) -> Result<(), Refusal> {
        let EndpointWords {
            address,
            dev,
            host,
            local,
        } = words;
        let link = self.link(dev)?;
        let object = format!("endpoint \"{address}\" dev {dev}");
        let key = (dev.clone(), *address);
        let there = self.endpoints.contains_key(&key);
        presence(verb, there, &object, "geneved endpoint show")?;
        if verb == Verb::Del {
            self.endpoints.remove(&key);
            return Ok(());
        }
        if *local {
            if !host.is_empty() {
                return Err(Refusal::new(
                    format!("{object}: is either local or on other hosts"),
                    "name \"host\" or \"local\", not both",
                ));
            }
        } else {
            check_hosts(&object, "host", link, host)?;
        }
        self.endpoints.insert(key, host.clone());
        Ok(())
    }

    /// Prefix and hosts of each route of a link.
    pub fn routes_of(&self, link: &IfName) -> impl Iterator<Item = (IpNet, &Vec<IpAddr>)> {
        let first = (link.clone(), IpNet::V4(Ipv4Net::default()));
        let rest = self.routes.range(first..);
        rest.take_while(move |((dev, _), _)| dev == link)
            .map(|((_, prefix), via)| (*prefix, via))
    }

    /// Address and hosts of each endpoint of a link.
    pub fn endpoints_of(&self, link: &IfName) -> impl Iterator<Item = (IpAddr, &Vec<IpAddr>)> {
        let first = (link.clone(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let rest = self.endpoints.range(first..);
        rest.take_while(move |((dev, _), _)| dev == link)
            .map(|((_, addr), host)| (*addr, host))
    }

    /// Every object in the words that make it again, links first.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let links = self
            .links
            .values()
            .map(|l| Change::link(Verb::Add, l.words()));
        let routes = self.routes.iter().map(|((dev, prefix), via)| {
            let words = RouteWords {
                prefix: Prefix(*prefix),
                dev: dev.clone(),
                via: via.clone(),
            };
            Change::route(Verb::Add, words)
        });
        let endpoints = self.endpoints.iter().map(|((dev, address), host)| {
            let words = EndpointWords {
                address: *address,
                dev: dev.clone(),
                host: host.clone(),
                local: host.is_empty(),
            };
            Change::endpoint(Verb::Add, words)
        });
        links.chain(routes).chain(endpoints).collect()
    }
}

impl Link {
    /// The words that make this link, every one of them.
    #[must_use]
    pub fn words(&self) -> LinkWords {
        LinkWords {
            name: self.name.clone(),
            kind: Some(Kind::Geneve),
            id: Some(super::value::Vni(self.vni)),
            remote: self.remote,
            local: self.local,
            dstport: Some(self.port),
            ttl: Some(TtlWord(self.ttl)),
            tos: Some(TosWord(self.tos)),
            df: Some(DfWord(self.df)),
            udpcsum: Some(self.udp_csum),
            udp6zerocsumtx: Some(self.udp6_zero_csum_tx),
            udp6zerocsumrx: Some(self.udp6_zero_csum_rx),
            srcport: Some(self.srcport.clone()),
            mtu: Some(self.mtu),
            address: self.addresses.iter().copied().map(Prefix).collect(),
            netns: self.netns.clone(),
            ingress: Some(Action::Allow),
            egress: Some(Action::Allow),
        }
    }
}

fn overwrite(link: &mut Link, words: &LinkWords) {
    fn put<T>(into: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *into = value;
        }
    }
    put(&mut link.vni, words.id.map(|id| id.0));
    put(&mut link.remote, words.remote.map(Some));
    put(&mut link.local, words.local.map(Some));
    put(&mut link.port, words.dstport);
    put(&mut link.ttl, words.ttl.map(|w| w.0));
    put(&mut link.tos, words.tos.map(|w| w.0));
    put(&mut link.df, words.df.map(|w| w.0));
    put(&mut link.udp_csum, words.udpcsum);
    put(&mut link.udp6_zero_csum_tx, words.udp6zerocsumtx);
    put(&mut link.udp6_zero_csum_rx, words.udp6zerocsumrx);
    put(&mut link.srcport, words.srcport.clone());
    put(&mut link.mtu, words.mtu);
    put(&mut link.netns, words.netns.clone().map(Some));
    if !words.address.is_empty() {
        link.addresses = words.address.iter().map(|p| p.0).collect();
    }
}

fn presence(verb: Verb, there: bool, object: &str, list: &str) -> Result<(), Refusal> {
    match (verb, there) {
        (Verb::Add, true) => Err(Refusal::new(
            format!("{object} exists already"),
            "change it with \"set\", or delete it first",
        )),
        (Verb::Set | Verb::Del, false) => Err(Refusal::new(
            format!("{object} does not exist"),
            format!("see \"{list}\""),
        )),
        _ => Ok(()),
    }
}

fn check_hosts(object: &str, word: &str, link: &Link, hosts: &[IpAddr]) -> Result<(), Refusal> {
    if hosts.is_empty() {
        return Err(Refusal::new(
            format!("{object}: Not enough information: \"{word}\" argument is required."),
            format!("add \"{word} HOST\", the underlay address of the host that it is on"),
        ));
    }
    for (at, host) in hosts.iter().enumerate() {
        tunnel_address(*host)
            .map_err(|e| Refusal::new(format!("{object}: {word} \"{host}\" is wrong: {e}"), ""))?;
        if let Some(local) = link.local {
            same_family(&link.name, local, *host)?;
        }
        if hosts[..at].contains(host) {
            return Err(Refusal::new(
                format!("{object}: {word} \"{host}\" is duplicate"),
                "",
            ));
        }
    }
    Ok(())
}

fn same_family(name: &IfName, local: IpAddr, other: IpAddr) -> Result<(), Refusal> {
    if local.is_ipv4() == other.is_ipv4() {
        return Ok(());
    }
    Err(Refusal::new(
        format!("link \"{name}\": local {local} and host {other} are of different families"),
        "use IPv4 or IPv6 at both ends of the tunnel",
    ))
}

/// The candidate that is nearest to a word that was mistyped, if one is near enough.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.len().min(word.len()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) that turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<_>, Vec<_>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}
