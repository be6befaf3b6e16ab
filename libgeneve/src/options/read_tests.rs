//! Tests of reading options: known ones, and those that cause a drop.

use super::*;
use crate::label::Label;
use crate::options::{DEFAULT_OPTION_CLASS, EndpointType, OptionDef, SentOptions, kind};
use crate::wire::geneve::{Geneve, GeneveBuilder, Vni};
use crate::wire::option::{OptionClass, OptionType};
use proptest::prelude::*;

fn schema() -> OptionSchema {
    let def = |name: &str, kind, len| OptionDef {
        name: name.to_owned(),
        class: OptionClass(0x0108),
        kind: OptionType(kind),
        len,
    };
    OptionSchema::new(
        DEFAULT_OPTION_CLASS,
        vec![def("zone", 1, 4), def("must", 0x82, 8)],
    )
    .unwrap()
}

/// Returns a header with these options: class, type, data.
fn header(options: &[(u16, u8, &[u8])]) -> Vec<u8> {
    let builder = GeneveBuilder::new(Vni::default(), 0x0800);
    let add = |builder: GeneveBuilder, &(class, kind, data): &(u16, u8, &[u8])| {
        builder.option(OptionClass(class), OptionType(kind), data)
    };
    options
        .iter()
        .try_fold(builder, add)
        .unwrap()
        .finish()
        .to_vec()
}

fn read(bytes: &[u8]) -> Result<ReceivedOptions, DropReason> {
    ReceivedOptions::read(&schema(), Geneve::parse(bytes).unwrap().options())
}

const OWN_CLASS: u16 = DEFAULT_OPTION_CLASS.0;

#[test]
fn every_known_option_is_read() {
    let bytes = header(&[
        (OWN_CLASS, 4, &[192, 0, 2, 1, 0, 80, 6, 0]),
        (0x0108, 1, &[0; 4]),
        (OWN_CLASS, 3, &[5, 1, 0, 0]),
        (0x0102, 0, &[0; 124]),
        (OWN_CLASS, 2, &[0, 0, 0, 1, 0, 0, 0, 2]),
        (OWN_CLASS, 1, &[0x12, 0, 0, 7]),
        // User-defined options may occur several times.
        (0x0108, 1, &[0; 4]),
    ]);
    let received = read(&bytes).unwrap();
    let endpoint = received.endpoint.unwrap();
    assert_eq!(
        (endpoint.src, endpoint.dst),
        (EndpointType::Scaled, EndpointType::Gateway)
    );
    assert_eq!(received.labels.unwrap()[..], [Label { key: 1, pair: 2 }]);
    assert!(!received.labels_critical);
    assert_eq!(received.class.unwrap().class, 5);
    assert_eq!(received.service.unwrap().port, 80);
    assert_eq!(received.slots, 0b1_1111);
    assert!(received.has(4) && !received.has(5));
    assert_eq!(read(&header(&[])), Ok(ReceivedOptions::default()));
}

#[test]
fn no_labels_are_not_unknown_labels() {
    let received = read(&header(&[(OWN_CLASS, 0x82, &[])])).unwrap();
    assert_eq!(received.labels, Some(LabelSet::EMPTY));
    assert!(received.labels_critical);
}

#[test]
fn rfc8926_16_known_critical_options_are_read_and_unknown_ones_drop_whatever_the_c_bit_says() {
    let known = header(&[(OWN_CLASS, 0x82, &[]), (0x0108, 0x82, &[0; 8])]);
    let passed_over = header(&[(OWN_CLASS, 0x7f, &[1; 4]), (0x0109, 1, &[])]);
    let unknown = [
        header(&[(0x0108, 0x81, &[])]),
        header(&[(OWN_CLASS, 0x81, &[0; 4])]),
        header(&[(0x0109, 0x82, &[0; 8]), (OWN_CLASS, 3, &[0; 4])]),
        // An unknown critical option takes precedence over other errors.
        header(&[(OWN_CLASS, 3, &[]), (OWN_CLASS, 0xff, &[])]),
    ];
    for c_bit in [0x00, 0x40] {
        let with = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes[1] = c_bit;
            read(&bytes)
        };
        assert!(with(&known).is_ok());
        assert_eq!(with(&passed_over), Ok(ReceivedOptions::default()));
        for bytes in &unknown {
            assert_eq!(
                with(bytes),
                Err(DropReason::UnknownCriticalOption),
                "{bytes:02x?}"
            );
        }
    }
}

