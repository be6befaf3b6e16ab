//! Golden bytes, with tshark as the judge, in both directions: what our builders write is dissected
//! by tshark, and fixed bytes whose dissection by tshark is recorded here are read by our views.
//!
//! tshark is required: without it these tests fail.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use geneved_tests::tshark::tshark;
use libgeneve::wire::geneve::{GENEVE_PORT, Geneve, GeneveBuilder, Vni, protocol_type};
use libgeneve::wire::icmp::{IcmpError, MAX_V6_ERROR_LEN, UnreachableReason};
use libgeneve::wire::ip::{Ipv4Header, Ipv6Header, protocol};
use libgeneve::wire::option::{OptionClass, OptionType};
use libgeneve::wire::packet::{Packet, Transport};
use libgeneve::wire::transport::udp_header;
use libgeneve::wire::transport_checksum::ChecksumState;

/// One Geneve header as tshark's fields tell it.
#[derive(Debug, PartialEq, Eq)]
struct Dissection {
    version: u32,
    control: bool,
    critical: bool,
    protocol: u32,
    vni: u32,
    /// Class, type, and length in bytes with the option's header.
    options: Vec<(u32, u32, u32)>,
    /// Data of the options that have any, in hexadecimal.
    data: Vec<String>,
    /// The chain of protocols that the frame has.
    protocols: String,
    /// Whether tshark has an objection: malformed bytes, a wrong version or length, a bad checksum.
    objections: bool,
}

#[test]
fn what_is_built_is_what_tshark_dissects() {
    let mut frames = Vec::new();
    let mut expected = Vec::new();
    for case in cases() {
        for outer_v6 in [false, true] {
            let inner = inner_packet(case.inner);
            let header = case
                .options
                .iter()
                .try_fold(builder(&case), |builder, (class, kind, data)| {
                    builder.option(OptionClass(*class), OptionType(*kind), data)
                })
                .expect("the case's options fit")
                .finish();
            frames.push(underlay(outer_v6, &[&header[..], &inner].concat()));
            let (outer, inner) = (if outer_v6 { "ipv6" } else { "ip" }, case.inner);
            expected.push(Dissection {
                version: 0,
                control: case.control,
                critical: case.options.iter().any(|(_, kind, _)| kind & 0x80 != 0),
                protocol: u32::from(case.protocol),
                vni: case.vni,
                options: case
                    .options
                    .iter()
                    .map(|(class, kind, data)| {
                        ((*class).into(), (*kind).into(), 4 + data.len() as u32)
                    })
                    .collect(),
                data: case
                    .options
                    .iter()
                    .map(|o| hex(&o.2))
                    .filter(|d| !d.is_empty())
                    .collect(),
                protocols: format!("raw:{outer}:udp:geneve:{inner}"),
                objections: false,
            });
        }
    }
    let dissected = dissect("built", &frames);
    assert_eq!(dissected.len(), expected.len());
    for (dissected, expected) in dissected.iter().zip(&expected) {
        assert_eq!(dissected, expected);
    }
}

#[test]
fn fixed_bytes_read_as_tshark_dissected_them() {
    for golden in GOLDEN_CASES {
        let bytes = unhex(golden.bytes);
        let geneve = Geneve::parse(&bytes).expect(golden.name);
        let recorded = golden.dissection();
        assert_eq!(u32::from(geneve.vni()), recorded.vni, "{}", golden.name);
        assert_eq!(
            u32::from(geneve.protocol()),
            recorded.protocol,
            "{}",
            golden.name
        );
        assert_eq!(geneve.is_control(), recorded.control, "{}", golden.name);
        assert_eq!(geneve.has_critical(), recorded.critical, "{}", golden.name);
        let options: Vec<_> = geneve
            .options()
            .map(|o| {
                (
                    u32::from(o.class.0),
                    u32::from(o.kind.0),
                    4 + o.data.len() as u32,
                )
            })
            .collect();
        assert_eq!(options, recorded.options, "{}", golden.name);
        let data: Vec<_> = geneve
            .options()
            .map(|o| hex(o.data))
            .filter(|d| !d.is_empty())
            .collect();
        assert_eq!(data, recorded.data, "{}", golden.name);
        let packet = Packet::parse(geneve.payload()).expect(golden.name);
        let transport = match packet.transport {
            Transport::Tcp { .. } => "tcp",
            Transport::Udp { .. } => "udp",
            Transport::Icmp { .. } => "icmp",
            Transport::Other | Transport::Unavailable => "none",
        };
        assert!(
            recorded.protocols.contains(transport),
            "{}: {transport}",
            golden.name
        );
        assert_eq!(
            packet.checksum_state(geneve.payload()),
            ChecksumState::Valid,
            "{}",
            golden.name
        );
    }
}

