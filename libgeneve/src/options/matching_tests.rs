//! Tests of matching options, and of parsing and printing a match.

use super::*;
use crate::wire::geneve::{Geneve, GeneveBuilder, Vni};
use proptest::prelude::*;

fn parse(text: &str) -> OptionMatch {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Whether `text` matches a packet with two options 0x0108:0x01, with the data 0a0b0c0d and 11223344_55667788, and an
/// option 0x0102:0x80 without data.
fn matches(text: &str) -> bool {
    let option = |builder: GeneveBuilder, class, kind, data| {
        builder
            .option(OptionClass(class), OptionType(kind), data)
            .unwrap()
    };
    let mut builder = GeneveBuilder::new(Vni::default(), 0x0800);
    builder = option(builder, 0x0108, 1, &[0x0a, 0x0b, 0x0c, 0x0d]);
    builder = option(builder, 0x0102, 0x80, &[]);
    builder = option(
        builder,
        0x0108,
        1,
        &[0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88],
    );
    let header = builder.finish();
    parse(text).matches(Geneve::parse(&header).unwrap().options())
}

#[test]
fn any_option_of_the_type_may_match_by_value_and_mask() {
    for (text, expected) in [
        ("aws:1", true),
        ("0x0108:0x01", true),
        ("264:1", true),
        ("ovn:128", true),
        ("ovn:0", false),
        ("cilium:1", false),
        ("aws:1=0a0b0c0d", true),
        ("aws:1=1122334455667788", true),
        ("aws:1=0a0b", true),
        ("aws:1=0b", false),
        ("aws:1=1f/f0", true),
        ("aws:1=0000330000/0000ff0000", true),
        ("aws:1=ffffffffff/0000000000", true),
        // Data shorter than the value does not match, even if the mask is zero.
        ("aws:1=112233445566778899", false),
        ("aws:1=000000000000000000/000000000000000000", false),
        ("ovn:0x80=00/00", false),
    ] {
        assert_eq!(matches(text), expected, "{text}");
    }
    assert!(!parse("aws:1").matches(OptionIter::default()));
}

#[test]
fn a_match_has_one_spelling() {
    for (text, canonical) in [
        ("geneved:2", "0xff47:0x02"),
        ("cilium:0x81=0xAB", "0x014b:0x81=ab"),
        ("0XFFFF:255=ab/0f", "0xffff:0xff=0b/0f"),
        ("0:0=ab/ff", "0x0000:0x00=ab"),
    ] {
        assert_eq!(parse(text).to_string(), canonical);
        assert_eq!(parse(canonical), parse(text));
    }
    let own = OptionMatch::parse("geneved:2", OptionClass(0xff01)).unwrap();
    assert_eq!(own.class, OptionClass(0xff01));
}

#[test]
fn an_error_says_what_was_expected() {
    let message = |text: &str| text.parse::<OptionMatch>().unwrap_err().to_string();
    assert_eq!(
        message("aws"),
        "option 'aws': expected CLASS:TYPE[=HEX[/MASK]]"
    );
    for class in ["", "Aws", "65536", "+1", "0x", "0x+1", "-1"] {
        assert!(
            message(&format!("{class}:1"))
                .starts_with(&format!("option class '{class}': expected geneved,"))
        );
    }
    for kind in ["", "256", "0x100", "+1", "x"] {
        assert!(message(&format!("aws:{kind}")).starts_with(&format!("option type '{kind}':")));
    }
    for data in [
        "",
        "0",
        "0g",
        "00/",
        "/00",
        "00/0",
        "00/00/00",
        &"00".repeat(125),
    ] {
        assert!(
            message(&format!("aws:1={data}")).starts_with("option data '"),
            "{data}"
        );
    }
    assert_eq!(
        message("aws:1=0011/ff"),
        "option value of 2 bytes with a mask of 1: expected equal lengths"
    );
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics_and_has_one_spelling(
        text in prop_oneof![any::<String>(), "(geneved|aws|0x[0-9a-f]{1,4}|[0-9]{1,5}):(0x)?[0-9a-f]{1,2}(=[0-9a-f]{0,8}(/[0-9a-f]{0,8})?)?"]
    ) {
        if let Ok(wanted) = text.parse::<OptionMatch>() {
            prop_assert_eq!(parse(&wanted.to_string()), wanted);
        }
    }
}
