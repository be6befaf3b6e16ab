//! Drop reasons: why a packet is not forwarded.
//!
//! Metrics, command line, logs and documentation all read this one table. Every packet that enters geneved is either
//! forwarded or counted under exactly one of these reasons.

use crate::offload::OffloadError;

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// Why a packet was not forwarded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// All reasons, in table order.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];
            /// Number of reasons.
            pub const COUNT: usize = Self::ALL.len();

            /// Name in the command line, JSON and metrics: lower case, with hyphens.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }

            /// One-sentence explanation for an operator who sees the counter increase.
            #[must_use]
            pub fn explanation(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc),+).trim_start(),)+ }
            }

            /// Whether the packet was lost. `false` if it reached its destination, namely this host, which answered
            /// or noted it.
            #[must_use]
            pub const fn is_drop(self) -> bool {
                !matches!(self, DropReason::NeighborAnswered | DropReason::NeighborNoted)
            }

            /// Reason to count instead if the sender should have been told but was not.
            #[must_use]
            pub const fn unanswered(self) -> DropReason {
                match self {
                    DropReason::NeighborAnswered => DropReason::NeighborUnanswered,
                    DropReason::TooBig => DropReason::TooBigUnanswered,
                    DropReason::PolicyRejected => DropReason::PolicyRejectedUnanswered,
                    other => other,
                }
            }
        }
    };
}

