//! Links: their settings, and which of them can coexist.

use std::net::IpAddr;

use ipnet::IpNet;
use libgeneve::vpc::{Df, Tos, Ttl};
use libgeneve::wire::encapsulation::{Encapsulation, InnerProtocol};
use libgeneve::wire::ethernet::Mac;
use libgeneve::wire::geneve::Vni;

use super::{BridgingSpec, DesiredState, absent, put};
use crate::config::args::{AddressArgs, ChangeVerb, LinkArgs};
use crate::config::value::{
    self, DefaultAction, DfValue, IfName, InnerValue, LabelsUse, LinkSegmentation, MacValue,
    ModeValue, MtuValue, NamedData, OrNone, PortRange, PrefixValue, RateValue, SizeValue, TosValue,
    TtlValue, overlay_address, tunnel_address,
};
use crate::refusal::{Refusal, RefusalCause};

/// A link with every setting resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSpec {
    /// Name of the interface.
    pub name: IfName,
    /// Encapsulation of its packets.
    pub encapsulation: Encapsulation,
    /// Mode of the interface.
    pub mode: ModeValue,
    /// MAC learning settings, for mode ethernet.
    pub bridging: BridgingSpec,
    /// What the encapsulation carries.
    pub inner: InnerProtocol,
    /// Configured MAC address, if any.
    pub lladdr: Option<Mac>,
    /// VNI of the VPC.
    pub vni: Vni,
    /// Host of the default route.
    pub remote: Option<IpAddr>,
    /// Outer source address.
    pub local: Option<IpAddr>,
    /// UDP port to send to and listen on.
    pub port: u16,
    /// Outer TTL.
    pub ttl: Ttl,
    /// Outer DSCP.
    pub tos: Tos,
    /// Outer DF bit.
    pub df: Df,
    /// Whether to send UDP checksums over IPv4.
    pub udp_csum: bool,
    /// Whether to send zero UDP checksums over IPv6.
    pub udp6_zero_csum_tx: bool,
    /// Whether to accept zero UDP checksums over IPv6.
    pub udp6_zero_csum_rx: bool,
    /// Range of UDP source ports.
    pub srcport: PortRange,
    /// Who finishes what it sends.
    pub segmentation: LinkSegmentation,
    /// Inner MTU: a number, or computed.
    pub mtu: MtuValue,
    /// Addresses of the interface.
    pub addresses: Vec<IpNet>,
    /// Further prefixes behind the interface.
    pub allowed: Vec<IpNet>,
    /// Network namespace of the interface; `None` is the daemon's.
    pub netns: Option<String>,
    /// Default action for incoming flows that no rule matches.
    pub ingress: DefaultAction,
    /// Default action for outgoing flows that no rule matches.
    pub egress: DefaultAction,
    /// Whether the label option is critical to receivers.
    pub labels: LabelsUse,
    /// User-defined options that every packet carries.
    pub options: Vec<NamedData>,
    /// Rate limit of everything that the link sends.
    pub rate: Option<RateValue>,
    /// Burst; only with a rate.
    pub burst: Option<SizeValue>,
    /// Whether the interface is up.
    pub up: bool,
}

impl DesiredState {
    pub(super) fn add_link(&mut self, words: &LinkArgs) -> Result<(), Refusal> {
        if self.links.contains_key(&words.name) {
            return Err(Refusal::new(
                format!("link \"{}\" exists already", words.name),
                "delete it first, change it with \"geneved link set\", or choose another name",
            )
            .because(RefusalCause::Exists(words.name.to_string())));
        }
        let encapsulation = words.kind.unwrap_or_default().into();
        let Some(id) = words.id else {
            return Err(Refusal::new(
                format!(
                    "link \"{}\": {encapsulation}: missing virtual network identifier",
                    words.name
                ),
                "add \"id VNI\"",
            ));
        };
        let mut link = LinkSpec {
            name: words.name.clone(),
            encapsulation,
            mode: words.mode.unwrap_or(ModeValue::Ip),
            bridging: BridgingSpec::default(),
            inner: match words.mode {
                Some(ModeValue::Ethernet) => InnerProtocol::Ethernet,
                _ => encapsulation.default_inner(),
            },
            lladdr: None,
            vni: id.0,
            remote: None,
            local: None,
            port: encapsulation.port(),
            ttl: Ttl::default(),
            tos: Tos::default(),
            df: Df::default(),
            udp_csum: true,
            udp6_zero_csum_tx: false,
            udp6_zero_csum_rx: false,
            srcport: PortRange::default(),
            segmentation: LinkSegmentation::Auto,
            mtu: MtuValue::Auto,
            addresses: Vec::new(),
            allowed: Vec::new(),
            netns: None,
            ingress: DefaultAction::Allow,
            egress: DefaultAction::Allow,
            labels: LabelsUse::Optional,
            options: Vec::new(),
            rate: None,
            burst: None,
            up: true,
        };
        overwrite(&mut link, words);
        self.check_link(&link, words)?;
        self.put_link(link);
        Ok(())
    }

