//! The first packet of a flow: every function is asked once, in the order of the journey.
//!
//! What comes of it is a [`Decision`] that later packets follow without asking again.

mod bridge;
mod encap;
mod reply;
mod tun;
mod wire;

use std::net::IpAddr;
use std::sync::Arc;

use self::encap::Mark;
pub(super) use self::encap::plain_header;
pub(super) use self::reply::second_half;
use super::explain::Explain;
use super::state::{Came, Context, Decided, Decision, Exit, Fate, From, Half, Meter, Prefix, Way};
use crate::bridge::Place;
use crate::drop::DropReason;
use crate::flow::{FlowKey, Side};
use crate::label::Labels;
use crate::link::{Host, Link};
use crate::nat::{Lease, Pool, Source};
use crate::options::{EndpointType, Received, ServiceOption};
use crate::policy::{Action, Direction, Query, Verdict};
use crate::route::{Entry, Origin, Target};
use crate::service::maglev::FlowId;
use crate::time::Now;
use crate::wire::header::HeaderBytes;
use crate::wire::ip::protocol;
use crate::wire::packet::{IpVersion, Packet, Transport};

/// The packet that a flow is decided by: its key, and what a key does not hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) key: FlowKey,
    /// ICMP type and code.
    pub(super) icmp: Option<(u8, u8)>,
}

impl Subject {
    pub(super) fn of(key: FlowKey, packet: &Packet) -> Subject {
        let icmp = match packet.transport {
            Transport::Icmp { kind, code, .. } => Some((kind, code)),
            _ => None,
        };
        Subject { key, icmp }
    }

    fn version(&self) -> IpVersion {
        match self.key.dst {
            IpAddr::V4(_) => IpVersion::V4,
            IpAddr::V6(_) => IpVersion::V6,
        }
    }

    /// TCP and UDP ports, where they could be read.
    fn ports(&self) -> Option<(u16, u16)> {
        let has = matches!(self.key.protocol, protocol::TCP | protocol::UDP);
        let known = (self.key.sport, self.key.dport) != (0, 0);
        (has && known).then_some((self.key.sport, self.key.dport))
    }
}

/// Where a flow's first packet came from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entrance<'a> {
    /// TUN.
    Tun,
    /// The wire.
    Wire(Arrived<'a>),
}

/// How a packet came from the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived<'a> {
    pub(super) host: &'a Arc<Host>,
    pub(super) received: &'a Received,
    /// The Geneve header.
    pub(super) header: &'a HeaderBytes,
    /// Of its options.
    pub(super) digest: u64,
}

/// A decision, and the key of the flow's replies.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) decision: Decision,
    pub(super) reply: FlowKey,
}

/// Decides a flow by its first packet; `before` is the key of its replies so far, where the configuration changed.
///
/// # Errors
/// It is not forwarded, for a reason that has nothing to do with the flow's being known.
pub(super) fn first_half<E: Explain>(
    cx: &Context<'_>,
    link: &Link,
    subject: &Subject,
    entrance: &Entrance<'_>,
    before: Option<&FlowKey>,
    log: &mut E,
) -> Result<Planned, DropReason> {
    let mut course = Course::new(link, subject);
    let verdict = match entrance {
        Entrance::Tun if link.bridge.is_some() => {
            bridge::from_tap(cx, link, subject, before, &mut course, log)?
        }
        Entrance::Wire(at) if link.bridge.is_some() => {
            bridge::from_wire(link, subject, at, before, &mut course, log)?
        }
        Entrance::Tun => tun::walk(cx, link, subject, before, &mut course, log)?,
        Entrance::Wire(at) => wire::walk(cx, link, subject, at, before, &mut course, log)?,
    };
    let fate = match verdict.action {
        Action::Allow => Fate::Forward,
        Action::Deny => Fate::Drop(DropReason::PolicyDenied),
        Action::Reject => Fate::Reject,
    };
    let (came, digest, header) = match entrance {
        Entrance::Tun => (Came::Tun, 0, None),
        Entrance::Wire(at) => (
            Came::Wire(Arc::clone(at.host)),
            at.digest,
            Some(kept::<E>(cx, *at.header)),
        ),
    };
    let reply = FlowKey {
        link: course.link,
        src: course.dst.0,
        sport: course.dst.1,
        dst: course.src.0,
        dport: course.src.1,
        protocol: subject.key.protocol,
    };
    let half = Half {
        came,
        exit: course.exit,
        meter: course.meter,
        digest,
        service: course.service,
        header,
    };
    let hash = hash_of(cx, &subject.key);
    let mut decision = Decision {
        fate,
        cut: false,
        class: course.class,
        icmp: subject.icmp,
        halves: [None, None],
        hashes: [0; 2],
        rule: verdict.rule,
        lease: course.lease,
        heard: 0,
    };
    decision.set_half(Side::Original, decided::<E>(cx, half, hash));
    let reply = if fate == Fate::Forward {
        reply
    } else {
        subject.key.reversed()
    };
    Ok(Planned { decision, reply })
}

