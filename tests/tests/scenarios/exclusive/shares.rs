//! Resources shared by tenants: a greedy tenant cannot take a modest one's guaranteed share, with the real binary.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use geneved::lab::netns::LabNetns;
use geneved_tests::packet::{Parsed, RawGeneve, ip, option, pseudo, sum, udp};
use geneved_tests::peer::Peer;
use geneved_tests::sniffer::Sniffer;
use geneved_tests::trio::{EchoConnection, EchoServer, endpoint};
use geneved_tests::world::{Duo, TestBackend, UnderlayFamily, link};
use geneved_tests::{eventually, on_both_backends};
use nix::libc;
use nix::sys::socket::{LinkAddr, MsgFlags, recvfrom, sendto, setsockopt};
use nix::{setsockopt_impl, sockopt_impl};
use socket2::{Domain, Protocol, Socket, Type};

const GREEDY_VNI: u32 = 100;
const MODEST_VNI: u32 = 200;
/// What a modest tenant asks for.
const ASKED: u16 = 20;

const SYN_BIT: u8 = 0x02;
const ACK_BIT: u8 = 0x10;

/// An inner TCP segment.
fn tcp(
    [from, to]: [&str; 2],
    ports: (u16, u16),
    flags: u8,
    (seq, ack): (u32, u32),
    payload: &[u8],
) -> Vec<u8> {
    let [from, to]: [IpAddr; 2] = [from, to].map(|text| text.parse().unwrap());
    let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    segment.extend(payload);
    let total = sum(pseudo(from, to, 6, segment.len()), &segment);
    let check = !(total as u16);
    segment[16..18].copy_from_slice(&check.to_be_bytes());
    ip(from, to, 6, &segment)
}

/// A datagram that carries an Ethernet frame.
fn framed(vni: u32, dst: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&dst[..], &[2, 0, 0, 0, 0, 2]].concat();
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    let mut header = RawGeneve::new(vni);
    header.protocol = 0x6558;
    header.datagram(&frame)
}

/// Who has this address?
fn arp(from: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2];
    bytes.extend(from);
    bytes.extend([0; 6]);
    bytes.extend(target);
    bytes
}

/// All that a socket has got: the VNI and the Ethernet frame, or the IP packet.
fn received(socket: &UdpSocket) -> Vec<(u32, Vec<u8>)> {
    socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 3000];
    let mut all = Vec::new();
    while let Ok(len) = socket.recv(&mut buffer) {
        let start = 8 + 4 * usize::from(buffer[0] & 0x3f);
        let vni = u32::from_be_bytes([0, buffer[4], buffer[5], buffer[6]]);
        all.push((vni, buffer[start..len].to_vec()));
    }
    all
}

const LLADDR: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];

/// A rule of a link that refuses what is for the port 9, with an answer.
fn reject(dev: &str) -> String {
    format!(
        "[[policy]]\nname = \"no\"\ndev = \"{dev}\"\ndirection = \"ingress\"\nproto = \"udp\"\ndport = \"9\"\naction = \"reject\"\n"
    )
}

