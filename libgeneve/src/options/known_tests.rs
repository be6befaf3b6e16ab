//! Tests of the schema: known options, and definitions that are refused.

use super::*;

fn def(name: &str, class: u16, kind: u8, len: u8) -> OptionDef {
    OptionDef {
        name: name.to_owned(),
        class: OptionClass(class),
        kind: OptionType(kind),
        len,
    }
}

#[test]
fn own_and_defined_options_are_known_under_slots_of_their_own() {
    let defs = vec![
        def("zone", 0x0108, 0x83, 4),
        def("tag", 0x0102, 0, 124),
        def("mark", 0xff47, 0x05, 0),
    ];
    let schema = OptionSchema::new(DEFAULT_OPTION_CLASS, defs).unwrap();
    let known = |class, kind| schema.lookup(OptionClass(class), OptionType(kind));
    assert_eq!(known(0xff47, 1), Some(KnownOption::Endpoint));
    assert_eq!(
        known(0xff47, 2),
        Some(KnownOption::Labels { critical: false })
    );
    assert_eq!(
        known(0xff47, 0x82),
        Some(KnownOption::Labels { critical: true })
    );
    assert_eq!(known(0xff47, 3), Some(KnownOption::Class));
    assert_eq!(known(0xff47, 4), Some(KnownOption::Service));
    assert_eq!(known(0x0108, 0x83), Some(KnownOption::Defined(0)));
    assert_eq!(known(0x0102, 0), Some(KnownOption::Defined(1)));
    assert_eq!(known(0xff47, 5), Some(KnownOption::Defined(2)));
    for (class, kind) in [
        (0xff47, 0x81),
        (0xff47, 0),
        (0x0108, 3),
        (0x0102, 1),
        (0, 1),
    ] {
        assert_eq!(known(class, kind), None, "{class:#x}:{kind:#x}");
    }
    let names: Vec<_> = schema.slot_names().collect();
    assert_eq!(
        names,
        [
            "endpoint", "labels", "class", "service", "zone", "tag", "mark"
        ]
    );
    assert_eq!(names[known(0x0102, 0).unwrap().slot()], "tag");
    assert_eq!(
        known(0xff47, 0x82).unwrap().slot(),
        known(0xff47, 2).unwrap().slot()
    );
    assert_eq!(schema.named("tag").unwrap().len, 124);
    assert!(schema.named("labels").is_none());
}

#[test]
fn another_class_moves_geneveds_own_options() {
    let schema = OptionSchema::new(OptionClass(0xff01), vec![def("old", 0xff47, 1, 4)]).unwrap();
    assert_eq!(
        schema.lookup(OptionClass(0xff01), kind::CLASS),
        Some(KnownOption::Class)
    );
    assert_eq!(
        schema.lookup(DEFAULT_OPTION_CLASS, kind::ENDPOINT),
        Some(KnownOption::Defined(0))
    );
    assert_eq!(schema.lookup(DEFAULT_OPTION_CLASS, kind::CLASS), None);
}

#[test]
fn what_cannot_be_defined_is_refused_with_its_reason() {
    let message = |defs: Vec<OptionDef>| {
        OptionSchema::new(DEFAULT_OPTION_CLASS, defs)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        message(vec![def("a", 1, 1, 4), def("b", 1, 1, 8)]),
        "option b: a has its class and type already"
    );
    assert_eq!(
        message(vec![def("a", 1, 1, 4), def("a", 1, 2, 4)]),
        "option a: there is one of this name already"
    );
    assert_eq!(
        message(vec![def("labels", 1, 1, 4)]),
        "option labels: there is one of this name already"
    );
    for kind in [0x01, 0x81, 0x82, 0x84] {
        assert!(
            message(vec![def("a", 0xff47, kind, 4)]).ends_with("of class 0xff47 are geneved's own")
        );
    }
    for len in [1, 6, 125, 128, 255] {
        assert!(message(vec![def("a", 1, 1, len)]).contains("a multiple of 4, at most 124"));
    }
    for name in ["", "A", "a b", "a=b"] {
        assert!(message(vec![def(name, 1, 1, 4)]).contains("a name has lower-case letters"));
    }
    let many = |count: u8| (0..count).map(|n| def(&format!("o{n}"), 1, n, 4)).collect();
    assert_eq!(message(many(29)), "29 options: at most 28 can be defined");
    let full = OptionSchema::new(DEFAULT_OPTION_CLASS, many(28)).unwrap();
    let last = full.lookup(OptionClass(1), OptionType(27)).unwrap();
    assert_eq!(last.slot(), COUNTER_SLOTS - 1);
    assert_eq!(full.slot_names().count(), COUNTER_SLOTS);
}

#[test]
fn rfc8926_22_data_of_another_length_than_defined_is_refused() {
    let def = def("zone", 0x0108, 1, 4);
    assert_eq!(def.data("0a0B0c0d").unwrap(), [10, 11, 12, 13]);
    assert_eq!(def.data("0x0a0b0c0d").unwrap(), [10, 11, 12, 13]);
    assert_eq!(
        def.data("0a0b0c0d00000000").unwrap_err().to_string(),
        "option zone: data of 8 bytes, expected 4"
    );
    for text in ["0a0", "zz", "0a 0b", "é"] {
        assert_eq!(
            def.data(text),
            Err(OptionDataError::Hex("zone".into())),
            "{text}"
        );
    }
}
