//! Words that `ip link` knows and geneved does not: why, and what is there instead.

use super::grammar::Keyword;
use crate::config::words::LinkWords;

type Key = Keyword<LinkWords>;

/// Keywords of `ip link` that are refused.
pub const REFUSED: [Key; 7] = [
    Key::refused(
        &["external"],
        "geneved chooses VNI and hosts itself, not by each packet's metadata; name them with \"id\" and \"geneved endpoint\" or \"geneved route\"",
    ),
    Key::refused(
        &["flowlabel"],
        "geneved sends through UDP sockets, whose flow label the kernel makes of each flow's ports (sysctl net.ipv6.auto_flowlabels)",
    ),
    Key::refused(
        &["group"],
        "geneved needs no multicast in the underlay, and knows no groups of links; name hosts with \"remote\", \"geneved endpoint\" or \"geneved route\"",
    ),
    Key::refused(
        &["proxy", "rsc", "l2miss", "l3miss", "gbp", "gpe"],
        "geneved speaks VXLAN as RFC 7348 has it, without extensions, knows where endpoints are, and answers ARP and neighbour solicitations for its own addresses always",
    ),
    Key::refused(
        &["txqueuelen", "txqlen", "numtxqueues", "numrxqueues"],
        "the queues of a TUN interface are made for geneved's workers; see \"workers\" in geneved.toml(5)",
    ),
    Key::refused(
        &[
            "master",
            "nomaster",
            "vrf",
            "alias",
            "index",
            "broadcast",
            "arp",
            "multicast",
            "allmulticast",
            "promisc",
            "altname",
        ],
        "that is the interface's, not the tunnel's: use \"ip link set\" on it",
    ),
    Key::refused(
        &["link"],
        "a link is bound to no device: its packets go where the underlay's routes lead; \"local ADDR\" fixes their source",
    ),
];
