//! The words of services and their backends.

use std::fmt;
use std::net::IpAddr;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::super::value::{
    AddrPort, AffinityValue, CheckValue, IfName, ObjectName, ProtocolValue, Seconds,
};

/// `[[service]]`, `geneved service add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceArgs {
    /// The service's name, unique on its link.
    pub name: ObjectName,
    /// The link.
    pub dev: IfName,
    /// The address that clients ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<IpAddr>,
    /// TCP or UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<ProtocolValue>,
    /// The port that clients ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Who serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backend: Vec<BackendArgs>,
    /// What keeps a client at its backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<AffinityValue>,
    /// How backends are watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckValue>,
    /// From the start of one check to the start of the next; 2 if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Seconds>,
    /// How long an answer may take; 1, or the interval where that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Seconds>,
    /// So many answers in a row bring a backend back; 2 if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rise: Option<u8>,
    /// So many failures in a row put a backend out; 3 if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fall: Option<u8>,
}

/// A backend of a service: a table, or a text `ADDR[:PORT]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BackendArgs {
    /// Its overlay address.
    pub address: IpAddr,
    /// Its port; the service's if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its share, 1 if it is left out; 0 gives it no new flows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
}

impl From<AddrPort> for BackendArgs {
    fn from(at: AddrPort) -> Self {
        BackendArgs {
            address: at.addr,
            port: at.port,
            weight: None,
        }
    }
}

impl<'de> Deserialize<'de> for BackendArgs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            address: IpAddr,
            port: Option<u16>,
            weight: Option<u16>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = BackendArgs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text ADDR[:PORT] or a table of address, port and weight")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<BackendArgs, E> {
                text.parse::<AddrPort>()
                    .map(BackendArgs::from)
                    .map_err(|e| E::custom(format_args!("argument \"{text}\" is wrong: {e}")))
            }
            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<BackendArgs, M::Error> {
                let table = Table::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(BackendArgs {
                    address: table.address,
                    port: table.port,
                    weight: table.weight,
                })
            }
        }
        from.deserialize_any(Either)
    }
}
