//! `geneved top`, by the real binary under traffic, line by line.

use geneved::traffic::{SendAmount, UdpBurst};
use geneved_tests::on_both_backends;
use geneved_tests::world::{Duo, UnderlayFamily};

on_both_backends! {
    fn what_is_busy_is_shown_with_its_rates(io) {
        let duo = Duo::new();
        let [a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        let ends = duo.ends("10.0.0.2");
        let burst = UdpBurst {
            size: 500,
            amount: SendAmount::Count(8_000),
            pace: Some(2_000.0),
            flows: 1,
            ..UdpBurst::default()
        };
        let json = std::thread::scope(|scope| {
            scope.spawn(|| burst.run(&ends).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(800));
            a.json("top -n 1 -d 1")
        });
        let top = &json[0];
        let rate = |value: &serde_json::Value| value.as_f64().unwrap_or_else(|| panic!("{json}"));
        // The pace is held only roughly where the machine is busy.
        let about = |value: f64, from: f64, to: f64| assert!((from..to).contains(&value), "{value}: {json}");
        let link = &top["links"][0];
        assert_eq!(link["dev"], "gnv0");
        about(rate(&link["tx_packets_rate"]), 200.0, 20_000.0);
        let flow = &top["top"][0];
        assert_eq!((&flow["flow"]["dst"], &flow["flow"]["proto"]), (&"10.0.0.2".into(), &"udp".into()));
        about(rate(&flow["bytes_rate"]) / rate(&flow["packets_rate"]), 520.0, 536.0);
        let host = &top["hosts"][0];
        assert_eq!(host["address"], "192.0.2.2");
        about(rate(&host["tx_packets_rate"]), 200.0, 20_000.0);
        let load = rate(&top["workers"][0]["load"]);
        assert!(load > 0.0 && load <= 1.0, "{load}");
        let text = a.cli("top -b -n 2 -d 0.2");
        assert_eq!(text.matches("geneved ").count(), 2, "{text}");
        assert!(text.contains("\nHOST ") && text.contains("gnv0"), "{text}");
        assert!(a.refused("top sort size").contains("expected \"bytes\""));
        assert!(a.refused("top -d 0").contains("expected seconds"));
    }
}