    pub(super) fn set_link(&mut self, words: &LinkArgs) -> Result<(), Refusal> {
        let mut link = self.link(&words.name)?.clone();
        let netns = words.netns.is_some() && words.netns != link.netns;
        let kind = words
            .kind
            .is_some_and(|kind| link.encapsulation != kind.into());
        let mode = words.mode.is_some_and(|mode| mode != link.mode);
        fixed(&words.name, netns, kind, mode)?;
        overwrite(&mut link, words);
        self.check_link(&link, words)?;
        let was = self.put_link(link);
        // Objects of the link name hosts and addresses that must suit these settings.
        if words.local.is_some() || words.inner.is_some() {
            self.keep_if_whole(&words.name, was)?;
        }
        Ok(())
    }

    /// Checks whether the link could be replaced by one made of these words.
    pub(super) fn check_reset(&self, words: &LinkArgs) -> Result<(), Refusal> {
        let link = self.link(&words.name)?;
        let kind = words.kind.unwrap_or_default();
        fixed(
            &words.name,
            words.netns != link.netns,
            link.encapsulation != kind.into(),
            words.mode.unwrap_or(ModeValue::Ip) != link.mode,
        )
    }

    /// Adds an address to a link, or removes one.
    pub(super) fn change_address(
        &mut self,
        verb: ChangeVerb,
        words: &AddressArgs,
    ) -> Result<(), Refusal> {
        let AddressArgs { prefix, dev } = words;
        let mut all = self.link(dev)?.addresses.clone();
        let object = format!("address \"{prefix}\" dev {dev}");
        let at = all.iter().position(|address| *address == prefix.0);
        match (verb, at) {
            (ChangeVerb::Add, Some(_)) => {
                let exists = RefusalCause::Exists(prefix.to_string());
                return Err(Refusal::new(format!("{object} exists already"), "").because(exists));
            }
            (ChangeVerb::Add | ChangeVerb::Replace, None) => all.push(prefix.0),
            (ChangeVerb::Replace, Some(_)) => {}
            (ChangeVerb::Del, Some(at)) => drop(all.remove(at)),
            (ChangeVerb::Del, None) => {
                let has: Vec<_> = all.iter().map(ToString::to_string).collect();
                return Err(absent(&object, &prefix.to_string(), &has, "address"));
            }
            (ChangeVerb::Set, _) => {
                return Err(Refusal::new(
                    format!("{object} has no settings"),
                    "add the new one, and delete the old one",
                ));
            }
        }
        let mut link = self.link(dev)?.clone();
        link.addresses = all;
        self.check_link(&link, &LinkArgs::default())?;
        self.put_link(link);
        Ok(())
    }

    /// Creates a link, or replaces its settings and keeps the objects on it.
    pub(super) fn replace_link(&mut self, words: &LinkArgs) -> Result<(), Refusal> {
        let was = self.take_link(&words.name);
        match self.add_link(words) {
            Ok(()) => self.keep_if_whole(&words.name, was),
            Err(refusal) => {
                was.map(|link| self.put_link(link));
                Err(refusal)
            }
        }
    }

    /// Restores the previous link if an object on it does not suit the new one.
    fn keep_if_whole(&mut self, name: &IfName, was: Option<LinkSpec>) -> Result<(), Refusal> {
        self.is_whole().inspect_err(|_| match was {
            Some(link) => drop(self.put_link(link)),
            None => drop(self.take_link(name)),
        })
    }

