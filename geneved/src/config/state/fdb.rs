//! Ethernet links: their specific settings, and static FDB entries.

use std::net::IpAddr;

use libgeneve::options::EndpointType;
use libgeneve::wire::encapsulation::InnerProtocol;
use libgeneve::wire::ethernet::Mac;

use super::route::check_hosts;
use super::{DesiredState, EndpointSpec, LinkSpec, presence};
use crate::config::args::{ChangeVerb, FdbArgs, LinkArgs};
use crate::config::value::{FdbMac, IfName, ModeValue};
use crate::refusal::Refusal;

/// Static FDB entry: one host for a station, any number for a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FdbSpec {
    /// At least one.
    pub hosts: Vec<IpAddr>,
}

impl FdbSpec {
    /// Converts to the words that create it.
    #[must_use]
    pub fn words(&self, dev: &IfName, mac: Mac) -> FdbArgs {
        FdbArgs {
            mac: FdbMac(mac),
            dev: dev.clone(),
            dst: self.hosts.clone(),
        }
    }
}

/// MAC learning settings of an Ethernet link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgingSpec {
    /// Whether addresses are learned from frames.
    pub learning: bool,
    /// Ageing time in seconds; 0 means never.
    pub ageing: u32,
    /// Maximum number of learned addresses.
    pub max_addresses: u32,
    /// Maximum number of flooded frames per second; 0 means unlimited.
    pub flood_rate: u32,
}

impl Default for BridgingSpec {
    fn default() -> Self {
        BridgingSpec {
            learning: true,
            ageing: 300,
            max_addresses: 4096,
            flood_rate: 1000,
        }
    }
}

impl BridgingSpec {
    /// Applies the settings that the words contain.
    pub(super) fn overwrite(&mut self, words: &LinkArgs) {
        super::put(&mut self.learning, words.learning);
        super::put(&mut self.ageing, words.ageing);
        super::put(&mut self.max_addresses, words.maxaddress);
        super::put(&mut self.flood_rate, words.floodrate);
    }
}

impl DesiredState {
    /// Checks that the settings suit the link's mode.
    pub(super) fn check_mode(&self, link: &LinkSpec, words: &LinkArgs) -> Result<(), Refusal> {
        let name = &link.name;
        if link.mode == ModeValue::Ethernet {
            if link.inner != InnerProtocol::Ethernet {
                return Err(Refusal::new(
                    format!(
                        "link \"{name}\": inner \"ip\" is wrong: in mode ethernet datagrams carry frames"
                    ),
                    "leave \"inner\" out, or make it \"mode ip\"",
                ));
            }
            return Ok(());
        }
        let asked = [
            ("learning", words.learning.is_some()),
            ("ageing", words.ageing.is_some()),
            ("maxaddress", words.maxaddress.is_some()),
            ("floodrate", words.floodrate.is_some()),
        ];
        match asked.into_iter().find(|(_, asked)| *asked) {
            None => Ok(()),
            Some((word, _)) => Err(Refusal::new(
                format!("link \"{name}\": {word} is for links in mode ethernet"),
                format!("add \"mode ethernet\", or leave \"{word}\" out"),
            )),
        }
    }

    /// Ethernet links forward by MAC address, so routes and endpoints on several hosts mean nothing there.
    pub(super) fn check_endpoint_mode(
        &self,
        object: &str,
        link: &LinkSpec,
        endpoint: &EndpointSpec,
    ) -> Result<(), Refusal> {
        if link.mode != ModeValue::Ethernet || endpoint.kind() == EndpointType::Simple {
            return Ok(());
        }
        Err(Refusal::new(
            format!(
                "{object}: type \"{}\" is wrong on a link in mode ethernet, whose endpoints are found by MAC address",
                endpoint.kind()
            ),
            "leave \"type\" out, or use a link in mode ip",
        ))
    }

    pub(super) fn check_route_mode(&self, object: &str, link: &LinkSpec) -> Result<(), Refusal> {
        if link.mode != ModeValue::Ethernet {
            return Ok(());
        }
        Err(Refusal::new(
            format!("{object}: a link in mode ethernet sends by MAC address, not by prefix"),
            format!(
                "name hosts with \"geneved fdb add MAC dev {} dst HOST\"",
                link.name
            ),
        ))
    }

    pub(super) fn change_fdb(&mut self, verb: ChangeVerb, words: &FdbArgs) -> Result<(), Refusal> {
        let FdbArgs { mac, dev, dst } = words;
        let link = self.link(dev)?;
        let object = format!("fdb \"{mac}\" dev {dev}");
        if link.mode != ModeValue::Ethernet {
            return Err(Refusal::new(
                format!("{object}: the link is in mode ip, which knows no MAC addresses"),
                "make it \"mode ethernet\"; \"geneved endpoint add ADDR dev LINK host HOST lladdr MAC\" is for mode ip",
            ));
        }
        let key = (dev.clone(), mac.0);
        let there = self.fdb.get(&key);
        // Adding appends hosts to a list, as `bridge fdb append` does.
        let appends = verb == ChangeVerb::Add && mac.is_list();
        let names = self.fdb_of(dev).map(|(mac, _)| FdbMac(mac));
        presence(
            verb,
            there.is_some() && !appends,
            &object,
            ("fdb", mac),
            names,
        )?;
        if verb == ChangeVerb::Del {
            self.fdb.remove(&key);
            return Ok(());
        }
        let mut hosts = there.map_or_else(Vec::new, |entry| entry.hosts.clone());
        match verb {
            ChangeVerb::Add => hosts.extend(dst),
            ChangeVerb::Set | ChangeVerb::Replace | ChangeVerb::Del => hosts.clone_from(dst),
        }
        check_hosts(&object, "dst", link, &hosts)?;
        if !mac.is_list() && hosts.len() > 1 {
            return Err(Refusal::new(
                format!("{object}: a station is on one host"),
                "name one host; lists are for groups and for 00:00:00:00:00:00",
            ));
        }
        self.check_owner(&object, link, mac.0)?;
        self.fdb.insert(key, FdbSpec { hosts });
        Ok(())
    }

    /// Checks that the address belongs neither to the link itself nor to an endpoint.
    fn check_owner(&self, object: &str, link: &LinkSpec, mac: Mac) -> Result<(), Refusal> {
        let own = link.lladdr == Some(mac);
        let mut endpoints = self.endpoints_of(&link.name);
        let endpoint = endpoints.find(|(_, endpoint)| endpoint.lladdr == Some(mac));
        let owner = match endpoint {
            _ if own => format!("link \"{}\"", link.name),
            Some((addr, _)) => format!("endpoint \"{addr}\""),
            None => return Ok(()),
        };
        Err(Refusal::new(
            format!("{object} is the lladdr of {owner}"),
            "the endpoint says where it is; choose another address",
        ))
    }

    /// Static FDB entries of a link, by MAC address.
    pub fn fdb_of(&self, link: &IfName) -> impl Iterator<Item = (Mac, &FdbSpec)> {
        let rest = self.fdb.range((link.clone(), Mac::default())..);
        rest.take_while(move |((dev, _), _)| dev == link)
            .map(|((_, mac), entry)| (*mac, entry))
    }

    /// Hosts to flood to on an Ethernet link: its remote, and those of the all-zeros entry.
    #[must_use]
    pub fn flood_list(&self, link: &LinkSpec) -> Vec<IpAddr> {
        let listed = self.fdb.get(&(link.name.clone(), Mac::default()));
        let listed = listed.into_iter().flat_map(|entry| &entry.hosts);
        let mut hosts: Vec<IpAddr> = link.remote.iter().chain(listed).copied().collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }
}
