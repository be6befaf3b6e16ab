//! Tests of the Geneve codec, named after the requirements of RFC 8926.

use super::*;
use proptest::prelude::*;

const TEST_CLASS: OptionClass = OptionClass(0xff47);

fn vni(id: u32) -> Vni {
    Vni::new(id).unwrap()
}

fn builder() -> GeneveBuilder {
    GeneveBuilder::new(vni(0x12_3456), protocol_type::IPV4)
}

/// A header with one critical and one non-critical option, and a payload.
fn two_options() -> Vec<u8> {
    let header = builder()
        .option(TEST_CLASS, OptionType(0x01), &[1, 2, 3, 4])
        .and_then(|b| b.option(TEST_CLASS, OptionType(0x82), &[5, 6, 7, 8, 9, 10, 11, 12]))
        .unwrap()
        .finish();
    [&header[..], b"payload"].concat()
}

#[test]
fn a_header_without_options_has_its_eight_bytes() {
    let header = builder().finish();
    assert_eq!(header[..], [0, 0, 0x08, 0x00, 0x12, 0x34, 0x56, 0]);
    let geneve = Geneve::parse(&header).unwrap();
    assert_eq!(geneve.vni(), vni(0x12_3456));
    assert_eq!((geneve.protocol(), geneve.header_len()), (0x0800, 8));
    assert!(!geneve.is_control() && !geneve.has_critical());
    assert!(geneve.payload().is_empty() && geneve.options().next().is_none());
}

#[test]
fn a_header_with_options_has_its_bytes() {
    let bytes = two_options();
    let expected = [
        0x05, 0x40, 0x08, 0x00, 0x12, 0x34, 0x56, 0, 0xff, 0x47, 0x01, 1, 1, 2, 3, 4, 0xff, 0x47,
        0x82, 2, 5, 6, 7, 8, 9, 10, 11, 12,
    ];
    assert_eq!(bytes[..28], expected);
    let geneve = Geneve::parse(&bytes).unwrap();
    assert_eq!(geneve.header_bytes(), expected);
    assert_eq!(geneve.payload(), b"payload");
    let options: Vec<_> = geneve.options().collect();
    assert_eq!(options.len(), 2);
    assert_eq!(
        (options[0].kind, options[0].data),
        (OptionType(1), &[1u8, 2, 3, 4][..])
    );
    assert_eq!((options[1].class, options[1].data.len()), (TEST_CLASS, 8));
}

#[test]
fn rfc8926_09_an_unknown_version_is_refused() {
    let mut bytes = two_options();
    for version in 1..4u8 {
        bytes[0] = bytes[0] & 0x3f | version << 6;
        assert_eq!(
            Geneve::parse(&bytes).unwrap_err(),
            GeneveError::Version(version)
        );
        assert_eq!(
            Geneve::parse(&bytes[..1]).unwrap_err(),
            GeneveError::Version(version)
        );
    }
}

#[test]
fn rfc8926_10_reserved_bits_are_zero_when_sent() {
    let header = GeneveBuilder::new(Vni::MAX, 0xffff)
        .control()
        .option(OptionClass(0xffff), OptionType(0xff), &[0xff; 124])
        .unwrap()
        .finish();
    assert_eq!(header[0] >> 6, 0);
    assert_eq!(header[1], 0xc0);
    assert_eq!(header[7], 0);
}

#[test]
fn rfc8926_11_reserved_bits_are_ignored_when_received() {
    let plain = two_options();
    let expected = Geneve::parse(&plain).unwrap();
    let mut bytes = plain.clone();
    bytes[1] |= 0x3f;
    bytes[7] = 0xff;
    let geneve = Geneve::parse(&bytes).unwrap();
    assert_eq!(geneve.vni(), expected.vni());
    assert_eq!(geneve.protocol(), expected.protocol());
    assert_eq!(geneve.is_control(), expected.is_control());
    assert_eq!(geneve.has_critical(), expected.has_critical());
    assert_eq!(geneve.payload(), expected.payload());
    assert!(geneve.options().eq(expected.options()));
}

