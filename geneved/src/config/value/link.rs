//! Values of link settings.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use libgeneve::vpc::{Df, Tos, Ttl};
use libgeneve::wire::encapsulation::InnerProtocol;
use libgeneve::wire::ethernet::Mac;
use libgeneve::wire::geneve;
use serde::de::{Deserialize, Deserializer};
use serde::{Serialize, Serializer};

use super::{ValueError, as_word, not_among, one_of, wrong};

as_word! { TtlValue TosValue DfValue MtuValue PortRange MacValue InnerValue }

one_of! {
    /// Whether the label option is critical to receivers.
    LabelsUse, "invalid labels: \"optional\" or \"critical\"", {
        /// Receivers that do not know the option accept the packet.
        Optional = "optional",
        /// Receivers that do not know the option drop the packet.
        Critical = "critical",
    }
}

one_of! {
    /// Where segmentation and checksums of a link's packets are finished.
    LinkSegmentation, "invalid segmentation: \"auto\" or \"off\"", {
        /// By the kernel or the network card, according to the daemon's `segmentation`.
        Auto = "auto",
        /// By geneved: each datagram is sent singly, with finished checksums.
        Off = "off",
    }
}

/// Virtual network identifier; a number in TOML and JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VniValue(pub geneve::Vni);

impl FromStr for VniValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse()
            .map(VniValue)
            .or(wrong("invalid id: a number from 0 to 16777215"))
    }
}

impl fmt::Display for VniValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for VniValue {
    fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        into.serialize_u32(self.0.value())
    }
}

impl<'de> Deserialize<'de> for VniValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Number;
        impl serde::de::Visitor<'_> for Number {
            type Value = VniValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer from 0 to 16777215")
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<VniValue, E> {
                let vni = u32::try_from(number).ok().and_then(geneve::Vni::new);
                let wrong = || E::invalid_value(serde::de::Unexpected::Signed(number), &self);
                vni.map(VniValue).ok_or_else(wrong)
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<VniValue, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Unsigned(number), &self);
                let number = i64::try_from(number).map_err(|_| wrong())?;
                self.visit_i64(number)
            }
        }
        from.deserialize_any(Number)
    }
}

/// `lladdr MAC`: unicast MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacValue(pub Mac);

impl FromStr for MacValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let invalid = |why| ValueError::new(format!("invalid lladdr: {why}"));
        let mac: Mac = text.parse().map_err(|e| invalid(format!("{e}")))?;
        if !mac.is_unicast() {
            return Err(invalid("it is not that of one interface".to_owned()));
        }
        Ok(MacValue(mac))
    }
}

impl fmt::Display for MacValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `inner { ip | ethernet }`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InnerValue(pub InnerProtocol);

impl FromStr for InnerValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "ip" => Ok(InnerValue(InnerProtocol::Ip)),
            "ethernet" => Ok(InnerValue(InnerProtocol::Ethernet)),
            _ => not_among(&["ip", "ethernet"], "invalid inner: \"ip\" or \"ethernet\""),
        }
    }
}

impl fmt::Display for InnerValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `ttl N | auto | inherit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TtlValue(pub Ttl);

impl FromStr for TtlValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        Ok(TtlValue(match text {
            "auto" => Ttl::Auto,
            "inherit" => Ttl::Inherit,
            _ => match text.parse() {
                // `ip` writes "auto" as 0.
                Ok(0) => Ttl::Auto,
                Ok(ttl) => Ttl::Fixed(ttl),
                Err(_) => {
                    return not_among(
                        &["auto", "inherit"],
                        "invalid ttl: a number from 1 to 255, \"auto\" or \"inherit\"",
                    );
                }
            },
        }))
    }
}

impl fmt::Display for TtlValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ttl::Auto => f.write_str("auto"),
            Ttl::Inherit => f.write_str("inherit"),
            Ttl::Fixed(ttl) => ttl.fmt(f),
        }
    }
}

/// `tos N | inherit`; N is decimal or, with `0x`, hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TosValue(pub Tos);

impl FromStr for TosValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "inherit" {
            return Ok(TosValue(Tos::Inherit));
        }
        let number = match text.strip_prefix("0x") {
            Some(hex) => u8::from_str_radix(hex, 16),
            None => text.parse(),
        };
        match number {
            Ok(tos) if tos & 3 == 0 => Ok(TosValue(Tos::Fixed(tos))),
            Ok(_) => wrong("invalid tos: its lower two bits belong to ECN, which follows RFC 6040"),
            Err(_) => not_among(
                &["inherit"],
                "invalid tos: a number from 0 to 252, or \"inherit\"",
            ),
        }
    }
}

impl fmt::Display for TosValue {
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
pub struct DfValue(pub Df);

impl FromStr for DfValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        Ok(DfValue(match text {
            "set" => Df::Set,
            "unset" => Df::Unset,
            "inherit" => Df::Inherit,
            _ => {
                return not_among(
                    &["set", "unset", "inherit"],
                    "invalid df: \"set\", \"unset\" or \"inherit\"",
                );
            }
        }))
    }
}

impl fmt::Display for DfValue {
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
pub enum MtuValue {
    /// Computed from the underlay.
    #[default]
    Auto,
    /// This many bytes.
    Fixed(u16),
}

/// IPv6 requires 1280 bytes; IPv4 alone works with 68.
const MTU_RANGE: RangeInclusive<u16> = 68..=65_535;

impl FromStr for MtuValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse() {
            _ if text == "auto" => Ok(MtuValue::Auto),
            Ok(mtu) if MTU_RANGE.contains(&mtu) => Ok(MtuValue::Fixed(mtu)),
            _ => not_among(
                &["auto"],
                "invalid mtu: \"auto\", or a number of bytes from 68 to 65535",
            ),
        }
    }
}

impl fmt::Display for MtuValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MtuValue::Auto => f.write_str("auto"),
            MtuValue::Fixed(mtu) => mtu.fmt(f),
        }
    }
}

/// `srcport MIN-MAX`: range of UDP source ports that flows are spread over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(pub RangeInclusive<u16>);

impl Default for PortRange {
    /// The dynamic ports of RFC 6335, which RFC 8926 section 3.3 recommends.
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
