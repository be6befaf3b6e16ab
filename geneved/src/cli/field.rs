//! Keyword values: parsing of texts, and assignment to the fields of a command.

use std::net::IpAddr;

use crate::config::value::{
    AddrPort, AddrRange, AffinityValue, CheckValue, DefaultAction, DfValue, DirectionValue,
    DscpValue, EndpointTypeValue, FdbMac, FlowStateValue, IcmpValue, IfName, InnerValue, LabelsUse,
    LabelsValue, LinkSegmentation, MacValue, ModeValue, MtuValue, NONE_WORD, NamedData, ObjectName,
    OptionClassValue, OptionMatchValue, OptionTypeValue, OrNone, PortListValue, PortRange,
    PrefixValue, ProtocolValue, ProxyTargetValue, RateValue, RawOption, RulePeerValue, Seconds,
    SizeValue, TosValue, TtlValue, ValueError, VniValue,
};

/// A value that can be parsed from the command line.
pub trait FromArg: Sized {
    /// Parses the value.
    ///
    /// # Errors
    /// The reason, as it follows `argument "x" is wrong: `.
    fn value(text: &str) -> Result<Self, ValueError>;
}

macro_rules! parsed {
    ($($name:ident)+) => {$(
        impl FromArg for $name {
            fn value(text: &str) -> Result<Self, ValueError> {
                text.parse()
            }
        }
    )+};
}

parsed! {
    DefaultAction AddrPort AddrRange AffinityValue CheckValue OptionClassValue DfValue DirectionValue DscpValue FdbMac FlowStateValue IcmpValue IfName
    InnerValue OptionTypeValue LabelsUse LabelsValue LinkSegmentation MacValue OptionMatchValue ModeValue MtuValue ObjectName NamedData PortRange PortListValue PrefixValue ProtocolValue RateValue
    RawOption Seconds SizeValue ProxyTargetValue TosValue TtlValue EndpointTypeValue VniValue RulePeerValue
}

impl<T: FromArg> FromArg for OrNone<T> {
    fn value(text: &str) -> Result<Self, ValueError> {
        match text {
            NONE_WORD => Ok(OrNone::None),
            _ => T::value(text).map(OrNone::Is),
        }
    }
}

impl FromArg for IpAddr {
    fn value(text: &str) -> Result<Self, ValueError> {
        text.parse()
            .map_err(|_| ValueError::new("not an IPv4 or IPv6 address"))
    }
}

impl FromArg for String {
    fn value(text: &str) -> Result<Self, ValueError> {
        Ok(text.to_owned())
    }
}

/// A port.
impl FromArg for u16 {
    fn value(text: &str) -> Result<Self, ValueError> {
        let port = text.parse().ok().filter(|port| *port != 0);
        port.ok_or_else(|| ValueError::new("invalid port: a number from 1 to 65535"))
    }
}

impl FromArg for u8 {
    fn value(text: &str) -> Result<Self, ValueError> {
        let wrong = |_| ValueError::new("invalid number: from 0 to 255");
        text.parse().map_err(wrong)
    }
}

impl FromArg for u32 {
    fn value(text: &str) -> Result<Self, ValueError> {
        let wrong = |_| ValueError::new("invalid number: from 0 to 4294967295");
        text.parse().map_err(wrong)
    }
}

/// Parses `ADDR,ADDR...`.
pub fn addresses(list: &str) -> Result<Vec<IpAddr>, ValueError> {
    list.split(',').map(IpAddr::value).collect()
}

/// A field that is set by the value of a keyword.
pub trait KeywordField {
    /// Parses the value into the field.
    ///
    /// # Errors
    /// If the text is not such a value.
    fn read(&mut self, text: &str) -> Result<(), ValueError>;
}

impl<T: FromArg> KeywordField for Option<T> {
    fn read(&mut self, text: &str) -> Result<(), ValueError> {
        *self = Some(T::value(text)?);
        Ok(())
    }
}

impl<T: FromArg> KeywordField for Vec<T> {
    fn read(&mut self, text: &str) -> Result<(), ValueError> {
        self.push(T::value(text)?);
        Ok(())
    }
}

macro_rules! read_into {
    ($($name:ident)+) => {$(
        impl KeywordField for $name {
            fn read(&mut self, text: &str) -> Result<(), ValueError> {
                *self = FromArg::value(text)?;
                Ok(())
            }
        }
    )+};
}

read_into! { FdbMac IfName IpAddr ObjectName PrefixValue }

/// A keyword whose value goes into a field. `$of` are the words that have the field.
macro_rules! key {
    ($of:ty; $($name:literal)|+, $metavariable:literal, $($field:tt).+) => {
        Keyword::<$of>::value(&[$($name),+], $metavariable, |words, value| {
            $crate::cli::field::KeywordField::read(&mut words.$($field).+, value)
        })
    };
}

/// Defines a keyword without a value that sets a field to a constant.
macro_rules! flag {
    ($of:ty; $name:literal, $($field:tt).+ = $value:expr) => {
        Keyword::<$of>::flag(&[$name], |words| words.$($field).+ = $value)
    };
}
pub(super) use {flag, key};