/// A header for flows to share; an account of what would be leaves no trace.
fn kept<E: Explain>(cx: &Context<'_>, header: HeaderBytes) -> Arc<HeaderBytes> {
    if E::DRY {
        Arc::new(header)
    } else {
        cx.state.share(header)
    }
}

/// A half for flows to share, and the flow's hash in so many bits as the choice of a port needs.
fn decided<E: Explain>(cx: &Context<'_>, half: Half, hash: u64) -> Decided {
    let half = if E::DRY {
        Arc::new(half)
    } else {
        cx.state.share_half(half)
    };
    Decided {
        half,
        hash: (hash >> 32) as u32,
    }
}

/// A flow's way through the functions, as far as it is decided.
#[derive(Debug)]
struct Course {
    src: (IpAddr, u16),
    dst: (IpAddr, u16),
    /// The link whose VPC it leaves in.
    link: crate::link::LinkIndex,
    lease: Option<Lease>,
    service: Option<ServiceOption>,
    class: Option<u8>,
    meter: Option<Meter>,
    exit: Exit,
}

impl Course {
    fn new(link: &Link, subject: &Subject) -> Course {
        let key = &subject.key;
        Course {
            src: (key.src, key.sport),
            dst: (key.dst, key.dport),
            link: link.config.index,
            lease: None,
            service: None,
            class: None,
            meter: None,
            exit: Exit::Undecided,
        }
    }

    /// The destination becomes a backend or the inside of a translation.
    fn turn_to(&mut self, addr: IpAddr, port: Option<u16>) {
        self.dst = (addr, port.unwrap_or(self.dst.1));
    }

