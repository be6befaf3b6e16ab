//! Resolution of a flow's first packet through service, NAT and class.

use std::net::IpAddr;
use std::sync::Arc;

use super::FirstPacket;
use super::encap::HeaderFields;
use crate::datapath::decision::{NextHop, PacketContext};
use crate::datapath::trace_observer::TraceObserver;
use crate::drop::DropReason;
use crate::flow::FlowKey;
use crate::nat::{NatPool, PoolShare, PortLease, SourceTranslation};
use crate::options::{EndpointType, ServiceOption};
use crate::policy::Direction;
use crate::qos::Meter;
use crate::route::RouteOrigin;
use crate::vpc::{Link, LinkIndex};
use crate::wire::ip::protocol;

/// Resolution of a flow, as far as it has been decided.
#[derive(Debug)]
pub(super) struct Resolution {
    pub(super) src: (IpAddr, u16),
    pub(super) dst: (IpAddr, u16),
    /// Link in whose VPC the packet leaves.
    pub(super) link: LinkIndex,
    pub(super) lease: Option<PortLease>,
    pub(super) service: Option<ServiceOption>,
    pub(super) class: Option<u8>,
    pub(super) meter: Option<Meter>,
    pub(super) next_hop: NextHop,
}

impl Resolution {
    pub(super) fn new(link: &Link, initial: &FirstPacket) -> Resolution {
        let key = &initial.key;
        Resolution {
            src: (key.src, key.sport),
            dst: (key.dst, key.dport),
            link: link.config.index,
            lease: None,
            service: None,
            class: None,
            meter: None,
            next_hop: NextHop::Undecided,
        }
    }

    /// Redirects to a backend or to the inside address of a translation.
    pub(super) fn redirect_to(&mut self, addr: IpAddr, port: Option<u16>) {
        self.dst = (addr, port.unwrap_or(self.dst.1));
    }

    /// Applies the link's service and NAT rules to the destination.
    pub(super) fn destination<E: TraceObserver>(
        &mut self,
        link: &Link,
        initial: &FirstPacket,
        before: Option<&FlowKey>,
        log: &mut E,
    ) -> Result<Redirect, DropReason> {
        let functions = &link.config.functions;
        let key = &initial.key;
        let port = initial.ports().map(|(_, dst)| dst);
        if let Some(services) = &functions.services
            && let Some(service) = port.and_then(|port| services.find(key.dst, key.protocol, port))
        {
            let kept = before
                .map(|reply| (reply.src, reply.sport))
                .filter(|&(addr, port)| service.keeps(addr, port));
            let (addr, port) = match kept {
                Some((addr, port)) => (addr, Some(port)),
                None => {
                    let (_, backend) = service
                        .pick(key.src, key.sport)
                        .ok_or(DropReason::NoBackend)?;
                    (backend.addr, backend.port)
                }
            };
            self.redirect_to(addr, port);
            log.record("service", || {
                format!(
                    "service {} chooses backend {addr} port {}",
                    service.config.name, self.dst.1
                )
            });
            return Ok(Redirect::Service);
        }
        if let Some(nat) = &functions.nat {
            if let Some(to) = nat.destination(key.dst, key.protocol, port) {
                self.redirect_to(to.addr, to.port);
                log.record("nat", || {
                    format!(
                        "nat {}: destination {} becomes {} port {}",
                        to.rule, key.dst, to.addr, self.dst.1
                    )
                });
                return Ok(Redirect::Nat);
            }
            if let Some((addr, port)) = nat.mapping(key.protocol, key.dst, key.dport) {
                self.redirect_to(addr, Some(port));
                log.record("nat", || {
                    format!(
                        "hairpin: {} port {} is the outside of {addr} port {port}",
                        key.dst, key.dport
                    )
                });
                return Ok(Redirect::Hairpin);
            }
        }
        Ok(Redirect::None)
    }

    /// Applies the link's source NAT rules.
    pub(super) fn source<E: TraceObserver>(
        &mut self,
        cx: &PacketContext<'_>,
        link: &Link,
        initial: &FirstPacket,
        log: &mut E,
    ) -> Result<(), DropReason> {
        let Some(nat) = &link.config.functions.nat else {
            return Ok(());
        };
        let (addr, rule) = match nat.source(initial.key.src) {
            None => return Ok(()),
            Some(SourceTranslation::Static { outside, rule }) => {
                self.src.0 = outside;
                (outside, rule)
            }
            Some(SourceTranslation::Pool { pool, rule }) => {
                if !translatable(initial) {
                    return Err(DropReason::NatUntranslatable);
                }
                let inside = (initial.key.src, initial.key.sport);
                let outside =
                    self.lease_port::<E>(cx, (pool, None), initial.key.protocol, inside)?;
                self.src = outside;
                if is_icmp(initial.key.protocol) {
                    // An ICMP identifier stands for both ports.
                    self.dst.1 = outside.1;
                }
                (outside.0, rule)
            }
        };
        log.record("nat", || {
            format!(
                "nat {rule}: source {} becomes {addr} port {}",
                initial.key.src, self.src.1
            )
        });
        Ok(())
    }