#[test]
fn rfc8926_22_a_known_option_of_another_length_is_malformed() {
    for (class, kind, right) in [
        (OWN_CLASS, 0x01, &[4][..]),
        (OWN_CLASS, 0x02, &[0, 8]),
        (OWN_CLASS, 0x82, &[0, 8]),
        (OWN_CLASS, 0x03, &[4]),
        (OWN_CLASS, 0x04, &[8, 20]),
        (0x0108, 0x01, &[4]),
        (0x0108, 0x82, &[8]),
    ] {
        for len in (0..=124).step_by(4) {
            let read = read(&header(&[(class, kind, &[0; 124][..len])]));
            if right.contains(&len) {
                assert!(read.is_ok(), "{class:#x}:{kind:#x} {len}");
            } else {
                let why = Err(DropReason::OptionMalformed);
                assert_eq!(read, why, "{class:#x}:{kind:#x} {len}");
            }
        }
    }
}

#[test]
fn content_that_is_forbidden_and_own_options_that_repeat_are_malformed() {
    let class = (OWN_CLASS, 3, &[0; 4][..]);
    let labels: &[u8] = &[0, 0, 0, 1, 0, 0, 0, 2];
    for options in [
        &[(OWN_CLASS, 1, &[0x50, 0, 0, 0][..])][..],
        &[(OWN_CLASS, 1, &[0x05, 0, 0, 0])],
        &[(OWN_CLASS, 2, &[labels, labels].concat()[..])],
        &[class, class],
        &[(OWN_CLASS, 2, labels), (OWN_CLASS, 2, labels)],
        &[(OWN_CLASS, 2, labels), (OWN_CLASS, 0x82, labels)],
        &[
            (OWN_CLASS, 0x82, &[]),
            (0x0108, 1, &[0; 4]),
            (OWN_CLASS, 2, &[]),
        ],
    ] {
        assert_eq!(
            read(&header(options)),
            Err(DropReason::OptionMalformed),
            "{options:02x?}"
        );
    }
}

#[test]
fn rfc8926_18_reserved_bits_of_known_options_are_ignored() {
    let plain = header(&[
        (OWN_CLASS, 1, &[0x01, 0x80, 0, 7]),
        (OWN_CLASS, 3, &[5, 1, 0, 0]),
    ]);
    let mut bytes = plain.clone();
    for (at, bits) in [(11, 0xe0), (13, 0x7f), (19, 0xe0), (22, 0xff), (23, 0xff)] {
        assert_eq!(bytes[at] & bits, 0);
        bytes[at] |= bits;
    }
    assert!(read(&plain).is_ok());
    assert_eq!(read(&bytes), read(&plain));
}

/// Packets with random options, some of which are likely to be known.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let class = prop_oneof![Just(OWN_CLASS), Just(0x0108u16), any::<u16>()];
    let kind = prop_oneof![1u8..5, Just(0x82), any::<u8>()];
    let data = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..6),
        proptest::collection::vec(Just(0u8), 0..6)
    ];
    let option = (class, kind, data).prop_map(|(class, kind, data)| (class, kind, data.repeat(4)));
    proptest::collection::vec(option, 0..8).prop_map(|options| {
        let options: Vec<_> = options.iter().map(|(c, k, d)| (*c, *k, &d[..])).collect();
        header(&options)
    })
}

proptest! {
    #[test]
    fn what_was_read_can_be_attached_and_read_again(bytes in packets()) {
        let geneve = Geneve::parse(&bytes).unwrap();
        let schema = schema();
        let unknown = geneve.unknown_critical(|class, kind| schema.lookup(class, kind).is_some());
        match ReceivedOptions::read(&schema, geneve.options()) {
            Ok(received) => {
                prop_assert_eq!(unknown, None);
                let attach = SentOptions {
                    endpoint: received.endpoint,
                    labels: received.labels.map(|set| (set, received.labels_critical)),
                    class: received.class,
                    service: received.service,
                };
                let defined = geneve
                    .options()
                    .filter(|o| matches!(schema.lookup(o.class, o.kind), Some(KnownOption::Defined(_))));
                let header = attach.header(&schema, geneve.vni(), 0x0800, defined).unwrap();
                prop_assert_eq!(read(&header), Ok(received));
            }
            Err(reason) => {
                prop_assert_eq!(unknown.is_some(), reason == DropReason::UnknownCriticalOption);
            }
        }
    }
}

#[test]
fn labels_of_the_longest_list_are_read() {
    let labels: Vec<Label> = (0..15).map(|key| Label { key, pair: 9 }).collect();
    let attach = SentOptions {
        labels: LabelSet::from_labels(&labels).map(|set| (set, true)),
        ..SentOptions::default()
    };
    let header = attach
        .header(&schema(), Vni::default(), 0x86dd, [])
        .unwrap();
    assert_eq!(read(&header).unwrap().labels.unwrap()[..], labels);
    assert_eq!(
        Geneve::parse(&header)
            .unwrap()
            .options()
            .next()
            .unwrap()
            .kind,
        kind::LABELS_CRITICAL
    );
}
