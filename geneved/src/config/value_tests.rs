//! Parsing and formatting of values.

use super::*;

#[test]
fn words_are_shown_as_they_are_written() {
    for text in ["auto", "inherit", "64"] {
        assert_eq!(text.parse::<TtlValue>().unwrap().to_string(), text);
    }
    for text in ["0", "inherit", "0x48"] {
        assert_eq!(text.parse::<TosValue>().unwrap().to_string(), text);
    }
    for text in ["set", "unset", "inherit"] {
        assert_eq!(text.parse::<DfValue>().unwrap().to_string(), text);
    }
    assert_eq!(
        "10.0.0.1".parse::<PrefixValue>().unwrap().to_string(),
        "10.0.0.1/32"
    );
    assert_eq!("7-9".parse::<PortRange>().unwrap().to_string(), "7-9");
}

#[test]
fn values_out_of_range_are_refused() {
    assert!("16777216".parse::<VniValue>().is_err());
    assert!("256".parse::<TtlValue>().is_err());
    assert!("1".parse::<TosValue>().is_err());
    assert!("67".parse::<MtuValue>().is_err());
    assert!("65536".parse::<MtuValue>().is_err());
    assert!("9-7".parse::<PortRange>().is_err());
    assert!("0-7".parse::<PortRange>().is_err());
    assert!("a/b".parse::<IfName>().is_err());
    assert!("sixteen-letters-".parse::<IfName>().is_err());
    assert!(tunnel_address("224.0.0.1".parse().unwrap()).is_err());
    assert!(tunnel_address("::ffff:192.0.2.1".parse().unwrap()).is_err());
    assert!(tunnel_address("127.0.0.1".parse().unwrap()).is_err());
    for never in ["127.0.0.1", "::1", "::ffff:10.0.0.1"] {
        assert!(overlay_address(never.parse().unwrap()).is_err(), "{never}");
    }
    for may in ["10.0.0.1", "224.0.0.5", "fe80::1", "::10.0.0.1"] {
        assert!(overlay_address(may.parse().unwrap()).is_ok(), "{may}");
    }
    assert!(tunnel_address("fe80::1".parse().unwrap()).is_err());
    assert!(tunnel_address("fd00::1".parse().unwrap()).is_ok());
}

#[test]
fn values_of_functions_are_shown_as_they_are_written() {
    fn same<T: std::str::FromStr<Err = ValueError> + std::fmt::Display>(texts: &[&str]) {
        for text in texts {
            let value = text.parse::<T>().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(value.to_string(), *text);
        }
    }
    same::<RateValue>(&["8bit", "100mbit", "10gbit", "1500kbit", "1tbit", "1001bit"]);
    same::<SizeValue>(&["1", "1500", "64k", "1m", "4g"]);
    same::<DscpValue>(&["default", "ef", "af41", "3", "cs7"]);
    same::<ProtocolValue>(&["tcp", "icmpv6", "sctp", "47", "0"]);
    same::<PortListValue>(&["80", "80,443", "0-65535,1"]);
    same::<IcmpValue>(&["8", "3/4"]);
    same::<RulePeerValue>(&["any", "10.0.0.0/8", "fd00::1", "app=web,!old"]);
    same::<AddrRange>(&["10.0.0.1", "10.0.0.1-10.0.0.9", "fd00::1-fd00::2"]);
    same::<AddrPort>(&["10.0.0.1", "10.0.0.1:80", "fd00::1", "[fd00::1]:80"]);
    same::<OptionMatchValue>(&["0x0108:0x01", "0x0108:0x81=0a0b", "0x0108:0x01=0a0b/f0ff"]);
    same::<NamedData>(&["tag", "tag=0a0b0c0d"]);
    same::<RawOption>(&["0x0102:0x80", "0x0102:0x80=00000001"]);
    same::<LabelsValue>(&["none", "app=web,env=prod"]);
    same::<ProxyTargetValue>(&["10.0.0.1", "10.0.0.1@gnv0"]);
}

#[test]
fn rates_and_sizes_are_those_of_tc() {
    let rate = |text: &str| text.parse::<RateValue>().map(RateValue::bits);
    for (text, bits) in [
        ("1000bit", 1000),
        ("1kbps", 8000),
        ("1mbps", 8_000_000),
        ("1.5Mbit", 1_500_000),
        ("1kibit", 1024),
        ("0.5gbit", 500_000_000),
    ] {
        assert_eq!(rate(text), Ok(bits), "{text}");
    }
    for text in [
        "",
        "mbit",
        "7bit",
        "1000",
        "1.5",
        "-1mbit",
        "1e3",
        "99999999tbit",
        "1 mbit",
        "1.2.3kbit",
        ".",
    ] {
        assert!(rate(text).is_err(), "{text}");
    }
    let size = |text: &str| text.parse::<SizeValue>().map(SizeValue::bytes);
    assert_eq!((size("64kb"), size("1M")), (Ok(65_536), Ok(1 << 20)));
    assert!(size("0").is_err() && size("5g").is_err() && size("1mbit").is_err());
}

proptest::proptest! {
    #[test]
    fn what_parses_is_shown_so_that_it_parses_to_the_same(text in "[a-z0-9:/=,.!()@ -]{0,24}") {
        fn same<T: std::str::FromStr + std::fmt::Display + PartialEq + std::fmt::Debug>(text: &str) {
            if let Ok(value) = text.parse::<T>() {
                assert_eq!(value.to_string().parse().ok(), Some(value), "{text}");
            }
        }
        same::<RulePeerValue>(&text);
        same::<LabelsValue>(&text);
        same::<OptionMatchValue>(&text);
        same::<NamedData>(&text);
        same::<RawOption>(&text);
        same::<AddrPort>(&text);
        same::<AddrRange>(&text);
        same::<PortListValue>(&text);
        same::<IcmpValue>(&text);
        same::<ProtocolValue>(&text);
        same::<ProxyTargetValue>(&text);
        same::<DscpValue>(&text);
    }

    #[test]
    fn rates_and_sizes_of_any_amount_are_shown_and_read_back(bits in 8u64.., bytes in 1u64..1 << 32) {
        let rate: RateValue = format!("{bits}bit").parse().unwrap();
        assert_eq!(rate.to_string().parse(), Ok(rate));
        let size: SizeValue = bytes.to_string().parse().unwrap();
        assert_eq!(size.to_string().parse(), Ok(size));
    }
}
