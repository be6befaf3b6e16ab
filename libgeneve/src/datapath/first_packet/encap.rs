//! The header of a flow: which options go before its packets, and whose frame it is.

use std::net::IpAddr;
use std::sync::Arc;

use crate::datapath::decision::PacketContext;
use crate::datapath::neighbor_discovery::{NeighborRequest, RequestAudience};
use crate::datapath::trace_observer::{NoTrace, TraceObserver};
use crate::drop::DropReason;
use crate::label::LabelSet;
use crate::options::{
    ClassOption, EndpointOption, EndpointType, ReceivedOptions, SentOptions, ServiceOption,
};
use crate::vpc::{AttachedOption, Host, Link, NeighborUse};
use crate::wire::encapsulation::{Encapsulation, InnerProtocol};
use crate::wire::ethernet::{Mac, ethernet_header, ethertype};
use crate::wire::geneve::protocol_type;
use crate::wire::header::HeaderBytes;
use crate::wire::option::GeneveOption;

/// What the header of a packet says.
pub(super) struct HeaderFields<'a> {
    /// The inner source.
    pub(super) src: IpAddr,
    /// The inner destination.
    pub(super) dst: IpAddr,
    /// What the destination is.
    pub(super) to: EndpointType,
    pub(super) class: Option<u8>,
    pub(super) precedence: u8,
    pub(super) service: Option<ServiceOption>,
    /// The options with which the packet came, where it is relayed: what they say of its source stays.
    pub(super) relayed: Option<&'a ReceivedOptions>,
}

/// A header, and what is known of it.
pub(super) struct BuiltHeader {
    pub(super) encap: Arc<HeaderBytes>,
    /// Known options in it, a bit for each slot of the schema.
    pub(super) slots: u32,
    /// The neighbour whose MAC address is in it, where one was learned.
    pub(super) neighbor: Option<NeighborUse>,
}

/// The header of packets with this mark to `host`.
pub(super) fn header<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    host: Option<&Arc<Host>>,
    header_fields: &HeaderFields<'_>,
    log: &mut E,
) -> Result<BuiltHeader, DropReason> {
    let ether_type = match header_fields.src {
        IpAddr::V4(_) => ethertype::IPV4,
        IpAddr::V6(_) => ethertype::IPV6,
    };
    let protocol = match link.config.inner {
        InnerProtocol::Ip => ether_type,
        InnerProtocol::Ethernet => protocol_type::ETHERNET,
    };
    let (mut header, slots) = match link.config.encapsulation {
        Encapsulation::Geneve => with_options(cx, link, header_fields, protocol, log)?,
        plain => (plain.header(link.config.vni, protocol), 0),
    };
    let mut neighbor = None;
    // A bridge has the frames of others, with their own headers.
    if link.config.inner == InnerProtocol::Ethernet && link.bridge.is_none() {
        let dst;
        (dst, neighbor) = find_neighbor::<E>(cx, link, host, header_fields.dst)?;
        log.record("neighbor", || format!("{} is at {dst}", header_fields.dst));
        let frame = ethernet_header(dst, link.config.lladdr, ether_type);
        if !header.push(&frame) {
            return Err(DropReason::OptionMalformed);
        }
    }
    Ok(BuiltHeader {
        encap: super::intern_header::<E>(cx, header),
        slots,
        neighbor,
    })
}

/// The header of frames that belong to no flow, which carry what every packet of the link carries, and which known options
/// are in it.
pub(in crate::datapath) fn plain_header(
    cx: &PacketContext<'_>,
    link: &Link,
) -> Result<(Arc<HeaderBytes>, u32), DropReason> {
    let nobody = IpAddr::from([0; 4]);
    let header_fields = HeaderFields {
        src: nobody,
        dst: nobody,
        to: EndpointType::Simple,
        class: None,
        precedence: 0,
        service: None,
        // Whose labels it would say belongs to nobody.
        relayed: Some(&ReceivedOptions::default()),
    };
    let BuiltHeader { encap, slots, .. } = header(cx, link, None, &header_fields, &mut NoTrace)?;
    Ok((encap, slots))
}

