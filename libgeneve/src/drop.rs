//! The reasons for which a packet is not forwarded.
//!
//! One table that metrics, command line, logs and documents all read. Every packet that enters
//! geneved leaves it forwarded or counted under exactly one of these.

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
            /// Every reason, in the order of the table.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];
            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name that the command line, JSON and metrics show: lower case, hyphens.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }

            /// One sentence for a person who sees the counter move.
            #[must_use]
            pub fn explanation(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc),+).trim_start(),)+ }
            }

            /// Whether the packet was lost. Otherwise it had reached whom it was for: this host answered it, or took
            /// note of it.
            #[must_use]
            pub const fn is_drop(self) -> bool {
                !matches!(self, DropReason::NeighborAnswered | DropReason::NeighborNoted)
            }

            /// The reason of a packet whose sender should have been told, and was not.
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
    /// The outer datagram or the Geneve header ends before its own length says so.
    GeneveTruncated => "geneve-truncated",
    /// The Geneve version is not 0 (RFC 8926 section 3.4).
    GeneveVersion => "geneve-version",
    /// The option lengths do not add up to the header's Opt Len (RFC 8926 section 3.5).
    GeneveOptionLength => "geneve-option-length",
    /// The outer datagram ends before the VXLAN header does (RFC 7348 section 5).
    VxlanTruncated => "vxlan-truncated",
    /// The VXLAN header has no valid VNI: its I flag is not set (RFC 7348 section 5).
    VxlanNoVni => "vxlan-no-vni",
    /// An option that this endpoint does not know is marked critical (RFC 8926 section 3.5).
    UnknownCriticalOption => "unknown-critical-option",
    /// The O bit is set: a control message, whose payload is never forwarded (RFC 8926 section 3.4).
    ControlMessage => "control-message",
    /// The packet carries something else than the link: IP packets where it takes frames, frames where it takes IP packets, or neither.
    ProtocolType => "protocol-type",
    /// No link on this host has this VNI on this port.
    UnknownVni => "unknown-vni",
    /// The outer datagram did not come from the underlay, but out of a link, through an interface that a link's packets can reach, from this host itself, or by an interface that is not known yet.
    NotFromUnderlay => "not-from-underlay",
    /// The outer source is not a host that the VPC knows.
    UnknownHost => "unknown-host",
    /// The outer destination is not the link's local address.
    WrongLocal => "wrong-local",
    /// The inner source, MAC or IP address, does not belong to the host that the packet came from.
    SourceMismatch => "source-mismatch",
    /// The inner source, MAC or IP address, belongs to another host, yet the packet came from this one's TUN or TAP.
    SourceNotLocal => "source-not-local",
    /// The inner destination, after translation, is not behind the link's interface: no address of it, no endpoint of this host and in no allowed prefix.
    DestinationNotHere => "destination-not-here",
    /// The inner frame is for a MAC address that is not the link's.
    WrongMac => "wrong-mac",
    /// The inner frame has a VLAN tag, and the link has no VLANs (RFC 7348 section 6.1).
    VlanTagged => "vlan-tagged",
    /// The packet is neither IPv4 nor IPv6.
    NotIp => "not-ip",
    /// The frame's source MAC address is known to be elsewhere, and has moved too often of late.
    MacMove => "mac-move",
    /// The frame from TAP is for a MAC address that is behind TAP, too.
    SplitHorizon => "split-horizon",
    /// A broadcast, multicast or frame for an unknown MAC address is over the rate of such frames.
    FloodRate => "flood-rate",
    /// An ARP request or neighbour solicitation that was answered here, for an address that is known.
    NeighborAnswered => "neighbor-answered",
    /// An ARP request or neighbour solicitation for an address that is known, which got no answer: the link has had as many of late as it may have.
    NeighborUnanswered => "neighbor-unanswered",
    /// An ARP or neighbour discovery message that asks this host for nothing; the link took note of who sent it.
    NeighborNoted => "neighbor-noted",
    /// The inner packet is shorter than its own length field or has a malformed header.
    InnerMalformed => "inner-malformed",
    /// The inner packet's checksum is wrong, so it cannot be merged or finished safely.
    InnerChecksum => "inner-checksum",
    /// The inner source or destination is an IPv4-mapped IPv6 address, which is never on a wire (RFC 4291 section 2.5.5.2).
    MappedAddress => "mapped-address",
    /// The inner source or destination is a loopback address, which never leaves a host (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3).
    LoopbackAddress => "loopback-address",
    /// The inner source is a multicast or broadcast address, or unspecified in a packet that is not for a group.
    SourceNotUnicast => "source-not-unicast",
    /// The inner packet's sender prescribes its route: by a source route option (RFC 7126 section 4), or by an IPv6 routing header other than that of Mobile IPv6 (RFC 5095, RFC 8754).
    SourceRoute => "source-route",
    /// A super-packet asks for a segmentation that its headers do not allow.
    BadOffload => "bad-offload",
    /// A rule of the link's policy, or its default, denies the flow.
    PolicyDenied => "policy-denied",
    /// A rule of the link's policy rejects the flow; its sender was told where that is allowed.
    PolicyRejected => "policy-rejected",
    /// A rule of the link's policy rejects the flow; its sender was not told, because the link has had as many such answers of late as it may have.
    PolicyRejectedUnanswered => "policy-rejected-unanswered",
    /// The flow table has no room for another flow of the link.
    FlowTableFull => "flow-table-full",
    /// A fragment whose first fragment was not seen, so that its flow is not known, where its ports matter.
    FragmentUnknown => "fragment-unknown",
    /// An ICMP error about a flow that is not there.
    IcmpUnrelated => "icmp-unrelated",
    /// The address pool of source NAT, or the sender's share of the ports that stand for clients of proxied endpoints, has no port left for the protocol.
    NatExhausted => "nat-exhausted",
    /// The packet must be rewritten and cannot be: its transport is unreadable, or of a protocol without ports.
    NatUntranslatable => "nat-untranslatable",
    /// The service has no backend that is healthy and not drained.
    NoBackend => "no-backend",
    /// The endpoint option contradicts what this host knows of the endpoint.
    EndpointType => "endpoint-type",
    /// The packet asks for a gateway, and no NAT rule of the link covers it.
    NotGateway => "not-gateway",
    /// A known option has a length or a content that its definition forbids.
    OptionMalformed => "option-malformed",
    /// The packet is over the rate of its class, endpoint or link.
    RateExceeded => "rate-exceeded",
    /// The packet would leave by the link and to the host that it came from, or was relayed too often.
    ForwardingLoop => "forwarding-loop",
    /// No route, endpoint, forwarding entry or flood list of the VPC leads the inner destination to another host.
    NoRoute => "no-route",
    /// The packet is for a multicast or broadcast address that the VPC leads nowhere, as router solicitations and other questions to all neighbours are that each host sends by itself.
    NoMulticastRoute => "no-multicast-route",
    /// The MAC address of the inner destination is not known yet; its host is being asked.
    NeighborUnresolved => "neighbor-unresolved",
    /// The packet is larger than the tunnel MTU; its sender was told.
    TooBig => "too-big",
    /// The packet is larger than the tunnel MTU; its sender was not told, because the link has had as many such answers of late as it may have.
    TooBigUnanswered => "too-big-unanswered",
    /// The packet is larger than the tunnel MTU and its sender must not be told (an ICMP error, a multicast).
    TooBigSilent => "too-big-silent",
    /// The outer header reports congestion on a packet that cannot carry it (RFC 6040 section 4.2).
    EcnCongestion => "ecn-congestion",
    /// The underlay has no route to the host, or refused it.
    UnderlayUnreachable => "underlay-unreachable",
    /// The underlay's route to the host leads back into the tunnel, or the host is this one: what is sent would come back.
    UnderlayLoop => "underlay-loop",
    /// The socket's send queue is full.
    SocketFull => "socket-full",
    /// The kernel refused the datagram with an error that has no reason of its own.
    SendFailed => "send-failed",
    /// The TUN interface does not accept the packet now (its queue is full or it is down).
    TunRefused => "tun-refused",
    /// All buffers of the worker are in flight.
    NoBuffer => "no-buffer",
    /// The link went away while the packet was on its way.
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
