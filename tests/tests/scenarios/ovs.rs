//! Interop with Open vSwitch's user-space datapath: plain, and with options set by one side and matched by the other.

use std::os::unix::fs::PermissionsExt;

use geneved::traffic::{SendAmount, UdpBurst};
use geneved_tests::eventually;
use geneved_tests::ovs::{Offloads, Ovs, OvsTunnel};
use geneved_tests::world::{
    TestBackend, UnderlayFamily, answers, assert_no_ping, assert_ping, assert_tcp,
};
use libgeneve::label::LabelKey;

fn carries(ovs: &Ovs) {
    for address in ["10.0.0.2", "fd00::2"] {
        let ends = ovs.there(address);
        eventually(10, "the switch forwards", || answers(&ends));
        assert_tcp(&ends, 1, 2_000_000);
    }
    for address in ["10.0.0.1", "fd00::1"] {
        let ends = ovs.back(address);
        // A switch that has just learned something may lose a packet.
        eventually(10, "the switch forwards back", || answers(&ends));
        assert_tcp(&ends, 1, 2_000_000);
    }
    for ends in [ovs.there("10.0.0.2"), ovs.back("10.0.0.1")] {
        // The switch takes a packet a system call, and has no more room than its packet sockets.
        let burst = UdpBurst {
            size: 200,
            amount: SendAmount::Count(300),
            pace: Some(1000.0),
            ..UdpBurst::default()
        };
        let report = burst.run(&ends).expect("datagrams arrive");
        assert!(report.loss() <= 0.05, "{report}");
        assert_eq!((report.corrupted, report.duplicated), (0, 0), "{report}");
    }
    let drops = ovs.daemon.drops();
    assert!(
        drops
            .keys()
            .all(|k| k.ends_with("neighbor-answered") || k.ends_with("neighbor-noted")),
        "{drops:?}"
    );
}

#[test]
fn a_switch_on_a_path_without_offloads_gets_whole_packets() {
    for io in [TestBackend::Uring, TestBackend::Syscalls] {
        carries(&Ovs::new(io, Offloads::Off, "", ""));
    }
}

/// Which datagrams geneved says it sends whole.
fn whole(ovs: &Ovs) -> serde_json::Value {
    ovs.daemon.json("host show")[0]["remotes"][0]["whole"].clone()
}

/// The veth says that it takes packets uncut and with unfinished checksums, and the switch reads them so from its other end.
#[test]
fn a_switch_behind_a_veth_with_offloads_gets_whole_packets() {
    let speech = |kind, tap, family| OvsTunnel { kind, tap, family };
    for (io, speech) in [
        (TestBackend::Uring, OvsTunnel::USUAL),
        (TestBackend::Syscalls, OvsTunnel::USUAL),
        (
            TestBackend::Uring,
            speech("geneve", false, UnderlayFamily::V6),
        ),
        (
            TestBackend::Uring,
            speech("vxlan", false, UnderlayFamily::V4),
        ),
        (
            TestBackend::Uring,
            speech("vxlan", true, UnderlayFamily::V6),
        ),
    ] {
        let ovs = Ovs::with(io, Offloads::On, speech, "", "");
        eventually(5, "the switch is noticed", || whole(&ovs) == "all");
        carries(&ovs);
    }
}

#[test]
fn a_switch_whose_way_is_not_looked_at_gets_whole_packets_where_geneved_is_told_so() {
    for (daemon, link) in [
        ("segmentation = \"off\"", ""),
        ("segmentation = \"off\"", "udpcsum = false"),
        ("segmentation = \"gso\"", "segmentation = \"off\""),
    ] {
        let ovs = Ovs::new(TestBackend::Uring, Offloads::On, daemon, link);
        assert!(whole(&ovs).is_null());
        carries(&ovs);
    }
}