/// The MAC address of an inner destination, and whose it is where it was learned; `host` is asked where it is not known.
fn find_neighbor<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    host: Option<&Arc<Host>>,
    dst: IpAddr,
) -> Result<(Mac, Option<NeighborUse>), DropReason> {
    let config = &link.config;
    let group = match dst {
        IpAddr::V4(dst) if dst.is_multicast() => Some(Mac::of_multicast_v4(dst)),
        IpAddr::V4(dst) if dst.is_broadcast() || config.broadcasts.contains(&dst) => {
            Some(Mac::BROADCAST)
        }
        IpAddr::V6(dst) if dst.is_multicast() => Some(Mac::of_multicast_v6(dst)),
        _ => None,
    };
    let endpoint = config.functions.endpoints.get(&dst);
    if let Some(mac) = group.or_else(|| endpoint.and_then(|e| e.lladdr)) {
        return Ok((mac, None));
    }
    if let Some((mac, neighbor)) = config.neighbors.find(dst, cx.now) {
        return Ok((mac, Some(neighbor)));
    }
    if let Some(host) = host
        && !E::DRY
        && config.neighbors.should_ask(dst, cx.now)
    {
        cx.state.ask(NeighborRequest {
            link: config.index,
            addr: dst,
            audience: RequestAudience::Host(Arc::clone(host), None),
        });
    }
    Err(DropReason::NeighborUnresolved)
}

/// The Geneve header of packets with this mark, and which known options are in it.
fn with_options<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    header_fields: &HeaderFields<'_>,
    protocol: u16,
    log: &mut E,
) -> Result<(HeaderBytes, u32), DropReason> {
    let functions = &link.config.functions;
    let source = functions.endpoints.get(&header_fields.src);
    // What is sent on for an endpoint of another host carries none of its options.
    let here = source.filter(|e| e.local);
    let relayed = header_fields.relayed.and_then(|r| r.endpoint);
    let from = relayed.map_or_else(
        || source.map_or(EndpointType::Simple, |e| e.kind),
        |e| e.src,
    );
    let typed = (from, header_fields.to) != (EndpointType::Simple, EndpointType::Simple);
    let labels = || match header_fields.relayed {
        Some(received) => received.labels,
        // An endpoint without labels is known to have none.
        None => Some(here.and_then(|e| e.labels).unwrap_or(LabelSet::EMPTY)),
    };
    let own: &[AttachedOption] = here.map_or(&[], |e| &e.options);
    let attach = SentOptions {
        endpoint: typed.then_some(EndpointOption {
            src: from,
            dst: header_fields.to,
            direct_path: header_fields.service.is_some(),
            service_id: 0,
        }),
        labels: if functions.labels {
            labels().map(|set| (set, functions.labels_critical))
        } else {
            None
        },
        class: header_fields.class.map(|class| ClassOption {
            class,
            drop_precedence: header_fields.precedence,
        }),
        service: header_fields.service,
    };
    let defined = functions.options.iter().chain(own).map(|a| GeneveOption {
        class: a.class,
        kind: a.kind,
        data: &a.data,
    });
    // A configuration whose options do not fit is refused; relayed labels are bounded.
    let header = attach
        .header(&cx.tables.schema, link.config.vni, protocol, defined)
        .map_err(|_| DropReason::OptionMalformed)?;
    log.record("options", || {
        let options = link.config.encapsulation.parse(&header).map(|g| {
            let words: Vec<_> = g.options().map(|o| o.to_string()).collect();
            words.join(" ")
        });
        match options {
            Ok(text) if !text.is_empty() => {
                format!("{text} ({} bytes of Geneve header)", header.len())
            }
            _ => "none".to_owned(),
        }
    });
    let slots = link.config.encapsulation.parse(&header).map_or(0, |g| {
        let known = g
            .options()
            .filter_map(|o| cx.tables.schema.lookup(o.class, o.kind));
        known.fold(0, |slots, known| slots | 1 << known.slot())
    });
    Ok((header, slots))
}