#[test]
fn the_recorded_dissections_are_tsharks() {
    let frames: Vec<_> = GOLDEN_CASES
        .iter()
        .map(|golden| underlay(false, &unhex(golden.bytes)))
        .collect();
    let dissected = dissect("golden", &frames);
    assert_eq!(dissected.len(), GOLDEN_CASES.len());
    for (dissected, golden) in dissected.iter().zip(GOLDEN_CASES) {
        assert_eq!(*dissected, golden.dissection(), "{}", golden.name);
    }
}

#[test]
fn tshark_objects_to_what_is_refused_for_its_version_or_option_lengths() {
    let inner = inner_packet("ip:udp:data");
    let refused = [
        "41000800000064000102030400000000",
        "02000800000064000001010200000000",
    ];
    let mut frames = Vec::new();
    for header in refused {
        let bytes = [unhex(header), inner.clone()].concat();
        assert!(Geneve::parse(&bytes).is_err(), "{header}");
        frames.push(underlay(false, &bytes));
    }
    assert!(
        dissect("refused", &frames)
            .iter()
            .all(|dissection| dissection.objections)
    );
}

#[test]
fn icmp_errors_are_what_tshark_dissects() {
    let offenders = [
        ("ip:udp:data", IpAddr::V4(OUTER4.0)),
        ("ipv6:tcp", IpAddr::V6(OUTER6.0)),
    ];
    let errors = [
        (
            IcmpError::TooBig { mtu: 1400 },
            ("3", "4", "1400"),
            ("2", "0", "1400"),
        ),
        (IcmpError::TimeExceeded, ("11", "0", ""), ("3", "0", "")),
        (
            IcmpError::Unreachable(UnreachableReason::Prohibited),
            ("3", "13", ""),
            ("1", "1", ""),
        ),
        (
            IcmpError::Unreachable(UnreachableReason::Port),
            ("3", "3", ""),
            ("1", "4", ""),
        ),
    ];
    let mut frames = Vec::new();
    let mut expected = Vec::new();
    for (error, v4, v6) in errors {
        for (inner, from) in offenders {
            let bytes = inner_packet(inner);
            let packet = Packet::parse(&bytes).expect("our own packet parses");
            let mut out = [0; MAX_V6_ERROR_LEN];
            let len = error
                .build(from, &packet, &bytes, &mut out)
                .expect("it fits");
            frames.push(out[..len].to_vec());
            let (kind, code, mtu) = if from.is_ipv4() { v4 } else { v6 };
            // Type, code, MTU, checksum good, the sources of the error and of what it quotes.
            expected.push([kind, code, mtu, "1", &format!("{from},{}", packet.src)].join("|"));
        }
    }
    let fields = [
        ["icmp.type", "icmpv6.type"],
        ["icmp.code", "icmpv6.code"],
        ["icmp.mtu", "icmpv6.mtu"],
        ["icmp.checksum.status", "icmpv6.checksum.status"],
        ["ip.src", "ipv6.src"],
    ];
    let lines = tshark("icmp", &frames, &fields.concat());
    // One of each pair is empty.
    let lines: Vec<_> = lines
        .iter()
        .map(|line| {
            line.chunks(2)
                .map(<[String]>::concat)
                .collect::<Vec<_>>()
                .join("|")
        })
        .collect();
    assert_eq!(lines, expected);
}

/// A Geneve header to build, and the inner packet behind it.
struct DissectCase {
    vni: u32,
    protocol: u16,
    control: bool,
    options: Vec<(u16, u8, Vec<u8>)>,
    /// The inner packet's protocols as tshark names them.
    inner: &'static str,
}