    /// Asks the link's service and NAT rules where the packet really goes.
    fn destination<E: Explain>(
        &mut self,
        link: &Link,
        subject: &Subject,
        before: Option<&FlowKey>,
        log: &mut E,
    ) -> Result<Turn, DropReason> {
        let functions = &link.config.functions;
        let key = &subject.key;
        let port = subject.ports().map(|(_, dst)| dst);
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
            self.turn_to(addr, port);
            log.note("service", || {
                format!(
                    "service {} chooses backend {addr} port {}",
                    service.config.name, self.dst.1
                )
            });
            return Ok(Turn::Service);
        }
        if let Some(nat) = &functions.nat {
            if let Some(to) = nat.destination(key.dst, key.protocol, port) {
                self.turn_to(to.addr, to.port);
                log.note("nat", || {
                    format!(
                        "nat {}: destination {} becomes {} port {}",
                        to.rule, key.dst, to.addr, self.dst.1
                    )
                });
                return Ok(Turn::Nat);
            }
            if let Some((addr, port)) = nat.mapping(key.protocol, key.dst, key.dport) {
                self.turn_to(addr, Some(port));
                log.note("nat", || {
                    format!(
                        "hairpin: {} port {} is the outside of {addr} port {port}",
                        key.dst, key.dport
                    )
                });
                return Ok(Turn::Hairpin);
            }
        }
        Ok(Turn::None)
    }

    /// Gives the packet the source that the link's NAT rules ask for.
    fn source<E: Explain>(
        &mut self,
        link: &Link,
        subject: &Subject,
        log: &mut E,
    ) -> Result<(), DropReason> {
        let Some(nat) = &link.config.functions.nat else {
            return Ok(());
        };
        let (addr, rule) = match nat.source(subject.key.src) {
            None => return Ok(()),
            Some(Source::Static { outside, rule }) => {
                self.src.0 = outside;
                (outside, rule)
            }
            Some(Source::Pool { pool, rule }) => {
                if !translatable(subject) {
                    return Err(DropReason::NatUntranslatable);
                }
                let inside = (subject.key.src, subject.key.sport);
                let outside = self.borrow::<E>(pool, subject.key.protocol, inside)?;
                self.src = outside;
                if is_icmp(subject.key.protocol) {
                    // An identifier stands for both ports.
                    self.dst.1 = outside.1;
                }
                (outside.0, rule)
            }
        };
        log.note("nat", || {
            format!(
                "nat {rule}: source {} becomes {addr} port {}",
                subject.key.src, self.src.1
            )
        });
        Ok(())
    }

    /// An outside address and port of a pool.
    fn borrow<E: Explain>(
        &mut self,
        pool: &Arc<Pool>,
        number: u8,
        inside: (IpAddr, u16),
    ) -> Result<(IpAddr, u16), DropReason> {
        let exhausted = |_| DropReason::NatExhausted;
        if E::DRY {
            return pool.peek(number, inside).map_err(exhausted);
        }
        let lease = pool.lease(number, inside).map_err(exhausted)?;
        let outside = lease.outside();
        self.lease = Some(lease);
        Ok(outside)
    }

    /// What the header of its packets from `src` to `dst`, an endpoint of this type, says.
    fn mark<'a>(&self, src: IpAddr, dst: IpAddr, to: EndpointType) -> Mark<'a> {
        Mark {
            src,
            dst,
            to,
            class: self.class,
            precedence: self.meter.as_ref().map_or(0, |m| m.precedence),
            service: None,
            relayed: None,
        }
    }

    /// The class of the flow, and the rates that its packets must keep on the way out of `link`.
    fn classify<E: Explain>(
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
            log.note("class", || {
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

/// What changed a packet's destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    None,
    Service,
    Nat,
    Hairpin,
}

/// The drop precedence that an AF code point stands for, 0 to 2 (RFC 2597); 0 for others.
fn drop_precedence(dscp: u8) -> u8 {
    let (class, precedence) = (dscp >> 3, dscp >> 1 & 3);
    if (1..=4).contains(&class) && dscp & 1 == 0 && precedence > 0 {
        precedence - 1
    } else {
        0
    }
}

fn is_icmp(number: u8) -> bool {
    matches!(number, protocol::ICMP | protocol::ICMPV6)
}

/// Whether the packet has a port, or an identifier that stands for one.
fn translatable(subject: &Subject) -> bool {
    let query = match subject.icmp {
        Some((kind, _)) => crate::wire::packet::is_icmp_query(subject.version(), kind),
        None => false,
    };
    subject.ports().is_some() || query
}

/// Asks the policy of a link.
fn ask<E: Explain>(link: &Link, query: &Query<'_>, log: &mut E) -> Verdict {
    let Some(policy) = &link.config.functions.policy else {
        return Verdict {
            action: Action::Allow,
            rule: None,
            log: false,
            class: None,
        };
    };
    let verdict = if E::DRY {
        policy.explain(query)
    } else {
        policy.decide(query)
    };
    log.note("policy", || {
        let direction = query.direction;
        match verdict.rule.and_then(|id| policy.rule(id)) {
            Some(rule) => format!("{direction} rule {}: {}", rule.name, verdict.action),
            None => format!(
                "no {direction} rule matches; the link's default is {}",
                verdict.action
            ),
        }
    });
    verdict
}

/// What the configuration says of an endpoint's labels.
fn configured_labels(link: &Link, addr: IpAddr) -> Labels<'_> {
    let endpoint = link.config.functions.endpoints.get(&addr);
    match endpoint.and_then(|e| e.labels.as_ref()) {
        Some(labels) => Labels::Known(labels.as_slice()),
        None => Labels::Unknown,
    }
}

/// The labels of an address on this host: those of its endpoint, or none.
fn own_labels(link: &Link, addr: IpAddr) -> Labels<'_> {
    match configured_labels(link, addr) {
        Labels::Unknown => Labels::Known(&[]),
        known => known,
    }
}

/// The entry of the VPC for `addr`.
fn route<'a, E: Explain>(
    link: &'a Link,
    addr: IpAddr,
    log: &mut E,
) -> Result<&'a Entry, DropReason> {
    let found = link.routes.lookup(addr);
    log.note("route", || match found {
        None => format!("no route covers {addr}"),
        Some(entry) => {
            let made = match entry.origin {
                Origin::Remote => "the link's remote",
                Origin::Route => "a route",
                Origin::Endpoint => "an endpoint",
                Origin::Own => "an address of the link",
            };
            let place = match &entry.target {
                Target::Local => "this host".to_owned(),
                Target::Hosts(hosts) => {
                    let names: Vec<_> = hosts.iter().map(|h| h.addr.to_string()).collect();
                    names.join(", ")
                }
            };
            format!("{made}: {addr} is {} on {place}", entry.kind)
        }
    });
    found.ok_or(DropReason::NoRoute)
}

/// One of the hosts of an entry, by the flow's hash or, for scaled endpoints, as all hosts choose; `None` is this host.
fn host_of<'a>(entry: &'a Entry, key: &FlowKey, hash: u64) -> Option<&'a Arc<Host>> {
    let Target::Hosts(hosts) = &entry.target else {
        return None;
    };
    if let Some(spread) = &entry.spread {
        let flow = FlowId {
            client: key.src,
            dst: key.dst,
            protocol: key.protocol,
            client_port: key.sport,
            dst_port: key.dport,
        };
        return hosts.get(spread.pick(flow.hash()));
    }
    match hosts.len() {
        0 => None,
        1 => hosts.first(),
        n => hosts.get(((u64::from(hash as u32) * n as u64) >> 32) as usize),
    }
}