    fn check_link(&self, link: &LinkSpec, words: &LinkArgs) -> Result<(), Refusal> {
        let name = &link.name;
        let taken = self.link_with(link.port, link.vni.into());
        let taken = taken.filter(|other| other.name != *name);
        if let Some(other) = taken {
            return Err(Refusal::new(
                format!(
                    "link \"{name}\": id {} on port {} is already that of link \"{}\"",
                    link.vni, link.port, other.name
                ),
                "choose another id or dstport",
            )
            .because(RefusalCause::Conflict(other.name.to_string())));
        }
        for address in &link.addresses {
            overlay_address(address.addr()).map_err(|e| {
                Refusal::new(format!("link \"{name}\": address {address}: {e}"), "")
            })?;
        }
        self.check_encapsulation(link)?;
        self.check_mode(link, words)?;
        check_allowed(link)?;
        // The kernel accepts datagrams without a checksum by socket, not by VNI.
        let differs = self.other_on_port(link);
        let differs = differs.filter(|other| other.udp6_zero_csum_rx != link.udp6_zero_csum_rx);
        if let Some(other) = differs {
            return Err(Refusal::new(
                format!(
                    "link \"{name}\": udp6zerocsumrx is {} and that of link \"{}\" on the same port {} is not",
                    link.udp6_zero_csum_rx, other.name, link.port
                ),
                "choose another dstport",
            )
            .because(RefusalCause::Conflict(other.name.to_string())));
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
                format!(
                    "the port is from 1 to 65535; that of {} is {}",
                    link.encapsulation.title(),
                    link.encapsulation.port()
                ),
            ));
        }
        if let (MtuValue::Fixed(mtu @ ..1280), true) = (
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
        burst_needs_rate(&format!("link \"{name}\""), link.rate, link.burst)?;
        self.check_options(&format!("link \"{name}\""), &link.options)?;
        let heaviest = self
            .endpoints_of(name)
            .map(|(_, endpoint)| super::option::size(&endpoint.options))
            .max();
        super::option::check_room(
            &format!("link \"{name}\""),
            super::option::size(&link.options) + heaviest.unwrap_or(0),
        )?;
        Ok(())
    }

    pub(super) fn del_link(&mut self, name: &IfName) -> Result<(), Refusal> {
        self.link(name)?;
        self.no_proxy_leads_to(name)?;
        self.take_link(name);
        self.routes.retain(|(dev, _), _| dev != name);
        self.fdb.retain(|(dev, _), _| dev != name);
        self.endpoints.retain(|(dev, _), _| dev != name);
        self.policies.retain(|(dev, _), _| dev != name);
        self.nats.retain(|(dev, _), _| dev != name);
        self.services.retain(|(dev, _), _| dev != name);
        self.classes.retain(|(dev, _), _| dev != name);
        Ok(())
    }
}

impl LinkSpec {
    /// Converts to the words that create the link, all of them.
    #[must_use]
    pub fn words(&self) -> LinkArgs {
        let bridging = (self.mode == ModeValue::Ethernet).then_some(self.bridging);
        LinkArgs {
            name: self.name.clone(),
            kind: Some(self.encapsulation.into()),
            id: Some(value::VniValue(self.vni)),
            mode: Some(self.mode),
            inner: Some(InnerValue(self.inner)),
            lladdr: self.lladdr.map(MacValue),
            remote: self.remote,
            local: self.local,
            dstport: Some(self.port),
            ttl: Some(TtlValue(self.ttl)),
            tos: Some(TosValue(self.tos)),
            df: Some(DfValue(self.df)),
            udpcsum: Some(self.udp_csum),
            udp6zerocsumtx: Some(self.udp6_zero_csum_tx),
            udp6zerocsumrx: Some(self.udp6_zero_csum_rx),
            srcport: Some(self.srcport.clone()),
            segmentation: Some(self.segmentation),
            mtu: Some(self.mtu),
            address: self.addresses.iter().copied().map(PrefixValue).collect(),
            allowed: self.allowed.iter().copied().map(PrefixValue).collect(),
            netns: self.netns.clone(),
            ingress: Some(self.ingress),
            egress: Some(self.egress),
            labels: Some(self.labels),
            option: self.options.clone(),
            rate: self.rate.map(OrNone::Is),
            burst: self.burst.map(OrNone::Is),
            up: Some(self.up),
            learning: bridging.map(|b| b.learning),
            ageing: bridging.map(|b| b.ageing),
            maxaddress: bridging.map(|b| b.max_addresses),
            floodrate: bridging.map(|b| b.flood_rate),
        }
    }
}

