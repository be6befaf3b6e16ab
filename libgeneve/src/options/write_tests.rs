//! Tests of attaching options: bytes, lengths and the C bit.

use super::*;
use crate::label::Label;
use crate::options::{EndpointType, ReceivedOptions};
use crate::wire::geneve::Geneve;
use crate::wire::option::{OptionClass, OptionType};

fn labels(count: u32) -> LabelSet {
    let labels: Vec<Label> = (0..count).map(|key| Label { key, pair: 9 }).collect();
    LabelSet::from_labels(&labels).unwrap()
}

fn vni() -> Vni {
    Vni::new(7).unwrap()
}

fn all() -> SentOptions {
    SentOptions {
        endpoint: Some(EndpointOption {
            dst: EndpointType::Proxied,
            ..EndpointOption::default()
        }),
        labels: Some((labels(15), false)),
        class: Some(ClassOption::default()),
        service: Some(ServiceOption {
            addr: "2001:db8::1".parse().unwrap(),
            port: 443,
            protocol: 6,
        }),
    }
}

fn defined(kind: u8, data: &[u8]) -> GeneveOption<'_> {
    GeneveOption {
        class: OptionClass(0x0108),
        kind: OptionType(kind),
        data,
    }
}

#[test]
fn options_lie_in_their_order_and_have_the_length_that_was_said() {
    let schema = OptionSchema::default();
    let zone = [1, 2, 3, 4];
    let options = [defined(1, &zone), defined(1, &zone)];
    let header = all().header(&schema, vni(), 0x0800, options).unwrap();
    assert_eq!(all().len(), 164);
    assert_eq!(header.len(), 8 + all().len() + 16);
    let geneve = Geneve::parse(&header).unwrap();
    let kinds: Vec<u8> = geneve.options().map(|option| option.kind.0).collect();
    assert_eq!(kinds, [1, 2, 3, 4, 1, 1]);
    assert_eq!((geneve.vni(), geneve.protocol()), (vni(), 0x0800));
    let received = ReceivedOptions::read(&schema, geneve.options()).unwrap();
    assert_eq!(
        (received.endpoint, received.service),
        (all().endpoint, all().service)
    );

    let none = SentOptions::default();
    assert!(none.is_empty());
    assert_eq!(none.header(&schema, vni(), 0x0800, []).unwrap().len(), 8);
    let known_to_have_none = SentOptions {
        labels: Some((LabelSet::EMPTY, false)),
        ..none
    };
    assert_eq!(known_to_have_none.len(), 4);
}

#[test]
fn rfc8926_17_the_c_bit_follows_from_the_attached_options() {
    let critical = |attach: SentOptions, options: &[GeneveOption<'_>]| {
        let options = options.iter().copied();
        let header = attach
            .header(&OptionSchema::default(), vni(), 0x0800, options)
            .unwrap();
        Geneve::parse(&header).unwrap().has_critical()
    };
    let enforced = SentOptions {
        labels: Some((labels(2), true)),
        ..all()
    };
    assert!(!critical(SentOptions::default(), &[]));
    assert!(!critical(all(), &[defined(1, &[])]));
    assert!(critical(enforced, &[]));
    assert!(critical(all(), &[defined(0x81, &[]), defined(1, &[])]));
}

#[test]
fn rfc8926_18_reserved_bits_of_attached_options_are_zero() {
    let header = all()
        .header(&OptionSchema::default(), vni(), 0x0800, [])
        .unwrap();
    let mut at = 8;
    while at < header.len() {
        let words = header[at + 3];
        assert_eq!(words & 0xe0, 0, "option at {at}");
        at += 4 + usize::from(words) * 4;
    }
    assert_eq!(header[13], 0, "flags of the endpoint");
    assert_eq!(header[header.len() - 1], 0, "reserved byte of the service");
}

#[test]
fn what_does_not_fit_is_refused() {
    let data = [0; 84];
    let header = |options: &[GeneveOption<'_>]| {
        all().header(
            &OptionSchema::default(),
            vni(),
            0x0800,
            options.iter().copied(),
        )
    };
    assert!(header(&[defined(1, &data)]).is_ok());
    assert_eq!(
        header(&[defined(1, &data), defined(1, &[])]).unwrap_err(),
        BuildError::OptionsLength(256)
    );
    assert_eq!(
        header(&[defined(1, &[1, 2])]).unwrap_err(),
        BuildError::DataLength(2)
    );
}