    /// Translates the source `src` to its outside address, unless the packet stays in the VPC.
    pub(super) fn translate_source<E: TraceObserver>(
        &mut self,
        cx: &PacketContext<'_>,
        link: &Link,
        initial: &FirstPacket,
        redirect: Redirect,
        log: &mut E,
    ) -> Result<(), DropReason> {
        if redirect != Redirect::Hairpin && stays(link, initial.key.src, self.dst.0) {
            return Ok(());
        }
        self.source(cx, link, initial, log)
    }

    /// Leases an outside address and port from a pool, or from one link's share of it.
    pub(super) fn lease_port<E: TraceObserver>(
        &mut self,
        cx: &PacketContext<'_>,
        (pool, share): (&Arc<NatPool>, Option<&PoolShare>),
        number: u8,
        inside: (IpAddr, u16),
    ) -> Result<(IpAddr, u16), DropReason> {
        let exhausted = |_| DropReason::NatExhausted;
        if E::DRY {
            return pool.peek(share, number, inside, cx.now).map_err(exhausted);
        }
        let lease = pool
            .lease_of(share, number, inside, cx.now)
            .map_err(exhausted)?;
        let outside = lease.outside();
        self.lease = Some(lease);
        Ok(outside)
    }

    /// Returns the header inputs for packets from `src` to `dst`, an endpoint of this type.
    pub(super) fn header_fields<'a>(
        &self,
        src: IpAddr,
        dst: IpAddr,
        to: EndpointType,
    ) -> HeaderFields<'a> {
        HeaderFields {
            src,
            dst,
            to,
            class: self.class,
            precedence: self.meter.as_ref().map_or(0, |m| m.precedence),
            service: None,
            relayed: None,
        }
    }

    /// Sets the flow's class and the meters for its packets out of `link`.
    pub(super) fn classify<E: TraceObserver>(
        &mut self,
        link: &Link,
        direction: Direction,
        endpoint: IpAddr,
        class: Option<u8>,
        precedence: Option<u8>,
        log: &mut E,
    ) {
        let functions = &link.config.functions;
        let endpoint = functions.endpoints.get(&endpoint);
        let id = class.or_else(|| endpoint.and_then(|e| e.class));
        let class = id.and_then(|id| functions.class(id));
        self.class = class.map(|c| c.id);
        let buckets = match direction {
            Direction::Egress => [
                functions.rate.clone(),
                endpoint.and_then(|e| e.rate.clone()),
                class.and_then(|c| c.bucket.clone()),
            ],
            Direction::Ingress => [
                functions.rate_ingress.clone(),
                None,
                class.and_then(|c| c.ingress.clone()),
            ],
        };
        let dscp = class.and_then(|c| c.dscp);
        if let Some(class) = class {
            log.record("class", || {
                format!("class {} (id {})", class.name, class.id)
            });
        }
        if class.is_some() || buckets.iter().any(Option::is_some) {
            let precedence = precedence.unwrap_or_else(|| dscp.map_or(0, drop_precedence));
            self.meter = Some(Meter {
                buckets,
                dscp,
                precedence,
                class: class.cloned(),
            });
        }
    }
}

/// Kind of destination redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    None,
    Service,
    Nat,
    Hairpin,
}

/// Returns the drop precedence of an AF code point, 0 to 2 (RFC 2597); 0 for other code points.
fn drop_precedence(dscp: u8) -> u8 {
    let (class, precedence) = (dscp >> 3, dscp >> 1 & 3);
    if (1..=4).contains(&class) && dscp & 1 == 0 && precedence > 0 {
        precedence - 1
    } else {
        0
    }
}

pub(super) fn is_icmp(number: u8) -> bool {
    matches!(number, protocol::ICMP | protocol::ICMPV6)
}

/// Whether the packet has a port, or an ICMP identifier in its place.
pub(super) fn translatable(initial: &FirstPacket) -> bool {
    let query = match initial.icmp {
        Some((kind, _)) => crate::wire::packet::is_icmp_query(initial.version(), kind),
        None => false,
    };
    initial.ports().is_some() || query
}

/// Whether NAT leaves the packet alone because it stays in the VPC: a pool is for destinations outside its own
/// prefix, and one-to-one NAT is for peers that do not know the endpoint by its inside address.
pub(super) fn stays(link: &Link, src: IpAddr, dst: IpAddr) -> bool {
    let functions = &link.config.functions;
    let Some(nat) = &functions.nat else {
        return true;
    };
    if nat.covers_both(src, dst) {
        return true;
    }
    let inside = || match (functions.endpoints.get(&dst), link.routes.lookup(dst)) {
        (Some(endpoint), _) => endpoint.kind != EndpointType::Gateway,
        (None, Some(entry)) => {
            let known = matches!(entry.origin, RouteOrigin::Endpoint | RouteOrigin::Own);
            known && entry.kind != EndpointType::Gateway
        }
        (None, None) => false,
    };
    matches!(nat.source(src), Some(SourceTranslation::Static { .. })) && inside()
}
