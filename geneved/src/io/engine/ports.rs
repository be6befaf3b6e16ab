//! UDP ports that the workers listen on, and their sockets.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use libgeneve::vpc::Tables;
use libgeneve::wire::geneve::Vni;
use socket2::Socket;

use super::{Engine, EngineState, StartError};
use crate::io::descriptors::DescriptorBudget;
use crate::io::steering::{SocketLayout, steer};
use crate::io::udp::{self, AddressFamily, RxSocket};
use crate::io::worker::WorkerCommand;

/// Sockets per worker for the VPCs of a port and family if the VPCs are few; each VPC then has several, which its
/// sources are spread over.
const PLACES: u32 = 16;
/// Maximum if there are many VPCs; beyond that they share sockets.
const MOST_PLACES: u32 = 256;
/// Limit for all receiving sockets together, beyond the minimum of each port; they also take at most this fraction of
/// the descriptor limit.
const MOST_SOCKETS: u64 = 2048;
const PART_OF_DESCRIPTORS: u64 = 16;

/// An open socket, and the number of the worker that will read it.
type UnreadSocket = (usize, RxSocket);

/// Open port that the workers listen on.
#[derive(Debug)]
pub(super) struct OpenPort {
    port: u16,
    zero_checksum6: bool,
    /// Sockets by address family.
    groups: Vec<SocketGroup>,
    /// VNIs that the sockets are steered by.
    vnis: Vec<Vni>,
}

/// Sockets of one family.
#[derive(Debug)]
struct SocketGroup {
    layout: SocketLayout,
    /// Duplicate of the first socket, through which programs are attached to the whole group.
    first: Socket,
}

