//! The values that users write, each with one parser for command line, file and control socket.
//!
//! Owns the spelling and the range of single values. How values fit together is
//! [`super::state`]'s to judge.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;
use libgeneve::link::{Df, Tos, Ttl};
use libgeneve::wire::geneve;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::{Serialize, Serializer};

/// Why a text is not a value: a short reason, as it stands after `argument "x" is wrong: `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError(pub String);

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ValueError {}

fn wrong<T>(reason: impl Into<String>) -> Result<T, ValueError> {
    Err(ValueError(reason.into()))
}

/// A text or a number of TOML or JSON, handed to `FromStr`.
struct Word<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = ValueError>> Visitor<'_> for Word<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number")
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse()
            .map_err(|e| E::custom(format_args!("argument \"{text}\" is wrong: {e}")))
    }
    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// Gives a type that has `FromStr` and `Display` its form in TOML and JSON: the same text.
macro_rules! as_word {
    ($($name:ident)+) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(Word(std::marker::PhantomData))
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
                into.collect_str(self)
            }
        }
    )+};
}

as_word! { TtlWord TosWord DfWord MtuWord PortRange Prefix IfName Action }

/// A virtual network identifier; a number in TOML and JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(pub geneve::Vni);

impl FromStr for Vni {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse()
            .map(Vni)
            .or(wrong("invalid id: a number from 0 to 16777215"))
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Vni {
    fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        into.serialize_u32(self.0.value())
    }
}

impl<'de> Deserialize<'de> for Vni {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(from)?;
        u32::try_from(number)
            .ok()
            .and_then(geneve::Vni::new)
            .map(Vni)
            .ok_or_else(|| {
                D::Error::custom(format_args!(
                    "argument \"{number}\" is wrong: invalid id: a number from 0 to 16777215"
                ))
            })
    }
}

/// `ttl N | auto | inherit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TtlWord(pub Ttl);

impl FromStr for TtlWord {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        Ok(TtlWord(match text {
            "auto" => Ttl::Auto,
            "inherit" => Ttl::Inherit,
            _ => match text.parse() {
                // 0 is how `ip` spells "auto".
                Ok(0) => Ttl::Auto,
                Ok(ttl) => Ttl::Fixed(ttl),
                Err(_) => {
                    return wrong("invalid ttl: a number from 1 to 255, \"auto\" or \"inherit\"");
                }
            },
        }))
    }
}

impl fmt::Display for TtlWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ttl::Auto => f.write_str("auto"),
            Ttl::Inherit => f.write_str("inherit"),
            Ttl::Fixed(ttl) => ttl.fmt(f),
        }
    }
}

/// `tos N | inherit`; N is decimal or, after `0x`, hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TosWord(pub Tos);

impl FromStr for TosWord {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "inherit" {
            return Ok(TosWord(Tos::Inherit));
        }
        let number = match text.strip_prefix("0x") {
            Some(hex) => u8::from_str_radix(hex, 16),
            None => text.parse(),
        };
        match number {
            Ok(tos) if tos & 3 == 0 => Ok(TosWord(Tos::Fixed(tos))),
            Ok(_) => wrong("invalid tos: its lower two bits belong to ECN, which follows RFC 6040"),
            Err(_) => wrong("invalid tos: a number from 0 to 252, or \"inherit\""),
        }
    }
}

impl fmt::Display for TosWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Tos::Inherit => f.write_str("inherit"),
            Tos::Fixed(0) => f.write_str("0"),
            Tos::Fixed(tos) => write!(f, "{tos:#x}"),
        }
    }
}

/// `df set | unset | inherit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DfWord(pub Df);

impl FromStr for DfWord {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        Ok(DfWord(match text {
            "set" => Df::Set,
            "unset" => Df::Unset,
            "inherit" => Df::Inherit,
            _ => return wrong("invalid df: \"set\", \"unset\" or \"inherit\""),
        }))
    }
}

impl fmt::Display for DfWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Df::Set => "set",
            Df::Unset => "unset",
            Df::Inherit => "inherit",
        })
    }
}

/// `mtu auto | N`, in bytes of inner IP packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MtuWord {
    /// Computed from the underlay.
    #[default]
    Auto,
    /// This many bytes.
    Fixed(u16),
}

/// IPv6 needs 1280 bytes; IPv4 alone would do with 68.
const MTU_RANGE: RangeInclusive<u16> = 68..=65_535;

