//! The endpoint option: the types of a packet's source and destination.

use std::fmt;
use std::str::FromStr;

/// Type of an endpoint. The value is that of the option's four-bit field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EndpointType {
    /// One address on one host.
    #[default]
    Simple = 0,
    /// One address on several hosts.
    Scaled = 1,
    /// Gateway out of the VPC, where NAT happens.
    Gateway = 2,
    /// Stands for another endpoint, which may be in another VPC.
    Proxied = 3,
    /// The host itself.
    Host = 4,
}

impl EndpointType {
    /// All types, in the order of their values.
    pub const ALL: [EndpointType; 5] = [
        EndpointType::Simple,
        EndpointType::Scaled,
        EndpointType::Gateway,
        EndpointType::Proxied,
        EndpointType::Host,
    ];

    /// Returns the type with this value, 0 to 15; `None` if the value is not assigned.
    #[inline]
    #[must_use]
    pub fn from_value(value: u8) -> Option<EndpointType> {
        Self::ALL.get(usize::from(value)).copied()
    }

    /// The keyword in the configuration and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            EndpointType::Simple => "simple",
            EndpointType::Scaled => "scaled",
            EndpointType::Gateway => "gateway",
            EndpointType::Proxied => "proxied",
            EndpointType::Host => "host",
        }
    }
}

impl fmt::Display for EndpointType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The endpoint option: 4 bytes of data.
///
/// Source type (4 bits), destination type (4 bits), flags (8 bits; 0x80 is the direct path, the others are reserved),
/// service ID (16 bits, big-endian).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EndpointOption {
    /// Type of the inner source.
    pub src: EndpointType,
    /// Type of the inner destination; the receiver routes by it.
    pub dst: EndpointType,
    /// The sender may be told a direct path to the destination.
    pub direct_path: bool,
    /// ID of the service that chose the destination; 0 if none did.
    pub service_id: u16,
}

impl EndpointOption {
    /// Bytes of data.
    pub const LEN: usize = 4;
    const DIRECT_PATH: u8 = 0x80;

    /// Parses the option's data; `None` if its length or a type is invalid. Reserved flags are ignored.
    #[must_use]
    pub fn from_wire(data: &[u8]) -> Option<EndpointOption> {
        let &[types, flags, high, low] = data else {
            return None;
        };
        Some(EndpointOption {
            src: EndpointType::from_value(types >> 4)?,
            dst: EndpointType::from_value(types & 0x0f)?,
            direct_path: flags & Self::DIRECT_PATH != 0,
            service_id: u16::from_be_bytes([high, low]),
        })
    }

    /// Returns the option's data; reserved flags are zero.
    #[must_use]
    pub fn to_wire(self) -> [u8; Self::LEN] {
        let flags = if self.direct_path {
            Self::DIRECT_PATH
        } else {
            0
        };
        let [high, low] = self.service_id.to_be_bytes();
        [(self.src as u8) << 4 | self.dst as u8, flags, high, low]
    }
}

/// The word is not an endpoint type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected simple, scaled, gateway, proxied or host")]
pub struct EndpointTypeError;

impl FromStr for EndpointType {
    type Err = EndpointTypeError;
    fn from_str(word: &str) -> Result<Self, EndpointTypeError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == word)
            .ok_or(EndpointTypeError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_words_lead_back_to_the_type() {
        for kind in EndpointType::ALL {
            assert_eq!(EndpointType::from_value(kind as u8), Some(kind));
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert_eq!(EndpointType::from_value(5), None);
        assert!("Simple".parse::<EndpointType>().is_err());
    }

    #[test]
    fn every_option_is_read_as_it_was_written() {
        let option = EndpointOption {
            src: EndpointType::Scaled,
            dst: EndpointType::Gateway,
            direct_path: true,
            service_id: 0x1234,
        };
        assert_eq!(option.to_wire(), [0x12, 0x80, 0x12, 0x34]);
        for types in 0..=u8::MAX {
            let known = types >> 4 < 5 && types & 0x0f < 5;
            let read = EndpointOption::from_wire(&[types, 0, 0, 7]);
            assert_eq!(read.is_some(), known, "{types:#04x}");
            assert!(read.is_none_or(|option| option.to_wire() == [types, 0, 0, 7]));
        }
        assert!(EndpointOption::from_wire(&[0; 3]).is_none());
        assert!(EndpointOption::from_wire(&[0; 8]).is_none());
    }

    #[test]
    fn reserved_flags_are_ignored() {
        let plain = EndpointOption::from_wire(&[0x12, 0x80, 0, 0]);
        assert!(plain.is_some());
        assert_eq!(EndpointOption::from_wire(&[0x12, 0xff, 0, 0]), plain);
    }
}
