//! The endpoint option: what the two endpoints of a packet are.

use std::fmt;
use std::str::FromStr;

/// What an endpoint is. The value is that of the option's four-bit field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EndpointType {
    /// One address on one host.
    #[default]
    Simple = 0,
    /// One address on several hosts.
    Scaled = 1,
    /// Leads out of the VPC; NAT happens there.
    Gateway = 2,
    /// Stands for another endpoint, perhaps in another VPC.
    Proxied = 3,
    /// The host itself.
    Host = 4,
}

impl EndpointType {
    /// Every type, in the order of their values.
    pub const ALL: [EndpointType; 5] = [
        EndpointType::Simple,
        EndpointType::Scaled,
        EndpointType::Gateway,
        EndpointType::Proxied,
        EndpointType::Host,
    ];

    /// The type with this value, 0 to 15; `None` where it has no meaning.
    #[inline]
    #[must_use]
    pub fn from_value(value: u8) -> Option<EndpointType> {
        Self::ALL.get(usize::from(value)).copied()
    }

    /// The word that configuration and command line use.
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
}