#[test]
fn rfc8926_12_a_control_message_is_told_from_data() {
    let mut bytes = two_options();
    assert!(!Geneve::parse(&bytes).unwrap().is_control());
    bytes[1] |= 0x80;
    let geneve = Geneve::parse(&bytes).unwrap();
    assert!(geneve.is_control() && geneve.has_critical());
    let header = builder().control().finish();
    let geneve = Geneve::parse(&header).unwrap();
    assert!(geneve.is_control() && !geneve.has_critical());
}

#[test]
fn rfc8926_14_with_the_c_bit_options_are_searched_for_critical_ones() {
    let bytes = two_options();
    let geneve = Geneve::parse(&bytes).unwrap();
    assert!(geneve.has_critical());
    assert_eq!(
        geneve.unknown_critical(|_, _| false),
        Some((TEST_CLASS, OptionType(0x82)))
    );
    // Passes with C = 1 and only known options; non-critical options need not be known.
    assert_eq!(
        geneve.unknown_critical(|class, kind| class == TEST_CLASS && kind == OptionType(0x82)),
        None
    );
    // The same type in another class is another option.
    let other = geneve.unknown_critical(|class, _| class == OptionClass(0x0102));
    assert_eq!(other, Some((TEST_CLASS, OptionType(0x82))));
}

#[test]
fn rfc8926_16_an_unknown_critical_type_is_found_whatever_the_c_bit_says() {
    let mut bytes = two_options();
    bytes[1] &= !0x40;
    let geneve = Geneve::parse(&bytes).unwrap();
    assert!(!geneve.has_critical());
    assert_eq!(
        geneve.unknown_critical(|_, _| false),
        Some((TEST_CLASS, OptionType(0x82)))
    );
    // It is also found after other options: known critical ones and unknown non-critical ones.
    let header = builder()
        .option(TEST_CLASS, OptionType(0x82), &[])
        .and_then(|b| b.option(OptionClass(0x0102), OptionType(0x7f), &[0; 124]))
        .and_then(|b| b.option(OptionClass(0x0102), OptionType(0x80), &[0; 4]))
        .unwrap()
        .finish();
    let geneve = Geneve::parse(&header).unwrap();
    let found = geneve.unknown_critical(|class, _| class == TEST_CLASS);
    assert_eq!(found, Some((OptionClass(0x0102), OptionType(0x80))));
}

#[test]
fn rfc8926_16_c_without_any_critical_option_is_no_reason_to_refuse() {
    let mut bytes = builder()
        .option(TEST_CLASS, OptionType(0x01), &[])
        .unwrap()
        .finish()
        .to_vec();
    bytes[1] |= 0x40;
    assert_eq!(
        Geneve::parse(&bytes)
            .unwrap()
            .unknown_critical(|_, _| false),
        None
    );
}

#[test]
fn rfc8926_17_a_critical_option_sets_the_c_bit() {
    for kind in 0..=0xffu8 {
        let header = builder()
            .option(TEST_CLASS, OptionType(kind), &[])
            .unwrap()
            .finish();
        assert_eq!(header[1] & 0x40 != 0, kind >= 0x80, "{kind:#x}");
    }
    // A non-critical option after a critical one does not clear the bit.
    let header = builder()
        .option(TEST_CLASS, OptionType(0x80), &[])
        .and_then(|b| b.option(TEST_CLASS, OptionType(0x01), &[]))
        .unwrap()
        .finish();
    assert_eq!(header[1], 0x40);
}

#[test]
fn rfc8926_18_reserved_bits_of_an_option_are_zero_when_sent() {
    for words in 0..=31usize {
        let data = vec![0xff; words * 4];
        let header = builder()
            .option(TEST_CLASS, OptionType(0xff), &data)
            .unwrap()
            .finish();
        assert_eq!(usize::from(header[11]), words);
    }
}

#[test]
fn rfc8926_18_reserved_bits_of_an_option_do_not_survive_a_copy() {
    let mut bytes = two_options();
    bytes[11] |= 0xe0;
    bytes[19] |= 0xe0;
    let geneve = Geneve::parse(&bytes).unwrap();
    let copy = geneve
        .options()
        .try_fold(builder(), |b, option| b.copy_option(&option))
        .unwrap();
    assert_eq!(copy.finish()[..], two_options()[..28]);
}

