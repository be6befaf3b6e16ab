//! Addresses, prefixes, and the names of things.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

use super::{ValueError, as_word, wrong};

as_word! { PrefixValue IfName ObjectName AddrRange AddrPort ProxyTargetValue LoopbackAddr }

/// An address with a prefix length; a bare address is a prefix of its full length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixValue(pub IpNet);

impl PrefixValue {
    /// Whether bits beyond the prefix length are set.
    #[must_use]
    pub fn has_host_bits(&self) -> bool {
        self.0 != self.0.trunc()
    }
}

/// Error for a prefix of which only the length is wrong.
pub(super) fn wrong_length(text: &str) -> Option<ValueError> {
    let (address, _) = text.split_once('/')?;
    let (family, most) = match address.parse().ok()? {
        IpAddr::V4(_) => ("IPv4", 32),
        IpAddr::V6(_) => ("IPv6", 128),
    };
    Some(ValueError::new(format!(
        "invalid prefix: the length of an {family} prefix is from 0 to {most}"
    )))
}

impl FromStr for PrefixValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "default" {
            return Ok(PrefixValue(
                IpNet::from_str("0.0.0.0/0").expect("a valid prefix"),
            ));
        }
        text.parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map(PrefixValue)
            .or_else(|_| match wrong_length(text) {
                Some(error) => Err(error),
                None => wrong("invalid prefix: an IPv4 or IPv6 address, then / and its length"),
            })
    }
}

impl fmt::Display for PrefixValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `ADDR:PORT` that only this host can reach: in 127.0.0.0/8, or ::1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopbackAddr(pub SocketAddr);

impl FromStr for LoopbackAddr {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => wrong("the port must not be 0"),
            Ok(address) if address.ip().is_loopback() => Ok(LoopbackAddr(address)),
            Ok(_) => wrong(
                "not a loopback address: whoever reaches the port may read everything there, so it is 127.0.0.1:PORT or [::1]:PORT; for other hosts put a proxy with access control in front",
            ),
            Err(_) => wrong("expected ADDR:PORT, such as 127.0.0.1:9481 or [::1]:9481"),
        }
    }
}

impl fmt::Display for LoopbackAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Interface name: 1 to 15 bytes, without `/`, `:` or white space.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

impl IfName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfName {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let ok = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%');
        if !(1..=15).contains(&text.len()) || !text.chars().all(ok) || matches!(text, "." | "..") {
            return wrong(
                "not a valid interface name: 1 to 15 characters without \"/\", \":\", \"%\"",
            );
        }
        Ok(IfName(text.to_owned()))
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of a rule, service, class or option: 1 to 63 letters, digits, `_`, `.`, `-`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ObjectName {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if !(1..=63).contains(&text.len()) || !text.bytes().all(ok) {
            return wrong("not a valid name: 1 to 63 letters, digits, \"_\", \".\", \"-\"");
        }
        Ok(ObjectName(text.to_owned()))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `ADDR[-ADDR]`: range of addresses of one family, at most 65,536.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddrRange {
    /// Lowest address.
    pub first: IpAddr,
    /// Highest address.
    pub last: IpAddr,
}

impl AddrRange {
    /// Whether the ranges overlap.
    #[must_use]
    pub fn overlaps(&self, other: &AddrRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether the range contains the address.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        (self.first..=self.last).contains(&addr)
    }
}

impl From<IpAddr> for AddrRange {
    fn from(addr: IpAddr) -> Self {
        AddrRange {
            first: addr,
            last: addr,
        }
    }
}

impl FromStr for AddrRange {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (Ok(first), Ok(last)) = (first.parse(), last.parse()) else {
            return wrong("invalid addresses: ADDR or ADDR-ADDR");
        };
        let span = match (first, last) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                u128::from(u32::from(b)).checked_sub(u32::from(a).into())
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => u128::from(b).checked_sub(a.into()),
            _ => return wrong("invalid addresses: both ends must be of one family"),
        };
        match span {
            None => wrong("invalid addresses: the first is above the last"),
            Some(65_536..) => wrong("invalid addresses: more than 65536"),
            Some(_) => Ok(AddrRange { first, last }),
        }
    }
}

impl fmt::Display for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// `ADDR[:PORT]`; an IPv6 address with a port is written in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddrPort {
    /// The address.
    pub addr: IpAddr,
    /// The port, 1 to 65,535.
    pub port: Option<u16>,
}

impl FromStr for AddrPort {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        if let Ok(addr) = text.parse() {
            return Ok(AddrPort { addr, port: None });
        }
        match text.parse::<SocketAddr>() {
            Ok(both) if both.port() != 0 => Ok(AddrPort {
                addr: both.ip(),
                port: Some(both.port()),
            }),
            _ => wrong("invalid address: ADDR, ADDR:PORT or [ADDR]:PORT"),
        }
    }
}

impl fmt::Display for AddrPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.addr, port).fmt(f),
            None => self.addr.fmt(f),
        }
    }
}

/// Checks that an underlay address can be a tunnel endpoint.
///
/// # Errors
/// If it is unspecified, loopback, multicast, broadcast or link-local.
pub fn tunnel_address(addr: IpAddr) -> Result<(), ValueError> {
    let broadcast = addr == IpAddr::V4(Ipv4Addr::BROADCAST);
    let mapped = matches!(addr, IpAddr::V6(a) if a.to_ipv4_mapped().is_some());
    if addr.is_unspecified() || addr == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        wrong("the unspecified address names no host")
    } else if addr.is_loopback() {
        wrong("a loopback address leads to this host only")
    } else if addr.is_multicast() || broadcast {
        wrong("a tunnel leads to one host, so its address must be unicast")
    } else if matches!(addr, IpAddr::V6(a) if a.is_unicast_link_local()) {
        // It is only meaningful on one interface (RFC 4007), and tunnels name none.
        wrong(
            "a link-local address needs an interface, which a tunnel does not name; use a global or unique local one",
        )
    } else if mapped {
        wrong("write the IPv4 address itself instead of its IPv6-mapped form")
    } else {
        Ok(())
    }
}

/// Checks that packets of a VPC may have this address; packets with other addresses are dropped.
///
/// # Errors
/// If it is a loopback or an IPv4-mapped address.
pub fn overlay_address(addr: IpAddr) -> Result<(), ValueError> {
    let mapped = matches!(addr, IpAddr::V6(a) if a.to_ipv4_mapped().is_some());
    if addr.is_loopback() {
        wrong("a loopback address never leaves its host, so no packet of a VPC has it")
    } else if mapped {
        wrong("write the IPv4 address itself instead of its IPv6-mapped form")
    } else {
        Ok(())
    }
}

/// `ADDR[@LINK]`: reference to an endpoint; the link defaults to that of the referring object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyTargetValue {
    /// Overlay address of the endpoint.
    pub addr: IpAddr,
    /// Link of the endpoint.
    pub dev: Option<IfName>,
}

impl FromStr for ProxyTargetValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (addr, dev) = match text.split_once('@') {
            Some((addr, dev)) => (addr, Some(dev.parse()?)),
            None => (text, None),
        };
        match addr.parse() {
            Ok(addr) => Ok(ProxyTargetValue { addr, dev }),
            Err(_) => wrong("invalid target: ADDR or ADDR@LINK"),
        }
    }
}

impl fmt::Display for ProxyTargetValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)?;
        self.dev.as_ref().map_or(Ok(()), |dev| write!(f, "@{dev}"))
    }
}