impl FromStr for MtuWord {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse() {
            _ if text == "auto" => Ok(MtuWord::Auto),
            Ok(mtu) if MTU_RANGE.contains(&mtu) => Ok(MtuWord::Fixed(mtu)),
            _ => wrong("invalid mtu: \"auto\", or a number of bytes from 68 to 65535"),
        }
    }
}

impl fmt::Display for MtuWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MtuWord::Auto => f.write_str("auto"),
            MtuWord::Fixed(mtu) => mtu.fmt(f),
        }
    }
}

/// `srcport MIN-MAX`: the UDP source ports that flows are spread over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(pub RangeInclusive<u16>);

impl Default for PortRange {
    /// RFC 6335's dynamic ports, which RFC 8926 section 3.3 recommends.
    fn default() -> Self {
        PortRange(49_152..=65_535)
    }
}

impl FromStr for PortRange {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parse = || -> Option<RangeInclusive<u16>> {
            let (min, max) = text.split_once('-').unwrap_or((text, text));
            Some(min.parse().ok()?..=max.parse().ok()?)
        };
        match parse() {
            Some(range) if *range.start() > 0 && !range.is_empty() => Ok(PortRange(range)),
            _ => wrong("invalid port range: MIN-MAX, both from 1 to 65535, MIN not above MAX"),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

/// An address with a prefix length; a bare address is a prefix of its full length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(pub IpNet);

impl Prefix {
    /// Whether bits beyond the prefix length are set.
    #[must_use]
    pub fn has_host_bits(&self) -> bool {
        self.0 != self.0.trunc()
    }
}

impl FromStr for Prefix {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "default" {
            return Ok(Prefix(
                IpNet::from_str("0.0.0.0/0").expect("a valid prefix"),
            ));
        }
        text.parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map(Prefix)
            .or(wrong(
                "invalid prefix: an IPv4 or IPv6 address, then / and its length",
            ))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of an interface: 1 to 15 bytes, without `/`, `:` or white space.
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
                "not a valid interface name: 1 to 15 letters without \"/\", \":\", \"%\"",
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

/// What happens to a flow that no rule decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// It is forwarded.
    #[default]
    Allow,
    /// It is dropped.
    Deny,
}

impl FromStr for Action {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "allow" => Ok(Action::Allow),
            "deny" => Ok(Action::Deny),
            _ => wrong("invalid action: \"allow\" or \"deny\""),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Allow => "allow",
            Action::Deny => "deny",
        })
    }
}

/// Whether a tunnel can lead to this underlay address.
///
/// # Errors
/// It is unspecified, multicast or broadcast.
pub fn tunnel_address(addr: IpAddr) -> Result<(), ValueError> {
    let broadcast = addr == IpAddr::V4(Ipv4Addr::BROADCAST);
    let mapped = matches!(addr, IpAddr::V6(a) if a.to_ipv4_mapped().is_some());
    if addr.is_unspecified() || addr == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        wrong("the unspecified address names no host")
    } else if addr.is_multicast() || broadcast {
        wrong("a tunnel leads to one host, so its address must be unicast")
    } else if mapped {
        wrong("write the IPv4 address itself instead of its IPv6-mapped form")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_shown_as_they_are_written() {
        for text in ["auto", "inherit", "64"] {
            assert_eq!(text.parse::<TtlWord>().unwrap().to_string(), text);
        }
        for text in ["0", "inherit", "0x48"] {
            assert_eq!(text.parse::<TosWord>().unwrap().to_string(), text);
        }
        for text in ["set", "unset", "inherit"] {
            assert_eq!(text.parse::<DfWord>().unwrap().to_string(), text);
        }
        assert_eq!(
            "10.0.0.1".parse::<Prefix>().unwrap().to_string(),
            "10.0.0.1/32"
        );
        assert_eq!("7-9".parse::<PortRange>().unwrap().to_string(), "7-9");
    }

    #[test]
    fn values_out_of_range_are_refused() {
        assert!("16777216".parse::<Vni>().is_err());
        assert!("256".parse::<TtlWord>().is_err());
        assert!("1".parse::<TosWord>().is_err());
        assert!("67".parse::<MtuWord>().is_err());
        assert!("65536".parse::<MtuWord>().is_err());
        assert!("9-7".parse::<PortRange>().is_err());
        assert!("0-7".parse::<PortRange>().is_err());
        assert!("a/b".parse::<IfName>().is_err());
        assert!("sixteen-letters-".parse::<IfName>().is_err());
        assert!(tunnel_address("224.0.0.1".parse().unwrap()).is_err());
        assert!(tunnel_address("::ffff:192.0.2.1".parse().unwrap()).is_err());
    }
}
