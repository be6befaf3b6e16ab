//! Endpoints: overlay addresses with their hosts and properties.

use std::net::IpAddr;

use libgeneve::label::LabelMap;
use libgeneve::options::EndpointType;
use libgeneve::wire::encapsulation::InnerProtocol;
use libgeneve::wire::ethernet::Mac;

use super::route::check_hosts;
use super::{DesiredState, option, presence, put};
use crate::config::args::{ChangeVerb, EndpointArgs};
use crate::config::value::{
    EndpointTypeValue, IfName, LabelsValue, MacValue, NamedData, ObjectName, OrNone,
    ProxyTargetValue, RateValue, overlay_address,
};
use crate::refusal::{Refusal, RefusalCause};

/// Configuration of one overlay address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Remote hosts of the address.
    pub hosts: Vec<IpAddr>,
    /// Whether it is on this host; together with other hosts only if it is colocated.
    pub local: bool,
    /// The configured type.
    pub kind: Option<EndpointType>,
    /// Whether it is on several hosts and this host is preferred.
    pub colocated: bool,
    /// Labels, if known; an empty list counts as known.
    pub labels: Option<LabelMap>,
    /// MAC address, on links that carry frames.
    pub lladdr: Option<Mac>,
    /// Class of its flows; belongs to the same link.
    pub class: Option<ObjectName>,
    /// Rate limit of everything that it sends.
    pub rate: Option<RateValue>,
    /// User-defined options that its packets carry.
    pub options: Vec<NamedData>,
    /// Target of a proxied endpoint: an existing endpoint that is not proxied itself.
    pub target: Option<(IfName, IpAddr)>,
}

impl EndpointSpec {
    /// The type, with the default if none is configured.
    #[must_use]
    pub fn kind(&self) -> EndpointType {
        self.kind.unwrap_or_default()
    }

    /// Converts to the words that create it.
    #[must_use]
    pub fn words(&self, dev: &IfName, address: IpAddr) -> EndpointArgs {
        EndpointArgs {
            address,
            dev: dev.clone(),
            host: self.hosts.clone(),
            local: self.local,
            kind: self.kind.map(EndpointTypeValue),
            labels: self.labels.clone().map(LabelsValue),
            lladdr: self.lladdr.map(MacValue),
            class: self.class.clone().map(OrNone::Is),
            rate: self.rate.map(OrNone::Is),
            option: self.options.clone(),
            colocated: self.colocated.then_some(true),
            target: self.target.as_ref().map(|(on, addr)| ProxyTargetValue {
                addr: *addr,
                dev: (on != dev).then(|| on.clone()),
            }),
        }
    }

    fn overwrite(&mut self, words: &EndpointArgs) {
        if !words.host.is_empty() || words.local {
            self.hosts.clone_from(&words.host);
            self.local = words.local;
        }
        put(&mut self.kind, words.kind.map(|word| Some(word.0)));
        put(
            &mut self.labels,
            words.labels.clone().map(|word| Some(word.0)),
        );
        put(&mut self.lladdr, words.lladdr.map(|word| Some(word.0)));
        put(&mut self.class, words.class.clone().map(OrNone::value));
        put(&mut self.rate, words.rate.map(OrNone::value));
        if !words.option.is_empty() {
            self.options.clone_from(&words.option);
        }
        if words.colocated == Some(false) && self.colocated {
            self.local = self.hosts.is_empty();
        }
        put(&mut self.colocated, words.colocated);
        self.local |= self.colocated;
        let target = words.target.clone().map(|target| {
            let on = target.dev.unwrap_or_else(|| words.dev.clone());
            Some((on, target.addr))
        });
        put(&mut self.target, target);
        if self.kind() != EndpointType::Proxied && words.target.is_none() {
            self.target = None;
        }
    }
}

impl DesiredState {
    pub(super) fn change_endpoint(
        &mut self,
        verb: ChangeVerb,
        words: &EndpointArgs,
    ) -> Result<(), Refusal> {
        let EndpointArgs { address, dev, .. } = words;
        self.link(dev)?;
        let object = format!("endpoint \"{address}\" dev {dev}");
        let key = (dev.clone(), *address);
        let there = self.endpoints.get(&key);
        let names = self.endpoints_of(dev).map(|(name, _)| name);
        presence(verb, there.is_some(), &object, ("endpoint", address), names)?;
        if verb == ChangeVerb::Del {
            if let Some(user) = self.proxy_of(&key) {
                return Err(Refusal::new(
                    format!("{object} is the target of {user}"),
                    "delete that first",
                ));
            }
            self.endpoints.remove(&key);
            return Ok(());
        }
        let there = there.filter(|_| verb == ChangeVerb::Set);
        let mut endpoint = there.cloned().unwrap_or_default();
        endpoint.overwrite(words);
        self.check_endpoint(&object, &key, &endpoint)?;
        self.endpoints.insert(key, endpoint);
        Ok(())
    }

