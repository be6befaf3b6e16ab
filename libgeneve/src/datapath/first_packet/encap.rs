//! Encapsulation header of a flow: Geneve options, and the inner Ethernet header if the link makes one.

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

/// Inputs of an encapsulation header.
pub(super) struct HeaderFields<'a> {
    /// Inner source.
    pub(super) src: IpAddr,
    /// Inner destination.
    pub(super) dst: IpAddr,
    /// Type of the destination.
    pub(super) to: EndpointType,
    pub(super) class: Option<u8>,
    pub(super) precedence: u8,
    pub(super) service: Option<ServiceOption>,
    /// Received options of a relayed packet; what they say about its source is kept.
    pub(super) relayed: Option<&'a ReceivedOptions>,
}

/// Encapsulation header with its metadata.
pub(super) struct BuiltHeader {
    pub(super) encap: Arc<HeaderBytes>,
    /// Known options in it, one bit per schema slot.
    pub(super) slots: u32,
    /// Learned neighbour whose MAC address is in it, if any.
    pub(super) neighbor: Option<NeighborUse>,
}

/// Builds the header of packets with this mark to `host`.
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
    // On a bridge the frames bring their own Ethernet headers.
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

/// Builds the header of frames outside of any flow, with the options that all packets of the link carry. Also returns
/// the known options in it.
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
        // Empty, because no endpoint's labels apply.
        relayed: Some(&ReceivedOptions::default()),
    };
    let BuiltHeader { encap, slots, .. } = header(cx, link, None, &header_fields, &mut NoTrace)?;
    Ok((encap, slots))
}

/// Returns the MAC address of an inner destination, and its neighbour entry if it was learned; if it is unknown,
/// queues a request to `host`.
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

/// Builds the Geneve header of packets with this mark; also returns the known options in it.
fn with_options<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    header_fields: &HeaderFields<'_>,
    protocol: u16,
    log: &mut E,
) -> Result<(HeaderBytes, u32), DropReason> {
    let functions = &link.config.functions;
    let source = functions.endpoints.get(&header_fields.src);
    // Relayed packets of an endpoint on another host carry none of that endpoint's configured options.
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
    // Configurations whose options do not fit are refused, and relayed labels are bounded.
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
