//! Options: parsed options agree with the rule for critical options, and can be attached again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use libgeneve::drop::DropReason;
use libgeneve::options::{SentOptions, DEFAULT_OPTION_CLASS, KnownOption, OptionDef, OptionMatch, ReceivedOptions, OptionSchema};
use libgeneve::wire::geneve::Geneve;
use libgeneve::wire::option::{OptionClass, OptionType};

fuzz_target!(|data: &[u8]| {
    let Ok(geneve) = Geneve::parse(data) else {
        return;
    };
    let def = |name: &str, kind, len| OptionDef {
        name: name.to_owned(),
        class: OptionClass(0x0108),
        kind: OptionType(kind),
        len,
    };
    let schema = OptionSchema::new(DEFAULT_OPTION_CLASS, vec![def("zone", 1, 4), def("must", 0x82, 8)])
        .expect("these can be defined");
    for option in geneve.options() {
        let wanted = OptionMatch {
            class: option.class,
            kind: option.kind,
            value: Some((option.data.to_vec(), vec![0xff; option.data.len()])),
        };
        assert!(wanted.matches(geneve.options()));
    }

    let known = |class, kind| schema.lookup(class, kind).is_some();
    let unknown = geneve.unknown_critical(known).is_some();
    let received = match ReceivedOptions::read(&schema, geneve.options()) {
        Ok(received) => received,
        Err(reason) => {
            assert_eq!(unknown, reason == DropReason::UnknownCriticalOption);
            assert!(unknown || reason == DropReason::OptionMalformed);
            return;
        }
    };
    assert!(!unknown);
    let attach = SentOptions {
        endpoint: received.endpoint,
        labels: received.labels.map(|set| (set, received.labels_critical)),
        class: received.class,
        service: received.service,
    };
    let defined = geneve.options().filter(|option| {
        let known = schema.lookup(option.class, option.kind);
        matches!(known, Some(KnownOption::Defined(_)))
    });
    let len: usize = defined.clone().map(|option| 4 + option.data.len()).sum();
    let header = attach
        .header(&schema, geneve.vni(), geneve.protocol(), defined)
        .expect("what was received fits");
    assert_eq!(header.len(), 8 + attach.len() + len);
    let again = Geneve::parse(&header).expect("what is built is valid");
    assert_eq!(ReceivedOptions::read(&schema, again.options()), Ok(received));
});
