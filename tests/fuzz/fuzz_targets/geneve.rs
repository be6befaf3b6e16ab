//! Geneve headers and options: accepted ones are consistent and can be rebuilt.
#![no_main]

use libfuzzer_sys::fuzz_target;
use libgeneve::wire::geneve::{Geneve, GeneveBuilder};
use libgeneve::wire::packet::Packet;

fuzz_target!(|data: &[u8]| {
    let Ok(geneve) = Geneve::parse(data) else {
        return;
    };
    let options: usize = geneve.options().map(|option| 4 + option.data.len()).sum();
    assert_eq!(geneve.header_len(), 8 + options);
    assert_eq!(
        geneve.header_bytes().len() + geneve.payload().len(),
        data.len()
    );

    let builder = GeneveBuilder::new(geneve.vni(), geneve.protocol());
    let builder = if geneve.is_control() {
        builder.control()
    } else {
        builder
    };
    let header = geneve
        .options()
        .try_fold(builder, |builder, option| builder.copy_option(&option))
        .expect("what was received fits")
        .finish();
    let again = Geneve::parse(&header).expect("what is built is valid");
    assert_eq!(header.len(), geneve.header_len());
    assert!(again.options().eq(geneve.options()));
    assert_eq!(
        again.has_critical(),
        geneve.options().any(|option| option.is_critical())
    );
    assert_eq!(
        again.has_critical(),
        geneve.unknown_critical(|_, _| false).is_some()
    );
    assert_eq!(
        (again.vni(), again.protocol()),
        (geneve.vni(), geneve.protocol())
    );

    let _ = Packet::parse(geneve.payload());
});