on_both_backends! {
    /// Thousands of questions and refused packets a second of one VPC leave another every answer.
    fn a_greedy_vpc_takes_no_answer_from_a_modest_one(io) {
        let inner = "inner = \"ethernet\"\nlladdr = \"02:00:00:00:00:aa\"\n";
        let modest = format!("remote = \"192.0.2.2\"\n{inner}");
        let tables = inner.to_owned()
            + &link("gnv1", MODEST_VNI, &["10.1.0.1/24"], &modest)
            + &reject("gnv0")
            + &reject("gnv1");
        let peer = Peer::on(Duo::new(), io, UnderlayFamily::V4, &tables);
        let question = framed(GREEDY_VNI, [0xff; 6], 0x0806, &arp([10, 0, 0, 2], [10, 0, 0, 1]));
        let (_, refused) = peer.inner();
        let refused = framed(GREEDY_VNI, LLADDR, 0x0800, &refused);
        let (mut answered, mut told, mut greedy) = (0, BTreeSet::new(), 0_u32);
        let mut sort = |socket: &UdpSocket| {
            for (vni, frame) in received(socket) {
                if vni != MODEST_VNI {
                    greedy += 1;
                } else if frame[12..14] == [8, 6] && frame[21] == 2 {
                    answered += 1;
                } else if let Some(packet) = Parsed::new(&frame[14..])
                    && packet.protocol == 1
                {
                    // Behind the ICMP header is the IP header of what it quotes, and then the ports.
                    let at = 14 + 20 + 8 + 20;
                    told.insert(u16::from_be_bytes([frame[at], frame[at + 1]]));
                }
            }
        };
        let start = Instant::now();
        let mut asked = 0;
        for step in 0..300_u32 {
            // 3,000 questions a second, on a machine that keeps up.
            for number in 0..30 {
                peer.send(&question);
                if number % 3 == 0 {
                    peer.send(&refused);
                }
            }
            if step % 15 == 14 && asked < ASKED {
                asked += 1;
                let question = arp([10, 1, 0, 2], [10, 1, 0, 1]);
                peer.send(&framed(MODEST_VNI, [0xff; 6], 0x0806, &question));
                let (_, packet) = peer.inner_between(["10.1.0.2", "10.1.0.1"]);
                peer.send(&framed(MODEST_VNI, LLADDR, 0x0800, &packet));
            }
            std::thread::sleep(Duration::from_millis(10));
            sort(&peer.socket);
        }
        let seconds = start.elapsed().as_secs_f64();
        std::thread::sleep(Duration::from_millis(300));
        sort(&peer.socket);
        let drops = peer.daemon.drops();
        assert_eq!((answered, told.len()), (ASKED, usize::from(ASKED)), "{drops:?}");
        // 1,000 questions and 200 refusals a second, and as many at once.
        assert!(f64::from(greedy) <= 1200.0 * (seconds + 2.0), "{greedy} in {seconds} s");
        for reason in ["neighbor-unanswered", "policy-rejected-unanswered"] {
            assert!(drops.contains_key(&format!("gnv0/ingress/{reason}")), "{drops:?}");
            assert!(!drops.contains_key(&format!("gnv1/ingress/{reason}")), "{drops:?}");
        }
        // What is said to be answered was, as far as this end could read it.
        let consumed = peer.daemon.link("gnv0")["consumed"]["ingress"]["neighbor-answered"].as_u64();
        let rejected = drops.get("gnv0/ingress/policy-rejected").copied();
        let counted = consumed.unwrap_or(0) + rejected.unwrap_or(0);
        assert!(counted <= u64::from(greedy) * 11 / 10, "{counted} of {greedy}");
    }

    /// 40,000 connections of one consumer leave another its ports, and one address leaves those of its own VPC theirs.
    fn a_greedy_consumer_of_a_proxied_endpoint_leaves_ports_to_others(io) {
        let proxied = "type = \"proxied\"\ntarget = \"172.16.0.3@gnv1\"";
        let remote = "remote = \"192.0.2.2\"";
        let tables = endpoint("gnv0", "10.0.0.50", None, proxied)
            + &link("gnv1", 300, &["172.16.0.1/24"], "")
            + &endpoint("gnv1", "172.16.0.3", Some("192.0.2.2"), "")
            + &link("gnv2", MODEST_VNI, &["10.1.0.1/24"], remote)
            + &endpoint("gnv2", "10.1.0.50", None, proxied);
        let peer = Peer::on(Duo::new(), io, UnderlayFamily::V4, &tables);
        let header = |vni| RawGeneve {
            // To a proxied endpoint.
            options: option(0xff47, 0x01, &[3, 0, 0, 0]),
            ..RawGeneve::new(vni)
        };
        let syn = |between, ports| tcp(between, ports, SYN_BIT, (1, 0), &[]);
        for number in 0..40_000_u16 {
            let segment = syn(["10.0.0.2", "10.0.0.50"], (number + 1024, 7000));
            peer.send(&header(GREEDY_VNI).datagram(&segment));
            if number % 32 == 0 {
                std::thread::sleep(Duration::from_millis(1));
                received(&peer.socket);
            }
        }
        eventually(10, "the greedy one is refused", || {
            peer.daemon.drops().contains_key("gnv0/ingress/nat-exhausted")
        });
        received(&peer.socket);
        let mut through = BTreeSet::new();
        for number in 0..ASKED {
            let segment = syn(["10.1.0.2", "10.1.0.50"], (number + 1024, 7001));
            peer.send(&header(MODEST_VNI).datagram(&segment));
            // Another address of the greedy VPC.
            let segment = syn(["10.0.0.3", "10.0.0.50"], (number + 1024, 7002));
            peer.send(&header(GREEDY_VNI).datagram(&segment));
        }
        eventually(5, "every connection goes on", || {
            for (vni, packet) in received(&peer.socket) {
                let parsed = Parsed::new(&packet).unwrap();
                if vni == 300 && parsed.protocol == 6 && parsed.from.to_string() == "172.16.0.1" {
                    through.insert((packet[20..22].to_vec(), packet[22..24].to_vec()));
                }
            }
            let to = |port: u16| through.iter().filter(|(_, dport)| *dport == port.to_be_bytes()).count();
            to(7001) == usize::from(ASKED) && to(7002) == usize::from(ASKED)
        });
        assert!(!peer.daemon.drops().contains_key("gnv2/ingress/nat-exhausted"));
        let shown = peer.daemon.json("-s endpoint show 10.1.0.50");
        assert_eq!((&shown[0]["in_use"], &shown[0]["total"]), (&20.into(), &8192.into()), "{shown}");
        let shown = peer.daemon.json("-s endpoint show 10.0.0.50");
        assert!(shown[0]["in_use"].as_u64() >= Some(4096), "{shown}");
        assert!(peer.daemon.cli("-s endpoint show 10.1.0.50").contains("ports in use 20 of 8192"));
    }

    /// A table full of one tenant's connections has room for a link that is made later.
    fn a_link_made_later_finds_room_in_a_full_flow_table(io) {
        const SHARE_FLOWS: u16 = 1024;
        // A few less: who goes through more than fit, in turn, finds none of them.
        const CONNECTIONS: u16 = 1000;
        let duo = Duo::new();
        let socket = Peer::bind(&duo, SocketAddr::new(Duo::underlay(UnderlayFamily::V4, 1), 6081));
        let tables = link("gnv0", GREEDY_VNI, &["10.0.0.1/24"], "remote = \"192.0.2.2\"")
            + &endpoint("gnv0", "10.0.0.77", None, "");
        let daemon = duo.world.daemon(&duo.a, io, &format!("flows = {SHARE_FLOWS}"), &tables);
        let target = SocketAddr::new(Duo::underlay(UnderlayFamily::V4, 0), 6081);
        let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)));
        let raw = duo.a.netns().run(raw).unwrap().unwrap();
        let wire = |vni, inner: &[u8]| {
            socket.send_to(&RawGeneve::new(vni).datagram(inner), target).unwrap();
        };
        let there: SocketAddr = "10.0.0.2:0".parse().unwrap();
        let (far, near) = (["10.0.0.2", "10.0.0.77"], ["10.0.0.77", "10.0.0.2"]);
        // Both ends are the tenant's, and acknowledge what nobody sent.
        for number in 1..=CONNECTIONS {
            wire(GREEDY_VNI, &tcp(far, (number, 80), ACK_BIT, (7, 7), &[]));
            raw.send_to(&tcp(near, (80, number), ACK_BIT, (7, 7), &[]), &there.into()).unwrap();
            if number % 16 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let count = |words: &str| daemon.json(words).as_array().unwrap().len();
        eventually(5, "the table is full", || count("flow show dev gnv0") >= usize::from(CONNECTIONS) * 9 / 10);
        assert_eq!(count("flow show dev gnv0 state established"), 0, "by bare ACKs");
        // Real ones are worth their long life: data of both ends, and the acknowledgement of each.
        let data = b"0123456789";
        let each = |send: &dyn Fn(u16)| {
            for number in 1..=CONNECTIONS {
                send(number);
                if number % 16 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            // TUN and socket are read apart from each other.
            std::thread::sleep(Duration::from_millis(300));
        };
        each(&|number| wire(GREEDY_VNI, &tcp(far, (number, 80), ACK_BIT, (1000, 50), data)));
        each(&|number| {
            let segment = tcp(near, (80, number), ACK_BIT, (50, 1010), data);
            raw.send_to(&segment, &there.into()).unwrap();
        });
        each(&|number| wire(GREEDY_VNI, &tcp(far, (number, 80), ACK_BIT, (1010, 60), &[])));
        eventually(5, "they are established", || {
            count("flow show dev gnv0 state established") >= usize::from(CONNECTIONS) * 9 / 10
        });
        daemon.cli("link add gnv1 type geneve id 200 remote 192.0.2.2 address 10.1.0.1/24");
        let tun = Sniffer::new(duo.a.netns(), "gnv1");
        for port in 1..=200_u16 {
            let [from, to]: [IpAddr; 2] = ["10.1.0.2", "10.1.0.1"].map(|text| text.parse().unwrap());
            wire(MODEST_VNI, &udp((from, port), (to, 9), b"modest"));
            let came = tun.find(Duration::from_secs(3), |bytes| {
                let (source, _, _) = Parsed::new(bytes)?.udp()?;
                (source == port).then_some(())
            });
            assert!(came.is_some(), "{port}: {:?}", daemon.drops());
        }
        assert!(count("flow show dev gnv1") >= 200);
        assert!(!daemon.drops().contains_key("gnv1/ingress/flow-table-full"), "{:?}", daemon.drops());
        // Nobody else's are touched beyond that.
        assert!(count("flow show dev gnv0") >= usize::from(CONNECTIONS) * 9 / 10 - 300);
    }
}