#[test]
fn rfc8926_19_option_lengths_that_do_not_add_up_are_refused() {
    let good = two_options();
    // The last option claims a word more, a word less, or far more than Opt Len leaves it.
    for words in [0u8, 1, 3, 31] {
        let mut bytes = good.clone();
        bytes[19] = words;
        // With fewer words, the rest is read as an option whose own length exceeds the list.
        assert_eq!(
            Geneve::parse(&bytes).unwrap_err(),
            GeneveError::OptionLength,
            "{words}"
        );
    }
    // Opt Len cuts into the last option, or reaches into the payload.
    for opt_len in [1u8, 3, 4, 6] {
        let mut bytes = good.clone();
        bytes[0] = opt_len;
        assert_eq!(
            Geneve::parse(&bytes).unwrap_err(),
            GeneveError::OptionLength,
            "{opt_len}"
        );
    }
}

#[test]
fn rfc8926_19_an_option_list_that_ends_one_byte_early_is_refused() {
    let bytes = two_options();
    assert_eq!(
        Geneve::parse(&bytes[..27]).unwrap_err(),
        GeneveError::Truncated
    );
    assert!(Geneve::parse(&bytes[..28]).unwrap().payload().is_empty());
}

#[test]
fn rfc8926_20_opt_len_beyond_the_packet_is_refused() {
    let mut bytes = two_options();
    bytes[0] = 63;
    assert_eq!(Geneve::parse(&bytes).unwrap_err(), GeneveError::Truncated);
    for len in 0..28 {
        assert_eq!(
            Geneve::parse(&two_options()[..len]).unwrap_err(),
            GeneveError::Truncated,
            "{len}"
        );
    }
}

#[test]
fn rfc8926_20_all_63_words_of_options_are_processed() {
    let header = builder()
        .option(TEST_CLASS, OptionType(1), &[0xaa; 124])
        .and_then(|b| b.option(TEST_CLASS, OptionType(2), &[0xbb; 120]))
        .unwrap();
    assert_eq!(header.finish().len(), 8 + 252);
    let full = header.finish();
    let geneve = Geneve::parse(&full).unwrap();
    assert_eq!((geneve.header_len(), geneve.options().count()), (260, 2));
    let error = header.option(TEST_CLASS, OptionType(3), &[]).unwrap_err();
    assert_eq!(error, BuildError::OptionsLength(256));
    // As many options as fit: 63 without data, the last of them critical and unknown.
    let many = (0..62)
        .try_fold(builder(), |b, _| b.option(TEST_CLASS, OptionType(1), &[]))
        .unwrap();
    let many = many
        .option(TEST_CLASS, OptionType(0x81), &[])
        .unwrap()
        .finish();
    let geneve = Geneve::parse(&many).unwrap();
    assert_eq!(geneve.options().count(), 63);
    assert_eq!(
        geneve.unknown_critical(|_, _| false),
        Some((TEST_CLASS, OptionType(0x81)))
    );
}

#[test]
fn rfc8926_22_the_length_of_an_option_is_never_changed() {
    // Nothing is padded or truncated: a length that cannot be encoded is refused.
    for len in 0..=130usize {
        let built = builder().option(TEST_CLASS, OptionType(1), &vec![7; len]);
        if len % 4 == 0 && len <= 124 {
            let header = built.unwrap().finish();
            let geneve = Geneve::parse(&header).unwrap();
            assert_eq!(geneve.options().next().unwrap().data.len(), len);
        } else {
            assert_eq!(built.unwrap_err(), BuildError::DataLength(len));
        }
    }
}

#[test]
fn rfc8926_34_the_critical_rule_does_not_look_at_the_inner_destination() {
    for destination in [[224, 0, 0, 1], [255, 255, 255, 255], [10, 0, 0, 1]] {
        let mut bytes = two_options();
        bytes.truncate(28);
        bytes.extend([0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2]);
        bytes.extend(destination);
        let geneve = Geneve::parse(&bytes).unwrap();
        assert_eq!(
            geneve.unknown_critical(|_, _| false),
            Some((TEST_CLASS, OptionType(0x82)))
        );
    }
}