/// As what a packet comes, in the eyes of who asks whether it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It begins a flow, or goes on with one from the side that began.
    Original,
    /// It answers; `direct` where another host than that of the address which was asked may answer in its name.
    Reply {
        /// See [`may_answer_directly`].
        direct: bool,
    },
}

/// How long the host that answers a flow in the name of a service must have been silent, in seconds, before another may
/// (its backend failed, say). A TCP connection cannot move: there is no other.
const SILENCE: u32 = 5;

/// The time at which a host was heard, in seconds, as decisions keep it.
#[inline]
pub(super) fn seconds(now: Now) -> u32 {
    (now.0 / 1_000_000_000) as u32
}

/// Whether a host may answer a flow in the name of the virtual address that was asked. This host knows neither the service
/// nor its backends: those are the business of the host that the address leads to. What it can know is that the flow
/// went there untranslated, and who has answered so far.
#[inline]
pub(super) fn may_answer_directly(
    (original, reply): (&FlowKey, &FlowKey),
    decision: &Decision,
    from: From<'_>,
    now: Now,
) -> bool {
    let From::Wire(host) = from else {
        return false;
    };
    let asked = matches!(decision.half(Side::Original).exit, Exit::Wire(_));
    if !asked || *reply != original.reversed() {
        return false;
    }
    match &decision.half(Side::Reply).came {
        Came::Nowhere => true,
        Came::Tun => false,
        Came::Wire(known) if known.id == host.id => true,
        Came::Wire(_) => {
            original.protocol != protocol::TCP
                && seconds(now).saturating_sub(decision.heard) >= SILENCE
        }
    }
}

/// The source of a packet, its inner address and port, must be where the packet came from.
pub(super) fn check_arrival(
    link: &Link,
    from: From<'_>,
    role: Role,
    source: (IpAddr, u16),
    received: Option<&Received>,
) -> Result<(), DropReason> {
    match from {
        From::Tun => check_own_source(link, source.0),
        From::Wire(host) => check_source(link, host, source.0).or_else(|reason| {
            let service = received.and_then(|r| r.service);
            let right = service.is_some_and(|s| match role {
                Role::Original => wire::relays(link, host, &s),
                // A backend answers its client directly, in the name of the virtual address.
                Role::Reply { direct } => direct && (s.addr, s.port) == source,
            });
            if right { Ok(()) } else { Err(reason) }
        }),
    }
}

/// The inner source must live on the host that sent the packet.
pub(super) fn check_source(
    link: &Link,
    host: &Arc<Host>,
    source: IpAddr,
) -> Result<(), DropReason> {
    if let Some(bridge) = &link.bridge {
        return bridge.owns(source, None, &Place::Host(Arc::clone(host)));
    }
    let host = host.addr;
    match link.routes.lookup(source) {
        Some(entry) if entry.target.includes(host) => Ok(()),
        _ => Err(DropReason::SourceMismatch),
    }
}

/// A packet whose source is an endpoint of another host was forged: that host would refuse it, too.
fn check_own_source(link: &Link, source: IpAddr) -> Result<(), DropReason> {
    if let Some(bridge) = &link.bridge {
        return bridge.owns(source, None, &Place::Here);
    }
    match link.routes.lookup(source) {
        Some(entry) if entry.origin == Origin::Endpoint && !entry.local => {
            Err(DropReason::SourceNotLocal)
        }
        _ => Ok(()),
    }
}

/// The type of what is behind an address: the endpoint's own, or that of the route.
fn kind_of(link: &Link, addr: IpAddr, entry: Option<&Entry>) -> EndpointType {
    match link.config.functions.endpoints.get(&addr) {
        Some(endpoint) => endpoint.kind,
        None => entry.map_or(EndpointType::Simple, |e| e.kind),
    }
}

fn hash_of(cx: &Context<'_>, key: &FlowKey) -> u64 {
    cx.tables.hasher.hash_key(key)
}

/// The way to `host` of packets with this mark.
fn wire_exit<E: Explain>(
    cx: &Context<'_>,
    link: &Link,
    host: &Arc<Host>,
    mark: &Mark<'_>,
    log: &mut E,
) -> Result<Exit, DropReason> {
    let (encap, slots) = encap::header(cx, link, Some(host), mark, log)?;
    Ok(Exit::Wire(Way {
        host: Arc::clone(host),
        link: link.config.index,
        encap,
        slots,
    }))
}