/// What the kernel counted on the device for tunnel GSO.
fn handed_over(host: &LabNetns) -> u64 {
    let text = host.ip("-json -statistics link show gnvgso0").unwrap();
    let links: serde_json::Value = serde_json::from_str(&text).unwrap();
    links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

const PACKET_VNET_HDR: libc::c_int = 15;

sockopt_impl!(
    /// Each packet begins with a virtio header (linux/if_packet.h, `PACKET_VNET_HDR`).
    VirtioHeaders,
    SetOnly,
    libc::SOL_PACKET,
    PACKET_VNET_HDR,
    bool
);

/// Sends super-packets into a TUN interface with virtio headers of the sender's own.
fn forge(host: &LabNetns, device: &str, packets: &[Vec<u8>]) -> usize {
    let send = || {
        let everything = Protocol::from(i32::from(0x0003_u16.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(everything)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        let index = nix::net::if_::if_nametoindex(device).unwrap() as usize;
        // An interface without a link-layer address is named by what was seen of it.
        let poke = UdpSocket::bind("0.0.0.0:0").unwrap();
        poke.send_to(b"poke", "10.0.0.2:9").unwrap();
        let mut buffer = [0; 3000];
        let address = loop {
            let (_, from) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer).unwrap();
            if let Some(from) = from.filter(|from| from.ifindex() == index) {
                break from;
            }
        };
        setsockopt(&socket, VirtioHeaders, &true).expect("PACKET_VNET_HDR");
        let sent = packets.iter().filter(|packet| {
            sendto(socket.as_raw_fd(), packet, &address, MsgFlags::empty()).is_ok()
        });
        sent.count()
    };
    host.netns().run(send).unwrap()
}

/// Virtio headers that no kernel would write: one tenant sends them, and another's super-packets are still handed over.
#[test]
fn forged_virtio_headers_switch_tunnel_gso_off_for_nobody_else() {
    let duo = Duo::new();
    let start = |side: usize, host: &LabNetns| {
        let remote = format!(
            "remote = \"{}\"",
            Duo::underlay(UnderlayFamily::V4, 1 - side)
        );
        let tables = link(
            "gnv0",
            GREEDY_VNI,
            &[&format!("10.0.0.{}/24", side + 1)],
            &remote,
        ) + &link(
            "gnv1",
            MODEST_VNI,
            &[&format!("10.1.0.{}/24", side + 1)],
            &remote,
        );
        let daemon = "segmentation = \"tunnel\"\nworkers = 1";
        duo.world.daemon(host, TestBackend::Uring, daemon, &tables)
    };
    let (mut a, _b) = (start(0, &duo.a), start(1, &duo.b));
    // As long as what is handed over: the segments fill the link's MTU.
    let mtu = a.link("gnv0")["mtu"].as_u64().unwrap() as u16;
    let inner = tcp(
        ["10.0.0.1", "10.0.0.2"],
        (999, 7000),
        ACK_BIT,
        (1, 1),
        &[0xff; 30_000],
    );
    let mut packets = Vec::new();
    for round in 0..200_u16 {
        for (kind, start, offset, header) in [
            (1_u8, 20, 16, 40_u16),
            (4, 20, 16, 40),
            // Where the kernel would take the TCP header to be, it is so long that no segment passes.
            (1, 28, 16, 60),
            (1, 22, 16, 40),
            (1, 20, 6, 40),
            (1, 20, 16, 0),
            (1, 20, 16, 20_000),
            (5, 20, 16, 40),
            (1, 60 + round, 2, 40),
        ] {
            let mut packet = vec![1, kind];
            for word in [header, mtu - 40, start, offset] {
                packet.extend(word.to_ne_bytes());
            }
            packet.extend(&inner);
            packets.push(packet);
        }
    }
    let sent = forge(&duo.a, "gnv0", &packets);
    assert!(sent > 0, "the kernel takes some of them");
    let _server = EchoServer::start(&duo.b, 7000, "b");
    let mut modest = EchoConnection::open(&duo.a, "10.1.0.2:7000").unwrap();
    assert!(modest.carries(2_000_000));
    let before = handed_over(&duo.a);
    assert!(before > 10, "{before} were handed over");
    forge(&duo.a, "gnv0", &packets);
    assert!(modest.carries(5_000_000), "{:?}", a.drops());
    let after = handed_over(&duo.a);
    assert!(
        after > before + 20,
        "{before}, then {after} were handed over"
    );
    let log = a.process().log();
    assert!(!log.contains("super-packets of gnv1"), "{log}");
    a.assert_alive();
}