drop_reasons! {
    /// The outer datagram or the Geneve header ends before its stated length.
    GeneveTruncated => "geneve-truncated",
    /// The Geneve version is not 0 (RFC 8926 section 3.4).
    GeneveVersion => "geneve-version",
    /// The option lengths do not add up to the header's Opt Len (RFC 8926 section 3.5).
    GeneveOptionLength => "geneve-option-length",
    /// The outer datagram ends before the VXLAN header does (RFC 7348 section 5).
    VxlanTruncated => "vxlan-truncated",
    /// The VXLAN header has no valid VNI: its I flag is not set (RFC 7348 section 5).
    VxlanNoVni => "vxlan-no-vni",
    /// An unknown option is marked critical (RFC 8926 section 3.5).
    UnknownCriticalOption => "unknown-critical-option",
    /// The O bit is set: the packet is a control message, whose payload is never forwarded (RFC 8926 section 3.4).
    ControlMessage => "control-message",
    /// The payload is not what the link carries: IP packets instead of frames, frames instead of IP packets, or neither.
    ProtocolType => "protocol-type",
    /// No link on this host has this VNI on this port.
    UnknownVni => "unknown-vni",
    /// The outer datagram was not received from the underlay, but from a link, an interface that a link's packets can reach, this host itself, or an interface that is not known yet.
    NotFromUnderlay => "not-from-underlay",
    /// The outer source is not a known host of the VPC.
    UnknownHost => "unknown-host",
    /// The outer destination is not the link's local address.
    WrongLocal => "wrong-local",
    /// The inner source, MAC or IP address, does not belong to the host that the packet came from.
    SourceMismatch => "source-mismatch",
    /// The inner source, MAC or IP address, belongs to another host, but the packet came from this host's TUN or TAP.
    SourceNotLocal => "source-not-local",
    /// The inner destination, after translation, is not behind the link's interface: it is not an address of the interface, an endpoint of this host, or in an allowed prefix.
    DestinationNotHere => "destination-not-here",
    /// The inner frame is for a MAC address that is not the link's.
    WrongMac => "wrong-mac",
    /// The inner frame has a VLAN tag, and the link does not support VLANs (RFC 7348 section 6.1).
    VlanTagged => "vlan-tagged",
    /// The packet is neither IPv4 nor IPv6.
    NotIp => "not-ip",
    /// The frame's source MAC address is known to be elsewhere and has moved too often recently.
    MacMove => "mac-move",
    /// The frame from TAP is for a MAC address that is also behind TAP.
    SplitHorizon => "split-horizon",
    /// A broadcast, multicast or unknown unicast frame exceeds the flood rate.
    FloodRate => "flood-rate",
    /// An ARP request or neighbour solicitation for a known address, which this host answered.
    NeighborAnswered => "neighbor-answered",
    /// An ARP request or neighbour solicitation for a known address, which was not answered because the link exceeded its rate of such answers.
    NeighborUnanswered => "neighbor-unanswered",
    /// An ARP or neighbour discovery message that needs no answer from this host; the link noted its sender.
    NeighborNoted => "neighbor-noted",
    /// The inner packet is shorter than its own length field or has a malformed header.
    InnerMalformed => "inner-malformed",
    /// The inner packet's checksum is wrong, so the packet cannot safely be merged or completed.
    InnerChecksum => "inner-checksum",
    /// The inner source or destination is an IPv4-mapped IPv6 address, which never appears on the wire (RFC 4291 section 2.5.5.2).
    MappedAddress => "mapped-address",
    /// The inner source or destination is a loopback address, which never leaves a host (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3).
    LoopbackAddress => "loopback-address",
    /// The inner source is a multicast or broadcast address, or unspecified in a packet that is not for a multicast group.
    SourceNotUnicast => "source-not-unicast",
    /// The inner packet has a source route: an IPv4 source route option (RFC 7126 section 4), or an IPv6 routing header other than that of Mobile IPv6 (RFC 5095, RFC 8754).
    SourceRoute => "source-route",
    /// A super-packet requests a segmentation that its headers do not allow.
    BadOffload => "bad-offload",
    /// A rule of the link's policy, or its default, denies the flow.
    PolicyDenied => "policy-denied",
    /// A rule of the link's policy rejects the flow; the sender was notified if that is allowed.
    PolicyRejected => "policy-rejected",
    /// A rule of the link's policy rejects the flow; the sender was not notified because the link exceeded its rate of such answers.
    PolicyRejectedUnanswered => "policy-rejected-unanswered",
    /// The flow table has no room for another flow of the link.
    FlowTableFull => "flow-table-full",
    /// The first fragment of the packet was not seen, so the flow is unknown, and ports are needed to decide.
    FragmentUnknown => "fragment-unknown",
    /// An ICMP error about an unknown flow.
    IcmpUnrelated => "icmp-unrelated",
    /// The source NAT pool, or the sender's share of the ports for clients of proxied endpoints, has no free port for the protocol.
    NatExhausted => "nat-exhausted",
    /// The packet must be translated and cannot be: its transport header is unreadable, or its protocol has no ports.
    NatUntranslatable => "nat-untranslatable",
    /// The service has no backend that is healthy and not drained.
    NoBackend => "no-backend",
    /// The endpoint option contradicts what this host knows about the endpoint.
    EndpointType => "endpoint-type",
    /// The packet asks for a gateway, but no NAT rule of the link covers it.
    NotGateway => "not-gateway",
    /// A known option has an invalid length or content.
    OptionMalformed => "option-malformed",
    /// The packet exceeds the rate of its class, endpoint or link.
    RateExceeded => "rate-exceeded",
    /// The packet would be sent over the link to the host that it came from, or was relayed too often.
    ForwardingLoop => "forwarding-loop",
    /// No route, endpoint, forwarding entry or flood list of the VPC maps the inner destination to another host.
    NoRoute => "no-route",
    /// The packet is for a multicast or broadcast address without a route in the VPC, such as a router solicitation or another query that every host sends by itself.
    NoMulticastRoute => "no-multicast-route",
    /// The MAC address of the inner destination is not known yet and is being resolved.
    NeighborUnresolved => "neighbor-unresolved",
    /// The packet is larger than the tunnel MTU; the sender was notified.
    TooBig => "too-big",
    /// The packet is larger than the tunnel MTU; the sender was not notified because the link exceeded its rate of such answers.
    TooBigUnanswered => "too-big-unanswered",
    /// The packet is larger than the tunnel MTU, and the sender must not be notified (an ICMP error, a multicast).
    TooBigSilent => "too-big-silent",
    /// The outer header reports congestion on a packet that cannot carry it (RFC 6040 section 4.2).
    EcnCongestion => "ecn-congestion",
    /// The underlay has no route to the host, or refused it.
    UnderlayUnreachable => "underlay-unreachable",
    /// The underlay's route to the host leads back into the tunnel, or the host is this one: the packet would come back.
    UnderlayLoop => "underlay-loop",
    /// The socket's send queue is full.
    SocketFull => "socket-full",
    /// The kernel refused the datagram with an error that has no drop reason of its own.
    SendFailed => "send-failed",
    /// The TUN interface does not accept the packet (its queue is full, or it is down).
    TunRefused => "tun-refused",
    /// All buffers of the worker are in flight.
    NoBuffer => "no-buffer",
    /// The link was removed while the packet was being processed.
    LinkGone => "link-gone",
}

impl From<OffloadError> for DropReason {
    fn from(error: OffloadError) -> DropReason {
        match error {
            OffloadError::Unfit => DropReason::BadOffload,
            OffloadError::Malformed => DropReason::InnerMalformed,
            OffloadError::TooBig => DropReason::TooBig,
            OffloadError::Checksum => DropReason::InnerChecksum,
        }
    }
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_kebab_case() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        for name in &names {
            assert!(
                name.chars().all(|c| c.is_ascii_lowercase() || c == '-'),
                "{name}"
            );
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::COUNT);
    }

    #[test]
    fn explanations_are_sentences() {
        for reason in DropReason::ALL {
            assert!(reason.explanation().ends_with('.'), "{reason}");
        }
    }
}