/// Checks that the allowed prefixes can be behind the link.
fn check_allowed(link: &LinkSpec) -> Result<(), Refusal> {
    let name = &link.name;
    if link.mode == ModeValue::Ethernet && !link.allowed.is_empty() {
        return Err(Refusal::new(
            format!("link \"{name}\": allowed is for links in mode ip"),
            "frames are delivered by their MAC address: leave \"allowed\" out",
        ));
    }
    for (at, prefix) in link.allowed.iter().enumerate() {
        let refuse = |why: &str, hint: String| {
            let what = format!("link \"{name}\": allowed \"{prefix}\": {why}");
            Err(Refusal::new(what, hint))
        };
        if *prefix != prefix.trunc() {
            let hint = format!("did you mean \"{}\"?", prefix.trunc());
            return refuse("bits beyond the prefix length are set", hint);
        }
        let addr = prefix.addr();
        if prefix.prefix_len() > 0 && addr.is_multicast() {
            return refuse(
                "it is a multicast group",
                "groups are always allowed: leave it out".into(),
            );
        }
        if addr.is_loopback() {
            return refuse(
                "nothing behind a link has a loopback address",
                "name the prefix of what is there".into(),
            );
        }
        if link.allowed[..at].contains(prefix) {
            return refuse("it is named twice", String::new());
        }
    }
    Ok(())
}

/// Refuses changes of settings that are fixed for the life of a link.
fn fixed(name: &IfName, netns: bool, kind: bool, mode: bool) -> Result<(), Refusal> {
    let changes = [
        (netns, "network namespace", "netns"),
        (kind, "type", "type"),
        (mode, "mode", "mode"),
    ];
    match changes.into_iter().find(|(changes, ..)| *changes) {
        None => Ok(()),
        Some((_, what, word)) => Err(Refusal::new(
            format!("link \"{name}\": its {what} cannot be changed"),
            format!("delete the link and add it with another \"{word}\""),
        )),
    }
}

fn overwrite(link: &mut LinkSpec, words: &LinkArgs) {
    link.bridging.overwrite(words);
    put(&mut link.vni, words.id.map(|id| id.0));
    put(&mut link.inner, words.inner.map(|inner| inner.0));
    put(&mut link.lladdr, words.lladdr.map(|mac| Some(mac.0)));
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
    put(&mut link.segmentation, words.segmentation);
    put(&mut link.mtu, words.mtu);
    put(&mut link.netns, words.netns.clone().map(Some));
    put(&mut link.ingress, words.ingress);
    put(&mut link.egress, words.egress);
    put(&mut link.labels, words.labels);
    limit((&mut link.rate, &mut link.burst), (words.rate, words.burst));
    put(&mut link.up, words.up);
    if !words.option.is_empty() {
        link.options.clone_from(&words.option);
    }
    if !words.address.is_empty() {
        link.addresses = words.address.iter().map(|p| p.0).collect();
    }
    if !words.allowed.is_empty() {
        link.allowed = words.allowed.iter().map(|p| p.0).collect();
    }
}

pub(super) fn same_family(name: &IfName, local: IpAddr, other: IpAddr) -> Result<(), Refusal> {
    if local.is_ipv4() == other.is_ipv4() {
        return Ok(());
    }
    Err(Refusal::new(
        format!("link \"{name}\": local {local} and host {other} are of different families"),
        "use IPv4 or IPv6 at both ends of the tunnel",
    ))
}

/// Sets rate and burst as named; removing the rate removes the burst.
pub(super) fn limit(
    (rate, burst): (&mut Option<RateValue>, &mut Option<SizeValue>),
    (new_rate, new_burst): (Option<OrNone<RateValue>>, Option<OrNone<SizeValue>>),
) {
    if new_rate == Some(OrNone::None) {
        *burst = None;
    }
    put(rate, new_rate.map(OrNone::value));
    put(burst, new_burst.map(OrNone::value));
}

/// Refuses a burst without a rate.
pub(super) fn burst_needs_rate(
    object: &str,
    rate: Option<RateValue>,
    burst: Option<SizeValue>,
) -> Result<(), Refusal> {
    if burst.is_none() || rate.is_some() {
        return Ok(());
    }
    Err(Refusal::new(
        format!("{object}: burst without a rate"),
        "add \"rate RATE\"",
    ))
}