#[test]
fn a_vni_has_24_bits() {
    assert_eq!(Vni::new(0xff_ffff), Some(Vni::MAX));
    assert_eq!(Vni::new(0x100_0000), None);
    assert_eq!("100".parse(), Ok(vni(100)));
    assert_eq!("0xffffff".parse(), Ok(Vni::MAX));
    assert_eq!(Vni::MAX.to_string(), "16777215");
    for bad in [
        "",
        "16777216",
        "99999999999",
        "-1",
        "+1",
        "0x",
        "0x+1",
        "1 ",
        "ten",
        "0x1000000",
    ] {
        assert_eq!(bad.parse::<Vni>(), Err(VniError), "{bad}");
    }
}

#[test]
fn equal_headers_are_equal() {
    let one = builder()
        .option(TEST_CLASS, OptionType(1), &[1, 2, 3, 4])
        .unwrap()
        .finish();
    assert_eq!(
        one,
        builder()
            .option(TEST_CLASS, OptionType(1), &[1, 2, 3, 4])
            .unwrap()
            .finish()
    );
    assert_ne!(
        one,
        builder()
            .option(TEST_CLASS, OptionType(1), &[1, 2, 3, 5])
            .unwrap()
            .finish()
    );
    assert_ne!(
        builder()
            .option(TEST_CLASS, OptionType(0), &[])
            .unwrap()
            .finish(),
        builder().finish()
    );
    assert_eq!(
        format!("{:?}", builder().finish()),
        "HeaderBytes(0000080012345600)"
    );
}

type AnyOption = (u16, u8, Vec<u8>);

fn any_options() -> impl Strategy<Value = Vec<AnyOption>> {
    let data = (0usize..8).prop_flat_map(|words| proptest::collection::vec(any::<u8>(), words * 4));
    proptest::collection::vec((any::<u16>(), any::<u8>(), data), 0..7)
}

fn build(id: u32, protocol: u16, options: &[AnyOption]) -> HeaderBytes {
    options
        .iter()
        .try_fold(
            GeneveBuilder::new(vni(id), protocol),
            |b, (class, kind, data)| b.option(OptionClass(*class), OptionType(*kind), data),
        )
        .unwrap()
        .finish()
}

proptest! {
    #[test]
    fn what_is_built_is_what_is_read(
        id in 0u32..1 << 24, protocol: u16, options in any_options(),
        payload in proptest::collection::vec(any::<u8>(), 0..50)
    ) {
        let header = build(id, protocol, &options);
        let bytes = [&header[..], &payload].concat();
        let geneve = Geneve::parse(&bytes).unwrap();
        prop_assert_eq!(geneve.vni().value(), id);
        prop_assert_eq!(geneve.protocol(), protocol);
        prop_assert_eq!(geneve.payload(), &payload[..]);
        prop_assert_eq!(geneve.has_critical(), options.iter().any(|(_, kind, _)| kind & 0x80 != 0));
        let read: Vec<AnyOption> =
            geneve.options().map(|o| (o.class.0, o.kind.0, o.data.to_vec())).collect();
        prop_assert_eq!(read, options);
        prop_assert_eq!(geneve.header_bytes(), &header[..]);
    }

    #[test]
    fn mutated_headers_never_panic(
        options in any_options(), at: prop::sample::Index, value: u8, cut: prop::sample::Index
    ) {
        let mut bytes = build(7, 0x0800, &options).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = value;
        walk(&bytes);
        walk(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        walk(&bytes);
    }
}

fn walk(bytes: &[u8]) {
    let Ok(geneve) = Geneve::parse(bytes) else {
        return;
    };
    let options: usize = geneve.options().map(|option| 4 + option.data.len()).sum();
    assert_eq!(options, geneve.options_bytes().len());
    assert_eq!(geneve.header_len(), 8 + options);
    assert_eq!(geneve.header_len() + geneve.payload().len(), bytes.len());
    let _ = (
        geneve.vni(),
        geneve.protocol(),
        geneve.unknown_critical(|_, _| false),
    );
}
