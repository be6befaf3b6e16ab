use super::*;
use serde_json::json;

#[test]
fn words_that_say_nothing_about_the_packet_are_refused() {
    let refusal = |words: serde_json::Value| {
        let mut packet = json!({
            "dev": "gnv0", "direction": "egress", "from": "10.0.0.1", "to": "10.0.0.2", "proto": "tcp",
        });
        let all = packet.as_object_mut().unwrap();
        all.extend(words.as_object().unwrap().clone());
        check(&serde_json::from_value(packet).unwrap())
            .err()
            .map(|refusal| refusal.to_string())
    };
    for fine in [
        json!({ "sport": 1, "dport": 80, "len": 40, "df": "unset" }),
        json!({ "proto": "icmp", "icmp": "8/0", "sport": 7, "len": 28 }),
        json!({ "proto": "47", "len": 20 }),
        json!({ "direction": "ingress", "host": "192.0.2.1", "labels": "a=b", "option": ["aws:1=00000000"] }),
        json!({ "from": "fd00::1", "to": "fd00::2", "proto": "udp", "len": 48 }),
    ] {
        assert_eq!(refusal(fine.clone()), None, "{fine}");
    }
    for (words, expected) in [
        (json!({ "to": "fd00::1" }), "two families"),
        (json!({ "proto": "icmp", "dport": 80 }), "icmp has no ports"),
        (
            json!({ "proto": "icmpv6" }),
            "icmpv6 is not in packets from 10.0.0.1",
        ),
        (json!({ "icmp": "8" }), "tcp has no ICMP type"),
        (
            json!({ "proto": "47", "sport": 1 }),
            "geneved reads no ports",
        ),
        (
            json!({ "host": "192.0.2.1" }),
            "\"host\": a packet from the interface",
        ),
        (
            json!({ "option": ["aws:1"] }),
            "\"option\": a packet from the interface",
        ),
        (
            json!({ "labels": "a=b" }),
            "\"labels\": a packet from the interface",
        ),
        (
            json!({ "len": 39 }),
            "39 bytes are less than the headers of a packet of tcp, 40",
        ),
        (json!({ "df": "set" }), "without a length"),
        (
            json!({ "len": 100, "df": "inherit" }),
            "\"set\" or \"unset\"",
        ),
        (
            json!({ "from": "fd00::1", "to": "fd00::2", "len": 100, "df": "set" }),
            "IPv6 has no such bit",
        ),
    ] {
        let said = refusal(words.clone()).unwrap_or_else(|| panic!("{words} is taken"));
        assert!(said.contains(expected), "{words}: {said}");
    }
}
