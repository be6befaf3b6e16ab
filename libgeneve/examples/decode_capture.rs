//! Prints the Geneve and VXLAN packets of a capture file (pcap or pcapng) of an Ethernet interface.
//!
//! `cargo run -p libgeneve --no-default-features --example decode_capture -- FILE`; without a file, it decodes a
//! generated capture.

use std::error::Error;
use std::fs;

use libgeneve::wire::encapsulation::{Encapsulation, InnerProtocol};
use libgeneve::wire::ethernet::{Ethernet, Mac, ethernet_header, ethertype};
use libgeneve::wire::geneve::{GENEVE_PORT, GeneveBuilder, Vni, protocol_type};
use libgeneve::wire::ip::{Ipv4Header, protocol};
use libgeneve::wire::option::{OptionClass, OptionType};
use libgeneve::wire::packet::{Packet, Transport};
use libgeneve::wire::transport::udp_header;
use libgeneve::wire::vxlan::VXLAN_PORT;
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::{Block, PcapNgReader};

type DecodeResult<T> = Result<T, Box<dyn Error>>;

fn main() -> DecodeResult<()> {
    let capture = match std::env::args().nth(1) {
        Some(path) => fs::read(path)?,
        None => sample()?,
    };
    for (number, frame) in frames(&capture)?.iter().enumerate() {
        if let Some(line) = describe(frame) {
            println!("{:>4}  {line}", number + 1);
        }
    }
    Ok(())
}

/// Returns the frames of a capture in either format.
fn frames(capture: &[u8]) -> DecodeResult<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    if let Ok(mut reader) = PcapReader::new(capture) {
        while let Some(packet) = reader.next_packet() {
            frames.push(packet?.data.into_owned());
        }
        return Ok(frames);
    }
    let mut reader = PcapNgReader::new(capture)?;
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block? {
            frames.push(packet.data.into_owned());
        }
    }
    Ok(frames)
}

/// Describes a frame, if it is a tunnel packet.
fn describe(frame: &[u8]) -> Option<String> {
    let outer = Ethernet::parse(frame).ok()?.payload();
    let packet = Packet::parse(outer).ok()?;
    let Transport::Udp { dst, .. } = packet.transport else {
        return None;
    };
    let encapsulation = match dst {
        GENEVE_PORT => Encapsulation::Geneve,
        VXLAN_PORT => Encapsulation::Vxlan,
        _ => return None,
    };
    let payload = &outer[packet.payload_offset.into()..packet.total_len.into()];
    let between = format!("{} > {} {}", packet.src, packet.dst, encapsulation.title());
    // Each parser's error says why it refused the packet.
    let envelope = match encapsulation.parse(payload) {
        Ok(envelope) => envelope,
        Err(error) => return Some(format!("{between}: {error}")),
    };
    let options: String = envelope
        .options()
        .map(|option| format!(" {option}"))
        .collect();
    let inside = &payload[envelope.header_len..];
    let inside = match envelope.inner() {
        Some(InnerProtocol::Ip) => ip(inside),
        Some(InnerProtocol::Ethernet) => Ethernet::parse(inside).map_or_else(
            |error| error.to_string(),
            |frame| format!("{} > {}: {}", frame.src(), frame.dst(), ip(frame.payload())),
        ),
        None => format!("protocol {:#06x}", envelope.protocol),
    };
    Some(format!("{between} VNI {}{options}: {inside}", envelope.vni))
}

fn ip(bytes: &[u8]) -> String {
    match Packet::parse(bytes) {
        Ok(packet) => {
            let (src, dst) = (packet.src, packet.dst);
            format!(
                "{src} > {dst}, protocol {}, {} bytes",
                packet.protocol, packet.total_len
            )
        }
        Err(error) => error.to_string(),
    }
}

/// Returns a capture of two packets, the second of which is truncated.
fn sample() -> DecodeResult<Vec<u8>> {
    let ip = |src: [u8; 4], dst: [u8; 4], payload: &[u8]| -> DecodeResult<Vec<u8>> {
        let len = u16::try_from(payload.len())?;
        let header = Ipv4Header::new(src.into(), dst.into(), protocol::UDP, len);
        Ok([&header.to_bytes()[..], payload].concat())
    };
    let udp = |port: u16, payload: &[u8]| -> DecodeResult<Vec<u8>> {
        let len = u16::try_from(8 + payload.len())?;
        Ok([&udp_header(50_000, port, len, 0)[..], payload].concat())
    };
    let inner = ip([10, 0, 0, 1], [10, 0, 0, 2], &udp(53, b"a question")?)?;
    let header = GeneveBuilder::new(Vni::new(100).ok_or("a VNI")?, protocol_type::IPV4)
        .option(OptionClass(0x0102), OptionType(0x80), &[0, 1, 0, 2])?
        .finish();
    let whole = [&header[..], &inner].concat();
    let mac = |last| Mac([2, 0, 0, 0, 0, last]);
    let ethernet = ethernet_header(mac(2), mac(1), ethertype::IPV4);
    let mut writer = PcapWriter::new(Vec::new())?;
    for payload in [&whole[..], &whole[..6]] {
        let outer = ip([192, 0, 2, 1], [192, 0, 2, 2], &udp(GENEVE_PORT, payload)?)?;
        let frame = [&ethernet[..], &outer].concat();
        let len = u32::try_from(frame.len())?;
        writer.write_packet(&PcapPacket::new(Default::default(), len, &frame))?;
    }
    Ok(writer.into_writer())
}

#[test]
fn the_sample_is_read() {
    let lines: Vec<_> = frames(&sample().unwrap())
        .unwrap()
        .iter()
        .filter_map(|f| describe(f))
        .collect();
    assert_eq!(
        lines,
        [
            "192.0.2.1 > 192.0.2.2 Geneve VNI 100 0x0102:0x80=00010002: 10.0.0.1 > 10.0.0.2, protocol 17, 38 bytes",
            "192.0.2.1 > 192.0.2.2 Geneve: the packet ends before its Geneve header does",
        ]
    );
}