impl Engine {
    /// Opens a UDP port, over IPv4 and IPv6, which is read from [`Engine::receive`] on. A port that is open already
    /// is left as it is. With `zero_checksum6`, datagrams over IPv6 without a checksum are accepted (RFC 6935) for
    /// every link of the port.
    ///
    /// # Errors
    /// If the port cannot be opened.
    pub fn open_port(&self, port: u16, zero_checksum6: bool) -> Result<(), StartError> {
        let mut state = self.state();
        if state.ports.iter().any(|open| open.port == port) {
            return Ok(());
        }
        let failed = |error| StartError::Port { port, error };
        udp::ensure_free(AddressFamily::V4, port).map_err(failed)?;
        match udp::ensure_free(AddressFamily::V6, port) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => return Err(failed(e)),
            // Below it turns out whether the host has IPv6.
            _ => {}
        }
        let mut groups = Vec::new();
        let mut receivers = Vec::new();
        for family in [AddressFamily::V4, AddressFamily::V6] {
            match self.open_group(family, port, zero_checksum6) {
                Err(e)
                    if e.raw_os_error() == Some(libc::EAFNOSUPPORT)
                        && family == AddressFamily::V6 => {}
                other => {
                    let (group, opened) = other.map_err(failed)?;
                    groups.push(group);
                    receivers.extend(opened);
                }
            }
        }
        state.unread.append(&mut receivers);
        state.ports.push(OpenPort {
            port,
            zero_checksum6,
            groups,
            vnis: Vec::new(),
        });
        self.spread(&mut state, &self.shared.tables.load());
        Ok(())
    }

    /// Starts reading the ports that were opened. Earlier datagrams wait in the sockets, so that none is checked
    /// against tables that lack its link.
    pub fn receive(&self) {
        let unread = std::mem::take(&mut self.state().unread);
        for (worker, receiver) in unread {
            self.workers[worker].tell(WorkerCommand::AddSocket(receiver));
        }
    }

    /// Stops listening on a UDP port.
    pub async fn close_port(&self, port: u16) {
        {
            let mut state = self.state();
            state.ports.retain(|open| open.port != port);
            state.unread.retain(|(_, receiver)| receiver.port != port);
        }
        let command = |answer| WorkerCommand::RemovePort(port, answer);
        self.ask_all(std::iter::once(command)).await;
    }

    /// Opens sockets for the VPCs of these tables and has the kernel steer their datagrams to them.
    pub(super) fn spread(&self, state: &mut EngineState, tables: &Tables) {
        let EngineState { ports, unread, .. } = state;
        let mut wanted: HashMap<u16, Vec<Vni>> = HashMap::new();
        for link in tables.iter() {
            let config = &link.config;
            wanted.entry(config.port).or_default().push(config.vni);
        }
        for at in 0..ports.len() {
            let mut vnis = wanted.remove(&ports[at].port).unwrap_or_default();
            vnis.sort_unstable();
            vnis.dedup();
            let places = u32::try_from(vnis.len()).unwrap_or(u32::MAX);
            let places = places.clamp(PLACES, MOST_PLACES);
            let few = ports[at].groups.iter().any(|g| g.layout.places < places);
            if few && !vnis.is_empty() {
                let room = room(ports);
                self.add_places(&mut ports[at], places, room, unread);
            } else if vnis == ports[at].vnis {
                continue;
            }
            for group in &ports[at].groups {
                if let Err(error) = steer(&group.first, &group.layout, &vnis) {
                    let port = ports[at].port;
                    tracing::debug!(port, %error, "datagrams are not queued by VPC: {error}");
                }
            }
            ports[at].vnis = vnis;
        }
    }

    /// Opens the socket for datagrams of no VPC, which the first worker reads, and one socket for each worker.
    fn open_group(
        &self,
        family: AddressFamily,
        port: u16,
        zero6: bool,
    ) -> io::Result<(SocketGroup, Vec<UnreadSocket>)> {
        let workers = self.workers.len() as u32;
        let open = |number| udp::receiver(family, port, zero6, number == 0);
        let sockets: Vec<_> = (0..=workers).map(open).collect::<io::Result<_>>()?;
        let group = SocketGroup {
            layout: SocketLayout {
                family,
                workers,
                places: 1,
            },
            first: sockets[0].try_clone()?,
        };
        let receiver = |(number, socket): (usize, Socket)| {
            let receiver = RxSocket {
                port,
                stray: number == 0,
                fd: OwnedFd::from(socket),
            };
            (number.saturating_sub(1), receiver)
        };
        let receivers = sockets.into_iter().enumerate().map(receiver).collect();
        Ok((group, receivers))
    }

    /// Opens sockets until a port has `places` of them per worker, or there is no `room` for more.
    fn add_places(
        &self,
        port: &mut OpenPort,
        places: u32,
        mut room: u64,
        unread: &mut Vec<UnreadSocket>,
    ) {
        let workers = self.workers.len() as u32;
        let (number, zero6) = (port.port, port.zero_checksum6);
        for place in 1..places {
            for group in &mut port.groups {
                if group.layout.places > place || room < u64::from(workers) {
                    continue;
                }
                let open = |_| udp::receiver(group.layout.family, number, zero6, false);
                // If descriptors or memory run out, VPCs share the existing sockets.
                let Ok(sockets) = (0..workers).map(open).collect::<io::Result<Vec<_>>>() else {
                    return;
                };
                let receiver = |socket| RxSocket {
                    port: number,
                    stray: false,
                    fd: OwnedFd::from(socket),
                };
                unread.extend(sockets.into_iter().map(receiver).enumerate());
                group.layout.places += 1;
                room -= u64::from(workers);
            }
        }
    }
}

/// How many more sockets may be opened.
fn room(ports: &[OpenPort]) -> u64 {
    let open = |group: &SocketGroup| 1 + u64::from(group.layout.places * group.layout.workers);
    let open: u64 = ports.iter().flat_map(|p| &p.groups).map(open).sum();
    let DescriptorBudget { limit, left } = DescriptorBudget::now();
    (limit / PART_OF_DESCRIPTORS)
        .min(MOST_SOCKETS)
        .saturating_sub(open)
        .min(left / 4)
}