/// The switch marks what it sends and geneved's rules ask for it; geneved marks what it sends and the switch's flows do.
#[test]
fn each_side_matches_the_options_of_the_other() {
    let lines = "option = [\"tag=00000009\"]\ningress = \"deny\"\n\
        [[option]]\nname = \"tag\"\nclass = \"0x0199\"\ntype = 5\nlen = 4\n\
        [[policy]]\nname = \"marked\"\ndev = \"gnv0\"\ndirection = \"ingress\"\noption = \"0x0199:0x05=00000007\"\naction = \"allow\"\n";
    let ovs = Ovs::new(TestBackend::Uring, Offloads::On, "", lines);
    ovs.ofctl("add-tlv-map", "{class=0x0199,type=5,len=4}->tun_metadata0");
    ovs.ofctl("del-flows", "");
    ovs.ofctl(
        "add-flow",
        "priority=9,in_port=2,tun_metadata0=0x9,actions=output:1",
    );
    ovs.ofctl(
        "add-flow",
        "priority=5,in_port=1,actions=set_field:0x7->tun_metadata0,output:2",
    );
    let (there, back) = (ovs.there("10.0.0.2"), ovs.back("10.0.0.1"));
    eventually(10, "marked packets pass both ways", || answers(&back));
    assert_ping(&back);
    assert_ping(&there);
    assert_tcp(&back, 1, 1_000_000);
    assert_tcp(&there, 1, 1_000_000);
    // Another mark is another packet.
    ovs.ofctl("del-flows", "in_port=1");
    ovs.ofctl(
        "add-flow",
        "priority=5,in_port=1,actions=set_field:0x8->tun_metadata0,output:2",
    );
    ovs.daemon.cli("flow flush");
    assert_no_ping(&back);
    assert!(
        ovs.daemon
            .drops()
            .contains_key("gnv0/ingress/policy-denied")
    );
    // Without geneved's mark, the switch lets nothing through.
    ovs.ofctl("del-flows", "in_port=1");
    ovs.ofctl(
        "add-flow",
        "priority=5,in_port=1,actions=set_field:0x7->tun_metadata0,output:2",
    );
    ovs.daemon.cli("link set gnv0 option tag=00000001");
    assert_no_ping(&there);
}

/// geneved's own label option, written by the switch: plain and critical. A critical one that nobody knows drops the packet.
#[test]
fn labels_that_the_switch_writes_reach_the_rules() {
    let secret = std::env::temp_dir().join(format!("geneved-ovs-{}.secret", std::process::id()));
    let text = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    std::fs::write(&secret, text).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let daemon = format!("label-secret-file = \"{}\"", secret.display());
    let lines = "ingress = \"deny\"\n\
        [[policy]]\nname = \"web\"\ndev = \"gnv0\"\ndirection = \"ingress\"\nfrom = \"app=web\"\naction = \"allow\"\n\
        [[endpoint]]\naddress = \"10.0.0.1\"\ndev = \"gnv0\"\nlocal = true\nlabels = \"app=client\"\n";
    let ovs = Ovs::new(TestBackend::Uring, Offloads::On, &daemon, lines);
    let _ = std::fs::remove_file(&secret);
    let key = LabelKey::from_secret(text.as_bytes());
    let labels = |name: &str, value: &str| {
        let label = key.label(name, value);
        format!("{:08x}{:08x}", label.key, label.pair)
    };
    ovs.ofctl("add-tlv-map", "{class=0xff47,type=2,len=8}->tun_metadata0,{class=0xff47,type=0x82,len=8}->tun_metadata1,{class=0x0199,type=0x85,len=4}->tun_metadata2");
    let mark = |mark: &str| {
        ovs.ofctl("del-flows", "");
        ovs.ofctl("add-flow", "priority=9,in_port=2,actions=output:1");
        ovs.ofctl(
            "add-flow",
            &format!("priority=5,in_port=1,actions={mark}output:2"),
        );
        ovs.daemon.cli("flow flush");
    };
    let back = ovs.back("10.0.0.1");
    for option in ["tun_metadata0", "tun_metadata1"] {
        mark(&format!("set_field:0x{}->{option},", labels("app", "web")));
        eventually(10, "what is labelled passes", || answers(&back));
        assert_ping(&back);
        assert_tcp(&back, 1, 500_000);
        mark(&format!("set_field:0x{}->{option},", labels("app", "db")));
        assert_no_ping(&back);
    }
    mark("");
    assert_no_ping(&back);
    assert!(
        !ovs.daemon
            .drops()
            .contains_key("gnv0/ingress/unknown-critical-option")
    );
    mark(&format!(
        "set_field:0x{}->tun_metadata0,set_field:0x1->tun_metadata2,",
        labels("app", "web")
    ));
    assert_no_ping(&back);
    assert!(
        ovs.daemon
            .drops()
            .contains_key("gnv0/ingress/unknown-critical-option")
    );
}
