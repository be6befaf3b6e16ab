//! Receive steering: a BPF program chooses the receiving socket for each datagram (`SO_ATTACH_REUSEPORT_CBPF`).
//!
//! The sockets of a port share it, and each has its own queue in the kernel, so that a flood fills only the queue
//! that it belongs to. The program looks at the VNI, which Geneve and VXLAN have at the same offset, and at the outer
//! source: a VPC has as many sockets per worker as are available to it, and one source always uses the same ones.
//! Datagrams of no VPC of the port, or too short to tell, go to a single socket, the first. A flow's source port
//! selects the worker.

use std::io;
use std::os::fd::AsRawFd;

use libc::sock_filter;
use libgeneve::wire::geneve::Vni;
use socket2::Socket;

use super::udp::AddressFamily;

// linux/filter.h, linux/bpf_common.h
const LD_W_ABS: u16 = 0x20;
const LD_H_ABS: u16 = 0x28;
const LD_H_IND: u16 = 0x48;
const LD_MEM: u16 = 0x60;
const LDX_MEM: u16 = 0x61;
const LDX_MSH: u16 = 0xb1;
const ST: u16 = 0x02;
const ADD_K: u16 = 0x04;
const ADD_X: u16 = 0x0c;
const MUL_K: u16 = 0x24;
const AND_K: u16 = 0x54;
const RSH_K: u16 = 0x74;
const MOD_K: u16 = 0x94;
const XOR_X: u16 = 0xac;
const JA: u16 = 0x05;
const JGT_K: u16 = 0x25;
const JGE_K: u16 = 0x35;
const JEQ_K: u16 = 0x15;
const RET_K: u16 = 0x06;
const RET_A: u16 = 0x16;
const TAX: u16 = 0x07;
/// Base of offsets that count from the network header.
const NET: u32 = -0x10_0000_i32 as u32;
/// Offset of the packet type: for this host (`PACKET_HOST`, 0), broadcast or multicast.
const PACKET_TYPE: u32 = (-0x1000_i32 + 4) as u32;
/// Maximum number of instructions in a program (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;
/// Multiplier that spreads source ports over workers: 2³² divided by the golden ratio.
const GOLDEN_RATIO: u32 = 0x9e37_79b1;
/// Placeholder jump offset in the VNI tree for "to the end", until the distance is known.
const TO_END: u32 = u32::MAX;

/// Layout of the sockets of one port and family: the socket of no VPC comes first, then for each place one socket per
/// worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SocketLayout {
    pub(super) family: AddressFamily,
    /// Number of workers, at least 1.
    pub(super) workers: u32,
    /// Number of sockets per worker for the VPCs of the port, at least 1.
    pub(super) places: u32,
}

/// Range of consecutive VNIs, and the number of VNIs before it.
#[derive(Clone, Copy, Debug)]
struct VniRun {
    first: u32,
    last: u32,
    rank: u32,
}

