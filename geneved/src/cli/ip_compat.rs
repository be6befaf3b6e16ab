//! Words of `ip`, `wg`, `nft`, `bridge` and `systemctl` that geneved does not have, with the reason and the
//! alternative.

use super::grammar::Keyword;
use crate::config::args::LinkArgs;

type ForeignKeyword = Keyword<LinkArgs>;

/// Keywords of `ip link` that geneved refuses.
pub const REFUSED_KEYWORDS: [ForeignKeyword; 7] = [
    ForeignKeyword::refused(
        &["external"],
        "geneved chooses VNI and hosts itself, not by each packet's metadata; name them with \"id\" and \"geneved endpoint\" or \"geneved route\"",
    ),
    ForeignKeyword::refused(
        &["flowlabel"],
        "geneved sends through UDP sockets, whose flow label the kernel makes of each flow's ports (sysctl net.ipv6.auto_flowlabels)",
    ),
    ForeignKeyword::refused(
        &["group"],
        "geneved needs no multicast in the underlay, and knows no groups of links; name hosts with \"remote\", \"geneved endpoint\" or \"geneved route\"",
    ),
    ForeignKeyword::refused(
        &["proxy", "rsc", "l2miss", "l3miss", "gbp", "gpe"],
        "geneved speaks VXLAN as RFC 7348 has it, without extensions, knows where endpoints are, and answers ARP and neighbour solicitations for its own addresses always",
    ),
    ForeignKeyword::refused(
        &["txqueuelen", "txqlen", "numtxqueues", "numrxqueues"],
        "the queues of a TUN interface are made for geneved's workers; see \"workers\" in geneved.toml(5)",
    ),
    ForeignKeyword::refused(
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
    ForeignKeyword::refused(
        &["link"],
        "a link is bound to no device: its packets go where the underlay's routes lead; \"local ADDR\" fixes their source",
    ),
];

/// Alternatives for first words that geneved does not have.
const FOREIGN_OBJECTS: [(&[&str], &str); 19] = [
    (
        &["addrs", "ip"],
        "The addresses of links are in \"geneved address\".",
    ),
    (
        &[
            "n",
            "neigh",
            "neighbor",
            "neighbour",
            "arp",
            "mac",
            "bridge",
        ],
        "MAC addresses are in \"geneved fdb\", and of links in mode ip in \"geneved endpoint\".",
    ),
    (
        &[
            "show", "list", "ls", "add", "del", "delete", "set", "replace", "change",
        ],
        "The object stands first, as in \"geneved link show\".",
    ),
    (
        &["start", "stop", "restart", "enable", "disable"],
        "The service is systemd's: \"systemctl start geneved\"; \"geneved run\" is the daemon itself.",
    ),
    (
        &["status", "info"],
        "\"geneved host\" has the daemon's state, and \"systemctl status geneved\" the service's.",
    ),
    (
        &[
            "rule", "rules", "ruleset", "acl", "firewall", "table", "chain", "filter", "nft",
        ],
        "Rules are in \"geneved policy\".",
    ),
    (
        &[
            "tunnel",
            "tun",
            "tap",
            "vpc",
            "vni",
            "network",
            "net",
            "interface",
            "iface",
            "dev",
            "device",
            "geneve",
            "vxlan",
        ],
        "A VPC is a link on this host: \"geneved link\".",
    ),
    (
        &[
            "peer", "peers", "node", "nodes", "vtep", "remote", "remotes",
        ],
        "Other hosts are named by \"geneved link\", \"geneved route\" and \"geneved endpoint\"; \"geneved host\" shows them.",
    ),
    (
        &["showconf", "dump", "export", "config"],
        "\"geneved save\" prints what runs, as a configuration.",
    ),
    (
        &["setconf", "addconf", "syncconf", "load", "apply", "import"],
        "\"geneved reload\" applies the configuration, and \"geneved -batch FILE\" runs commands.",
    ),
    (
        &["logs", "journal", "events", "watch", "drops"],
        "\"geneved monitor\" tells what happens, and \"journalctl -u geneved\" what did.",
    ),
    (
        &["stat", "stats", "statistics", "counters", "metrics"],
        "\"geneved -s link show\" has counters, and \"geneved top\" rates.",
    ),
    (&["version"], "\"geneved -V\" prints it."),
    (
        &[
            "flows",
            "conntrack",
            "connection",
            "connections",
            "sessions",
            "ct",
        ],
        "Who talks to whom is in \"geneved flow\".",
    ),
    (
        &["lb", "vip", "loadbalancer", "backend"],
        "Virtual addresses are in \"geneved service\".",
    ),
    (&["tc", "class", "rate"], "Classes are in \"geneved qos\"."),
    (
        &["snat", "dnat", "masquerade", "forward"],
        "Translations are in \"geneved nat\".",
    ),
    (
        &["tcpdump", "pcap", "sniff", "record"],
        "\"geneved capture\" writes packets to a file.",
    ),
    (
        &["explain", "why", "ping", "test", "validate", "verify"],
        "\"geneved trace\" explains a packet's way, and \"geneved check\" looks at a configuration.",
    ),
];

/// Looks up the alternative to an object that geneved does not have.
pub fn object(word: &str) -> Option<&'static str> {
    let found = FOREIGN_OBJECTS
        .iter()
        .find(|(words, _)| words.contains(&word));
    found.map(|(_, advice)| *advice)
}

/// Words of other programs and geneved's equivalents; of several, the one that suits the command is used.
const SAME: [(&[&str], &[&str]); 22] = [
    (&["create", "new", "append"], &["add"]),
    (&["rm", "remove", "destroy"], &["del"]),
    (&["modify", "edit", "update"], &["set"]),
    (&["status", "info", "dump", "get"], &["show"]),
    (&["saddr", "src", "source"], &["from"]),
    (&["daddr", "dst", "destination"], &["to"]),
    (&["accept", "permit", "pass"], &["allow"]),
    (&["drop", "block"], &["deny"]),
    (&["input"], &["ingress"]),
    (&["output"], &["egress"]),
    (&["prio", "priority", "preference", "order"], &["pref"]),
    (&["tcp"], &["proto tcp"]),
    (&["udp"], &["proto udp"]),
    (&["icmpv6"], &["proto icmpv6"]),
    (&["port"], &["dport", "port"]),
    (&["via", "node", "vtep"], &["host", "dst"]),
    (&["nexthop", "host"], &["via HOST,HOST"]),
    (&["peer", "endpoint", "dst"], &["remote", "host", "via"]),
    (&["addr", "ip", "inet"], &["address"]),
    (&["bandwidth", "ceil", "limit"], &["rate"]),
    (&["masquerade", "to-source"], &["snat", "source"]),
    (&["to-destination", "redirect"], &["target"]),
];

/// Finds the word among `known` that is equivalent to `word`.
pub fn same(word: &str, known: &[&str]) -> Option<&'static str> {
    let mut fits = SAME.iter().filter(|(words, _)| words.contains(&word));
    fits.find_map(|(_, ours)| {
        let keyword = |our: &'static str| our.split(' ').next().unwrap_or_default();
        let is_known = |our: &&&'static str| known.contains(&keyword(our));
        ours.iter().find(is_known).copied()
    })
}
