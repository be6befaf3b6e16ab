//! `geneved capture`, by the real binary, with tshark as the judge of what it writes.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use geneved_tests::on_both_backends;
use geneved_tests::running_command::RunningCommand;
use geneved_tests::world::{
    Duo, TestDaemon, UnderlayFamily, assert_no_ping, assert_ping, assert_tcp,
};

struct TempCapture(PathBuf);

impl Drop for TempCapture {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn file(duo: &Duo) -> TempCapture {
    TempCapture(std::env::temp_dir().join(duo.world.name("capture")))
}

/// A capture that has begun.
fn capture(daemon: &TestDaemon, words: &str, file: &TempCapture) -> RunningCommand {
    let live = RunningCommand::start(
        daemon,
        &format!("capture {words} write {}", file.0.display()),
    );
    live.error(&["capturing"]);
    live
}

/// The values of these fields, packet by packet.
fn tshark(file: &Path, options: &[&str], fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command
        .args(["-n", "-T", "fields", "-E", "separator=|", "-r"])
        .arg(file)
        .args(options);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command
        .output()
        .expect("tshark is required (Debian: apt-get install tshark)");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| line.split('|').map(str::to_owned).collect())
        .collect()
}

on_both_backends! {
    fn packets_inside_are_captured_in_both_directions_and_those_dropped_say_why(io) {
        let duo = Duo::new();
        let [a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        a.cli("policy add no dev gnv0 egress proto tcp dport 22 reject");
        let file = file(&duo);
        let mut live = capture(&a, "dev gnv0", &file);
        assert_ping(&duo.ends("10.0.0.2"));
        let refused = duo.a.netns().run(|| TcpStream::connect("10.0.0.2:22")).unwrap();
        assert!(refused.is_err());
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(live.interrupt());
        live.error(&["packets captured, 0 found no room"]);
        let fields = ["frame.interface_name", "frame.packet_flags_direction", "ip.src", "icmp.type", "tcp.dstport", "frame.comment"];
        let all = tshark(&file.0, &[], &fields);
        let pings: Vec<_> = all.iter().filter(|p| !p[3].is_empty()).collect();
        assert_eq!(pings.len(), 6, "{all:?}");
        for ping in pings {
            let (from, direction) = if ping[3] == "8" { ("10.0.0.1", "0x00000002") } else { ("10.0.0.2", "0x00000001") };
            assert_eq!(ping[2], from);
            // Newer versions print the number without its leading zeros.
            assert_eq!(u32::from_str_radix(ping[1].trim_start_matches("0x"), 16), u32::from_str_radix(&direction[2..], 16));
            assert_eq!((ping[0].as_str(), ping[5].as_str()), ("gnv0", ""));
        }
        let refused: Vec<_> = all.iter().filter(|p| p[4] == "22").collect();
        assert!(!refused.is_empty(), "{all:?}");
        for packet in refused {
            assert!(packet[5].starts_with("dropped: policy-rejected: A rule"), "{packet:?}");
        }
    }

    /// Options included, as tshark's dissector and ours read them.
    fn datagrams_of_the_underlay_are_captured_whole(io) {
        let duo = Duo::new();
        for family in [UnderlayFamily::V4, UnderlayFamily::V6] {
            let [a, _b] = duo.overlay(io, family, "");
            a.cli("qos add gold dev gnv0 id 7");
            a.cli("policy add gold dev gnv0 egress proto icmp allow class gold");
            let file = file(&duo);
            let mut live = capture(&a, "outer proto icmp count 6", &file);
            assert_ping(&duo.ends("10.0.0.2"));
            assert!(live.end(), "it ends by itself when it has as many as were asked for");
            live.error(&["6 packets captured"]);
            let script = concat!("lua_script:", env!("CARGO_MANIFEST_DIR"), "/../contrib/wireshark/geneved.lua");
            let checks = ["-X", script, "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"];
            let fields = ["geneve.vni", "udp.dstport", "udp.checksum.status", "geneved.class.id", "icmp.type", "ip.src", "ipv6.src", "udp.srcport"];
            let all = tshark(&file.0, &checks, &fields);
            assert_eq!(all.len(), 6);
            for packet in &all {
                assert_eq!(packet[..3], ["0x000064".to_owned(), "6081".into(), "1".into()], "{packet:?}");
                let out = packet[4] == "8";
                assert_eq!(packet[3], if out { "7" } else { "" }, "{packet:?}");
                let (outer, side) = match family {
                    UnderlayFamily::V4 => (packet[5].split(',').next().unwrap(), usize::from(!out)),
                    UnderlayFamily::V6 => (packet[6].as_str(), usize::from(!out)),
                };
                assert_eq!(outer, Duo::underlay(family, side).to_string(), "{packet:?}");
                assert!(packet[7].parse::<u16>().unwrap() >= 49_152, "{packet:?}");
            }
        }
    }

    /// A filter lets both directions of a flow pass and nothing else; what is cut short says how long it was.
    fn only_what_was_asked_for_is_captured(io) {
        let duo = Duo::new();
        let [a, b] = duo.overlay(io, UnderlayFamily::V4, "ingress = \"deny\"");
        let (file, other) = (file(&duo), TempCapture(std::env::temp_dir().join(duo.world.name("other"))));
        let mut dropped = capture(&b, "dropped count 2", &file);
        let mut none = capture(&b, "proto udp", &other);
        assert_no_ping(&duo.ends("10.0.0.2"));
        assert!(dropped.end());
        let all = tshark(&file.0, &[], &["icmp.type", "frame.comment", "frame.interface_name"]);
        assert_eq!(all.len(), 2);
        for packet in all {
            assert_eq!((packet[0].as_str(), packet[2].as_str()), ("8", "gnv0"));
            assert!(packet[1].starts_with("dropped: policy-denied"), "{packet:?}");
        }
        assert!(none.interrupt());
        none.error(&["0 packets captured"]);
        b.cli("link set gnv0 ingress allow");
        drop((dropped, none));
        let mut short = capture(&a, "proto tcp snaplen 60", &file);
        assert_tcp(&duo.ends("10.0.0.2"), 1, 1_000_000);
        // Packets come in a moment after they have passed.
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(short.interrupt());
        let all = tshark(&file.0, &[], &["frame.cap_len", "frame.len", "tcp.port"]);
        assert!(all.len() > 20, "{}", all.len());
        assert!(all.iter().all(|p| p[0].parse::<u32>().unwrap() <= 60));
        assert!(all.iter().any(|p| p[1].parse::<u32>().unwrap() > 5000));
    }
}

#[test]
fn no_more_capture_than_can_and_the_others_are_told() {
    let duo = Duo::new();
    let [mut a, _b] = duo.overlay(
        geneved_tests::world::TestBackend::Uring,
        UnderlayFamily::V4,
        "",
    );
    let files: Vec<_> = (0..8)
        .map(|n| TempCapture(std::env::temp_dir().join(duo.world.name(&format!("c{n}")))))
        .collect();
    let lives: Vec<_> = files.iter().map(|f| capture(&a, "", f)).collect();
    let refused = a.refused(&format!("capture write {}", files[0].0.display()));
    assert!(
        refused.contains("as many clients capture as can"),
        "{refused}"
    );
    assert_ping(&duo.ends("10.0.0.2"));
    drop(lives);
    geneved_tests::eventually(5, "their places are free again", || {
        let live = RunningCommand::start(
            &a,
            &format!("capture count 1 write {}", files[0].0.display()),
        );
        assert_ping(&duo.ends("10.0.0.2"));
        live.error(&[""]).contains("capturing")
    });
    assert!(a.refused("capture inner outer").contains("only one of"));
    assert!(
        a.refused("capture write /nonexistent/x")
            .contains("/nonexistent/x")
    );
    a.assert_alive();
}