fn cases() -> Vec<DissectCase> {
    let case = |vni, inner: &'static str, options: Vec<(u16, u8, Vec<u8>)>| {
        let protocol = if inner.starts_with("ipv6") {
            protocol_type::IPV6
        } else {
            protocol_type::IPV4
        };
        DissectCase {
            vni,
            protocol,
            control: false,
            options,
            inner,
        }
    };
    let class = 0xff47;
    vec![
        case(0, "ip:icmp:data", vec![]),
        case(100, "ip:udp:data", vec![(class, 0x01, vec![1, 2, 3, 4])]),
        case(
            0xff_ffff,
            "ipv6:tcp",
            vec![(class, 0x82, (0..120).collect())],
        ),
        case(
            0x12_3456,
            "ipv6:icmpv6:data",
            vec![(class, 1, vec![]), (class, 0x81, vec![9; 8])],
        ),
        case(
            7,
            "ip:udp:data",
            vec![(class, 1, vec![0xaa; 124]), (class, 2, vec![0xbb; 120])],
        ),
        case(
            8,
            "ip:udp:data",
            (0..63).map(|n| (class, n, vec![])).collect(),
        ),
        DissectCase {
            control: true,
            ..case(9, "ip:udp:data", vec![(class, 0xff, vec![1; 4])])
        },
    ]
}

fn builder(case: &DissectCase) -> GeneveBuilder {
    let builder = GeneveBuilder::new(Vni::new(case.vni).expect("24 bits"), case.protocol);
    if case.control {
        builder.control()
    } else {
        builder
    }
}

const OUTER4: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
const OUTER6: (Ipv6Addr, Ipv6Addr) = (
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
);

/// `payload` in UDP to the Geneve port, in IP, with whole checksums.
fn underlay(v6: bool, payload: &[u8]) -> Vec<u8> {
    let udp = udp_header(49_152, GENEVE_PORT, 8 + payload.len() as u16, 0);
    let datagram = [&udp[..], payload].concat();
    if v6 {
        ipv6(OUTER6.0, OUTER6.1, protocol::UDP, &datagram)
    } else {
        ipv4(OUTER4.0, OUTER4.1, protocol::UDP, &datagram)
    }
}

fn inner_packet(protocols: &str) -> Vec<u8> {
    let (src4, dst4) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let (src6, dst6) = (
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
    );
    let echo = |kind| [kind, 0, 0, 0, 0x12, 0x34, 0, 1, 0xca, 0xfe];
    match protocols {
        "ip:icmp:data" => ipv4(src4, dst4, protocol::ICMP, &echo(8)),
        "ipv6:icmpv6:data" => ipv6(src6, dst6, protocol::ICMPV6, &echo(128)),
        "ip:udp:data" => ipv4(
            src4,
            dst4,
            protocol::UDP,
            &[&udp_header(40_000, 40_001, 11, 0)[..], b"abc"].concat(),
        ),
        "ipv6:tcp" => {
            let mut tcp = [0; 20];
            tcp[..4].copy_from_slice(&[0x9c, 0x40, 0x9c, 0x41]);
            tcp[12..16].copy_from_slice(&[0x50, 0x10, 0x20, 0x00]);
            ipv6(src6, dst6, protocol::TCP, &tcp)
        }
        other => panic!("no inner packet {other}"),
    }
}

fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = Ipv4Header {
        identification: 1.into(),
        ..Ipv4Header::new(src, dst, protocol, payload.len() as u16)
    };
    whole([&header.to_bytes()[..], payload].concat())
}

fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let header = Ipv6Header::new(src, dst, next_header, payload.len() as u16);
    whole([&header.to_bytes()[..], payload].concat())
}

/// Fills in the transport checksum.
fn whole(mut bytes: Vec<u8>) -> Vec<u8> {
    let packet = Packet::parse(&bytes).expect("our own packet parses");
    assert!(packet.write_checksum(&mut bytes));
    bytes
}

/// Bytes of a UDP payload, and what tshark 4.0 makes of them.
struct GoldenBytes {
    name: &'static str,
    bytes: &'static str,
    /// Version, O, C, protocol type, VNI.
    base: (u32, bool, bool, u32, u32),
    options: &'static [(u32, u32, u32)],
    data: &'static [&'static str],
    protocols: &'static str,
}