    fn check_endpoint(
        &self,
        object: &str,
        key: &(IfName, IpAddr),
        endpoint: &EndpointSpec,
    ) -> Result<(), Refusal> {
        let link = self.link(&key.0)?;
        overlay_address(key.1).map_err(|e| Refusal::new(format!("{object}: {e}"), ""))?;
        let several = endpoint.hosts.len() + usize::from(endpoint.local) > 1;
        if endpoint.colocated && endpoint.kind() != EndpointType::Scaled {
            return Err(Refusal::new(
                format!("{object}: only a scaled endpoint is colocated"),
                "add \"type scaled\", or leave \"colocated\" out",
            ));
        }
        if endpoint.kind == Some(EndpointType::Simple) && several {
            return Err(Refusal::new(
                format!("{object}: a simple endpoint is on one host"),
                "name one host, or make it \"type scaled\"",
            ));
        }
        if endpoint.local && !endpoint.hosts.is_empty() && !endpoint.colocated {
            return Err(Refusal::new(
                format!("{object}: is either local or on other hosts"),
                "name \"host\" or \"local\", not both; a scaled endpoint may be \"colocated\"",
            ));
        }
        self.check_endpoint_mode(object, link, endpoint)?;
        self.check_target(object, key, endpoint)?;
        if !endpoint.hosts.is_empty() || !(endpoint.local || endpoint.target.is_some()) {
            check_hosts(object, "host", link, &endpoint.hosts)?;
        }
        let needed = [
            ("labels", endpoint.labels.is_some()),
            ("option", !endpoint.options.is_empty()),
            ("type", endpoint.kind() != EndpointType::Simple),
        ];
        for (word, _) in needed.into_iter().filter(|(_, asked)| *asked) {
            self.check_carried(&key.0, object, word)?;
        }
        if endpoint.lladdr.is_some() && link.inner != InnerProtocol::Ethernet {
            return Err(Refusal::new(
                format!("{object}: lladdr is for links whose datagrams carry frames"),
                "leave \"lladdr\" out, or set \"inner ethernet\" for the link",
            ));
        }
        if endpoint.labels.is_some() {
            self.needs_secret(object)?;
        }
        if let Some(class) = &endpoint.class {
            self.class_of(object, &key.0, class)?;
        }
        self.check_options(object, &endpoint.options)?;
        option::check_room(
            object,
            option::size(&link.options) + option::size(&endpoint.options),
        )
    }

    fn check_target(
        &self,
        object: &str,
        key: &(IfName, IpAddr),
        endpoint: &EndpointSpec,
    ) -> Result<(), Refusal> {
        let proxied = endpoint.kind() == EndpointType::Proxied;
        let target = match &endpoint.target {
            // Other hosts only need to know where it is.
            None if proxied && endpoint.hosts.is_empty() => {
                return Err(Refusal::new(
                    format!("{object}: Not enough information: \"target\" argument is required."),
                    "add \"target ADDR[@LINK]\", the endpoint that it stands for, or \"host HOST\", where that is known",
                ));
            }
            None => return Ok(()),
            Some(_) if !proxied => {
                return Err(Refusal::new(
                    format!("{object}: only a proxied endpoint has a target"),
                    "add \"type proxied\", or leave \"target\" out",
                ));
            }
            Some(target) => target,
        };
        let (on, addr) = target;
        if addr.is_ipv4() != key.1.is_ipv4() {
            return Err(Refusal::new(
                format!("{object}: target \"{addr}\" is of the other family"),
                "",
            ));
        }
        self.link(on)?;
        match self.endpoints.get(target) {
            None => Err(Refusal::new(
                format!("{object}: target \"{addr}\" is no endpoint of dev {on}"),
                format!("add it with \"geneved endpoint add {addr} dev {on}\" first"),
            )
            .because(RefusalCause::Missing(addr.to_string()))),
            Some(other) if target == key || other.kind() == EndpointType::Proxied => {
                Err(Refusal::new(
                    format!("{object}: target \"{addr}\" is proxied itself"),
                    "name the endpoint that is meant in the end",
                ))
            }
            Some(_) => match self.proxy_of(key) {
                Some(user) => Err(Refusal::new(
                    format!("{object} is the target of {user}, so it cannot be proxied itself"),
                    "delete that first",
                )),
                None => Ok(()),
            },
        }
    }

    /// Finds a proxied endpoint whose target this is.
    fn proxy_of(&self, key: &(IfName, IpAddr)) -> Option<String> {
        let found = self
            .endpoints
            .iter()
            .find(|(_, e)| e.target.as_ref() == Some(key));
        found.map(|((dev, addr), _)| format!("endpoint \"{addr}\" dev {dev}"))
    }

    /// Refuses if a proxied endpoint of another link has its target on this link.
    pub(super) fn no_proxy_leads_to(&self, link: &IfName) -> Result<(), Refusal> {
        let leads = |(dev, target): (&IfName, &EndpointSpec)| {
            dev != link && target.target.as_ref().is_some_and(|(on, _)| on == link)
        };
        let found = self
            .endpoints
            .iter()
            .find(|((dev, _), endpoint)| leads((dev, endpoint)));
        match found {
            None => Ok(()),
            Some(((dev, addr), _)) => Err(Refusal::new(
                format!("link \"{link}\": endpoint \"{addr}\" dev {dev} has its target there"),
                "delete that first",
            )),
        }
    }
}
