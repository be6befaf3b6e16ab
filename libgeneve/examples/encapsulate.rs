//! Encapsulates a packet in Geneve with two options, and decapsulates it again.
//!
//! `cargo run -p libgeneve --no-default-features --example encapsulate`

use std::error::Error;

use libgeneve::wire::geneve::{GENEVE_PORT, Geneve, GeneveBuilder, Vni, protocol_type};
use libgeneve::wire::ip::{Ipv4Header, protocol};
use libgeneve::wire::option::{OptionClass, OptionType};
use libgeneve::wire::packet::Packet;
use libgeneve::wire::transport::udp_header;

/// Returns an inner packet: a UDP datagram.
fn inner(payload: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let datagram_len = u16::try_from(8 + payload.len())?;
    let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let header = Ipv4Header::new(src, dst, protocol::UDP, datagram_len);
    let udp = udp_header(5000, 6000, datagram_len, 0);
    let mut bytes = [&header.to_bytes()[..], &udp, payload].concat();
    Packet::parse(&bytes)?.write_checksum(&mut bytes);
    Ok(bytes)
}

fn main() -> Result<(), Box<dyn Error>> {
    let vni: Vni = "100".parse()?;
    // Class 0x0102 is Open Virtual Network's; 0xff00 and above are for experiments. The high bit of a type makes it
    // critical: a receiver that does not know the option must drop the packet. The builder derives the header's C bit
    // from it.
    let header = GeneveBuilder::new(vni, protocol_type::IPV4)
        .option(OptionClass(0x0102), OptionType(0x80), &[0, 1, 0, 2])?
        .option(OptionClass(0xff47), OptionType(0x01), b"eightlen")?
        .finish();
    let packet = inner(b"hello, overlay")?;
    let datagram = [&header[..], &packet].concat();
    println!("{} bytes for UDP port {GENEVE_PORT}", datagram.len());

    let geneve = Geneve::parse(&datagram)?;
    println!("VNI {}, carries {:#06x}", geneve.vni(), geneve.protocol());
    for option in geneve.options() {
        let weight = if option.is_critical() {
            "critical"
        } else {
            "optional"
        };
        println!("option {option}, {weight}");
    }
    if let Some((class, kind)) = geneve.unknown_critical(|class, _| class == OptionClass(0xff47)) {
        println!("whoever knows class 0xff47 alone must drop it for {class}:{kind}");
    }
    assert_eq!(geneve.payload(), packet);
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