const fn op(code: u16, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

impl SocketLayout {
    /// Returns the program for these VNIs, which must be sorted and distinct. If there are too many separate ranges
    /// for one program, VNIs are spread by hash instead, including unknown ones.
    pub(super) fn program(&self, vnis: &[Vni]) -> Vec<sock_filter> {
        let tree = tree(&runs(vnis));
        let program = self.assemble(vnis.len(), &tree);
        if program.len() <= MAX_INSTRUCTIONS {
            return program;
        }
        self.scattered()
    }

    /// Returns the program that does not check whether a VNI is known.
    pub(super) fn scattered(&self) -> Vec<sock_filter> {
        self.assemble(usize::MAX, &[op(MUL_K, GOLDEN_RATIO), op(RSH_K, 8)])
    }

    /// Number of sockets per worker for each of `vnis` VPCs: a power of two, over which its sources are spread.
    fn for_each_vpc(&self, vnis: usize) -> u32 {
        let share = usize::try_from(self.places).unwrap_or(usize::MAX) / vnis.max(1);
        1 << (share as u32).max(1).ilog2()
    }

    /// Assembles a program; `rank` maps the VNI to a number that spreads VPCs.
    fn assemble(&self, vnis: usize, rank: &[sock_filter]) -> Vec<sock_filter> {
        let each = self.for_each_vpc(vnis);
        let mut program = self.source();
        program.extend([op(AND_K, each - 1), op(MUL_K, self.workers), op(ST, 0)]);
        if self.workers > 1 {
            program.extend(self.worker());
        }
        // If a datagram ends before its VNI, the program ends here and returns 0. It also returns 0 for an unknown
        // VNI.
        program.extend([op(LDX_MEM, 0), op(LD_W_ABS, 4), op(RSH_K, 8)]);
        program.extend(rank);
        let whole = self.places - self.places % each;
        program.extend([
            op(MUL_K, each),
            op(MOD_K, whole),
            op(MUL_K, self.workers),
            op(ADD_K, 1),
            op(ADD_X, 0),
            op(RET_A, 0),
        ]);
        program
    }

    /// Hashes the outer source to eight bits, so that adjacent addresses differ.
    fn source(&self) -> Vec<sock_filter> {
        let mut program = match self.family {
            AddressFamily::V4 => vec![op(LD_W_ABS, NET + 12)],
            AddressFamily::V6 => {
                let mut words = vec![op(LD_W_ABS, NET + 8)];
                for at in [12, 16, 20] {
                    words.extend([op(TAX, 0), op(LD_W_ABS, NET + at), op(XOR_X, 0)]);
                }
                words
            }
        };
        for bits in [16, 8] {
            program.extend([op(TAX, 0), op(RSH_K, bits), op(XOR_X, 0)]);
        }
        program
    }

    /// Adds the worker's number to the stored value.
    fn worker(&self) -> Vec<sock_filter> {
        let port = match self.family {
            AddressFamily::V4 => vec![op(LDX_MSH, NET), op(LD_H_IND, NET)],
            AddressFamily::V6 => vec![op(LD_H_ABS, NET + 40)],
        };
        let spread = [
            op(MUL_K, GOLDEN_RATIO),
            op(RSH_K, 16),
            op(MOD_K, self.workers),
        ];
        let add = [op(TAX, 0), op(LD_MEM, 0), op(ADD_X, 0), op(ST, 0)];
        [port, spread.to_vec(), add.to_vec()].concat()
    }
}

/// Has the kernel steer the datagrams of this socket's group by these VNIs, which must be sorted and distinct.
///
/// # Errors
/// If the kernel lacks such programs or a sandbox forbids them. The kernel then spreads datagrams by addresses and
/// ports.
pub(super) fn steer(socket: &Socket, layout: &SocketLayout, vnis: &[Vni]) -> io::Result<()> {
    const OPTION: i32 = libc::SO_ATTACH_REUSEPORT_CBPF;
    match attach(socket, OPTION, &layout.program(vnis)) {
        // A long program exceeds net.core.optmem_max.
        Err(e) if e.raw_os_error() == Some(libc::ENOMEM) => {
            attach(socket, OPTION, &layout.scattered())
        }
        other => other,
    }
}

/// Restricts the socket to unicast datagrams for this host. A broadcast or multicast datagram reaches every socket of
/// its port, but only one of them should deliver it.
///
/// # Errors
/// If the kernel has no socket filters.
pub(super) fn refuse_groups(socket: &Socket) -> io::Result<()> {
    const FOR_HOST_ALONE: [sock_filter; 4] = [
        op(LD_W_ABS, PACKET_TYPE),
        jump(JEQ_K, 0, 0, 1),
        op(RET_K, u32::MAX),
        op(RET_K, 0),
    ];
    attach(socket, libc::SO_ATTACH_FILTER, &FOR_HOST_ALONE)
}

fn attach(socket: &Socket, option: i32, program: &[sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads `len` instructions, which live until the call returns, and modifies none of them.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn runs(vnis: &[Vni]) -> Vec<VniRun> {
    let mut runs: Vec<VniRun> = Vec::new();
    for (rank, vni) in (0..).zip(vnis.iter().map(|vni| u32::from(*vni))) {
        match runs.last_mut() {
            Some(run) if run.last + 1 == vni => run.last = vni,
            _ => runs.push(VniRun {
                first: vni,
                last: vni,
                rank,
            }),
        }
    }
    runs
}

/// Maps the VNI to its rank among the known ones; the program returns 0 if it is not known.
fn tree(runs: &[VniRun]) -> Vec<sock_filter> {
    let Some(lowest) = runs.first() else {
        return vec![op(RET_K, 0)];
    };
    let mut program = vec![jump(JGE_K, lowest.first, 1, 0), op(RET_K, 0)];
    program.extend(branch(runs));
    let end = program.len();
    for (at, step) in program.iter_mut().enumerate() {
        if step.code == JA && step.k == TO_END {
            step.k = (end - at - 1) as u32;
        }
    }
    program
}

/// Binary search for the last range that starts at or below the VNI, then a check that the range contains it.
fn branch(runs: &[VniRun]) -> Vec<sock_filter> {
    if let [run] = runs {
        return vec![
            jump(JGT_K, run.last, 0, 1),
            op(RET_K, 0),
            op(ADD_K, run.rank.wrapping_sub(run.first)),
            op(JA, TO_END),
        ];
    }
    let (low, high) = runs.split_at(runs.len() / 2);
    let below = branch(low);
    let mut program = match u8::try_from(below.len()) {
        Ok(over) => vec![jump(JGE_K, high[0].first, over, 0)],
        Err(_) => vec![jump(JGE_K, high[0].first, 0, 1), op(JA, below.len() as u32)],
    };
    program.extend(below);
    program.extend(branch(high));
    program
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
    use std::time::Duration;

    use super::*;
    use crate::io::udp;

    fn vnis(numbers: impl IntoIterator<Item = u32>) -> Vec<Vni> {
        numbers
            .into_iter()
            .map(|vni| Vni::try_from(vni).unwrap())
            .collect()
    }

    /// Sockets of a port, and the address to send to.
    struct ReuseportGroup {
        layout: SocketLayout,
        sockets: Vec<UdpSocket>,
        to: SocketAddr,
    }

    impl ReuseportGroup {
        fn new(family: AddressFamily, workers: u32, places: u32) -> Self {
            let layout = SocketLayout {
                family,
                workers,
                places,
            };
            let free = UdpSocket::bind((family.unspecified(), 0)).unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let open = |number| -> UdpSocket {
                let socket = udp::receiver(family, port, false, number == 0).unwrap();
                socket.set_nonblocking(true).unwrap();
                socket.into()
            };
            let sockets = (0..=workers * places).map(open).collect();
            let to = match family {
                AddressFamily::V4 => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
                AddressFamily::V6 => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port),
            };
            ReuseportGroup {
                layout,
                sockets,
                to,
            }
        }

        fn steer(&self, vnis: &[Vni]) {
            let first = self.sockets[0].try_clone().unwrap();
            steer(&first.into(), &self.layout, vnis).unwrap();
        }

        /// Sends a datagram and returns the number of the socket that it is queued on.
        fn takes(&self, from: &UdpSocket, datagram: &[u8]) -> usize {
            from.send_to(datagram, self.to).unwrap();
            let mut buffer = [0; 64];
            for _ in 0..1000 {
                for (number, socket) in self.sockets.iter().enumerate() {
                    if socket.recv(&mut buffer).is_ok() {
                        return number;
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            panic!("the datagram got lost");
        }

        fn from(&self, address: &str) -> UdpSocket {
            UdpSocket::bind(format!("{address}:0")).unwrap()
        }
    }

    fn datagram(vni: u32) -> Vec<u8> {
        [&[0, 0, 8, 0][..], &(vni << 8).to_be_bytes(), &[0; 20]].concat()
    }

    #[test]
    fn every_vpc_has_its_own_sockets_and_nobody_has_one_too() {
        let known = [5, 6, 7, 100, 0xff_ffff];
        for (family, address) in [
            (AddressFamily::V4, "127.0.0.1"),
            (AddressFamily::V6, "[::1]"),
        ] {
            let group = ReuseportGroup::new(family, 1, 8);
            group.steer(&vnis(known));
            let from = group.from(address);
            let taken: Vec<_> = known.map(|vni| group.takes(&from, &datagram(vni))).into();
            let mut differ = taken.clone();
            differ.sort_unstable();
            differ.dedup();
            assert_eq!(differ.len(), known.len(), "{taken:?}");
            assert!(!taken.contains(&0), "{taken:?}");
            for vni in [0, 4, 8, 99, 101, 0xff_fffe] {
                assert_eq!(group.takes(&from, &datagram(vni)), 0, "VNI {vni}");
            }
            for short in [0, 1, 7] {
                assert_eq!(group.takes(&from, &datagram(5)[..short]), 0);
            }
            group.steer(&[]);
            assert_eq!(group.takes(&from, &datagram(5)), 0);
        }
    }

    #[test]
    fn a_source_has_one_socket_of_its_vpc_and_its_neighbour_another() {
        let group = ReuseportGroup::new(AddressFamily::V4, 1, 8);
        group.steer(&vnis([10, 20]));
        let sources = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"].map(|a| group.from(a));
        for vni in [10, 20] {
            let mut taken = sources
                .each_ref()
                .map(|from| group.takes(from, &datagram(vni)));
            assert_eq!(
                taken,
                sources
                    .each_ref()
                    .map(|from| group.takes(from, &datagram(vni)))
            );
            taken.sort_unstable();
            let first = if vni == 10 { 1 } else { 5 };
            assert_eq!(taken, [first, first + 1, first + 2, first + 3]);
        }
    }

    #[test]
    fn ports_are_spread_over_the_workers_and_a_flow_stays_with_one() {
        for (family, address) in [
            (AddressFamily::V4, "127.0.0.1"),
            (AddressFamily::V6, "[::1]"),
        ] {
            let group = ReuseportGroup::new(family, 3, 2);
            group.steer(&vnis([10, 20]));
            let mut seen = [0; 3];
            for _ in 0..60 {
                let from = group.from(address);
                let [first, second, other] =
                    [10, 10, 20].map(|vni| group.takes(&from, &datagram(vni)));
                assert_eq!(first, second);
                assert_eq!((first - 1) % 3, (other - 1) % 3, "another worker");
                assert_ne!(first, other);
                seen[(first - 1) % 3] += 1;
            }
            assert!(seen.iter().all(|&count| count > 0), "{seen:?}");
        }
    }

    #[test]
    fn many_vpcs_share_evenly_and_what_is_too_much_for_a_program_is_scattered() {
        let group = ReuseportGroup::new(AddressFamily::V4, 1, 4);
        let from = group.from("127.0.0.1");
        for step in [1, 3, 1000] {
            let known = vnis((1..=700).map(|at| at * step));
            group.steer(&known);
            let mut counts = [0; 5];
            for vni in &known {
                counts[group.takes(&from, &datagram((*vni).into()))] += 1;
            }
            assert_eq!(counts, [0, 175, 175, 175, 175], "every {step}th VNI");
        }
        let known = vnis((1..=5000).map(|at| at * 7));
        group.steer(&known);
        let mut counts = [0; 5];
        for vni in &known[..400] {
            counts[group.takes(&from, &datagram((*vni).into()))] += 1;
        }
        assert!(counts[1..].iter().all(|&count| count > 50), "{counts:?}");
    }
}