impl GoldenBytes {
    fn dissection(&self) -> Dissection {
        let (version, control, critical, protocol, vni) = self.base;
        Dissection {
            version,
            control,
            critical,
            protocol,
            vni,
            options: self.options.to_vec(),
            data: self.data.iter().map(ToString::to_string).collect(),
            protocols: self.protocols.to_owned(),
            objections: false,
        }
    }
}

const GOLDEN_CASES: &[GoldenBytes] = &[
    GoldenBytes {
        name: "no options, IPv4 echo request",
        bytes: "00000800000064004500001c00014000400126de0a0000010a0000020800e5ca12340001",
        base: (0, false, false, 0x0800, 100),
        options: &[],
        data: &[],
        protocols: "raw:ip:udp:geneve:ip:icmp",
    },
    GoldenBytes {
        name: "a plain and a critical option, IPv4 UDP",
        bytes: "0540080012345600ff47010101020304ff47820205060708090a0b0c\
                4500001f00014000401126cb0a0000010a0000029c409c41000beef0616263",
        base: (0, false, true, 0x0800, 0x12_3456),
        options: &[(0xff47, 0x01, 8), (0xff47, 0x82, 12)],
        data: &["01020304", "05060708090a0b0c"],
        protocols: "raw:ip:udp:geneve:ip:udp:data",
    },
    GoldenBytes {
        name: "a control message with C set by hand, IPv6 echo request",
        bytes: "01c086ddffffff00ffff7f00\
                6000000000083a40fd000000000000000000000000000001fd000000000000000000000000000002\
                8000738312340001",
        base: (0, true, true, 0x86dd, 0xff_ffff),
        options: &[(0xffff, 0x7f, 4)],
        data: &[],
        protocols: "raw:ip:udp:geneve:ipv6:icmpv6",
    },
];

/// Runs tshark over `frames`, each an IP packet, and gives one dissection a frame.
fn dissect(name: &str, frames: &[Vec<u8>]) -> Vec<Dissection> {
    let fields = [
        "geneve.version",
        "geneve.flags.oam",
        "geneve.flags.critical",
        "geneve.proto_type",
        "geneve.vni",
        "geneve.option.class",
        "geneve.option.type",
        "geneve.option.length",
        "geneve.option.unknown.data",
        "frame.protocols",
        "_ws.malformed",
        "geneve.version.unknown",
        "geneve.option.length.invalid",
        "ip.checksum.status",
        "udp.checksum.status",
        "tcp.checksum.status",
        "icmp.checksum.status",
        "icmpv6.checksum.status",
    ];
    let read = |line: &Vec<String>| {
        let numbers = |at: usize| {
            line[at]
                .split(',')
                .filter(|s| !s.is_empty())
                .map(number)
                .collect::<Vec<_>>()
        };
        let one = |at: usize| numbers(at).first().copied().unwrap_or(u32::MAX);
        let (classes, kinds, mut lengths) = (numbers(5), numbers(6), numbers(7));
        // The first length is that of the whole list.
        if lengths.len() > classes.len() {
            lengths.remove(0);
        }
        let bad_checksum = line[13..]
            .iter()
            .any(|states| states.split(',').any(|state| state == "0"));
        Dissection {
            version: one(0),
            control: one(1) == 1,
            critical: one(2) == 1,
            protocol: one(3),
            vni: one(4),
            options: classes
                .iter()
                .zip(kinds)
                .zip(lengths)
                .map(|((c, k), l)| (*c, k, l))
                .collect(),
            // An option without data has a placeholder in some versions.
            data: line[8]
                .split(',')
                .filter(|data| !matches!(*data, "" | "<MISSING>"))
                .map(str::to_owned)
                .collect(),
            protocols: line[9].clone(),
            objections: bad_checksum || line[10..13].iter().any(|field| !field.is_empty()),
        }
    };
    tshark(name, frames, &fields).iter().map(read).collect()
}

/// A number as tshark prints it: decimal, hexadecimal or, in newer versions, a truth value.
fn number(text: &str) -> u32 {
    let parsed = match (text, text.strip_prefix("0x")) {
        ("True", _) => Ok(1),
        ("False", _) => Ok(0),
        (_, Some(hex)) => u32::from_str_radix(hex, 16),
        (decimal, None) => decimal.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("tshark printed {text:?} for a number"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| {
            let pair = str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(pair, 16).expect("hexadecimal")
        })
        .collect()
}
