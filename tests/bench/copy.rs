//! Lower bound for a user-space tunnel: copies each packet between a TUN interface and a UDP socket.
//!
//! No encapsulation, no lookups, no checksums and no segmentation; super-packets cross the veth whole because its MTU
//! permits it. It separates the cost of leaving the kernel from the cost of geneved when geneved is compared with the
//! kernel's tunnel.

use geneved::io::create_tun;
use geneved::lab::netns::LabNetns;
use geneved::net::interface::{GSO_MAX_SIZE, TX_QUEUE_LEN};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use std::fs::File;
use std::io::{self, Error, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// MTU that the veth needs.
pub const UNDERLAY_MTU: u32 = 65_535;
const COPY_PORT: u16 = 6082;
const BUFFER: usize = 65_536;
const COPY_SOCKET_BUFFER: usize = 8 << 20;
/// Poll timeout in milliseconds, after which a waiting thread checks whether to stop.
const POLL_MILLIS: u16 = 200;

/// One host's half of the tunnel, with a thread for each direction; runs until dropped.
pub struct CopyTunnel {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl CopyTunnel {
    /// Creates the interface `t0` on `host`, and copies between it and `peer`.
    pub fn start(host: &LabNetns, own: IpAddr, peer: IpAddr) -> io::Result<Self> {
        let (tun, socket) = host.netns().run(|| -> io::Result<_> {
            let tun = create_tun("t0", 1, false).map_err(Error::other)?;
            let socket = UdpSocket::bind(SocketAddr::new(own, COPY_PORT))?;
            socket.connect(SocketAddr::new(peer, COPY_PORT))?;
            setsockopt(&socket, sockopt::RcvBufForce, &COPY_SOCKET_BUFFER)?;
            setsockopt(&socket, sockopt::SndBufForce, &COPY_SOCKET_BUFFER)?;
            socket.set_nonblocking(true)?;
            Ok((tun, socket))
        })??;
        host.ip(&format!(
            "link set t0 txqueuelen {TX_QUEUE_LEN} gso_max_size {GSO_MAX_SIZE}"
        ))?;
        let queue = tun.into_queues().pop().ok_or(ErrorKind::NotFound)?;
        fcntl(&queue, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (from, into) = (File::from(queue.try_clone()?), File::from(queue));
        let (sender, receiver) = (socket.try_clone()?, socket);
        let out = spawn(&stop, from, move |mut from, buffer| {
            let len = from.read(buffer)?;
            sender.send(&buffer[..len])
        });
        let back = spawn(&stop, receiver, move |receiver, buffer| {
            let len = receiver.recv(buffer)?;
            (&into).write(&buffer[..len])
        });
        let threads = vec![out, back];
        Ok(Self { stop, threads })
    }
}

/// Repeats `step` until stopped. If it fails, waits for `source`: there is nothing to read, the interface is down,
/// the peer is not listening yet, or a full queue dropped the packet.
fn spawn<S: AsFd + Send + 'static>(
    stop: &Arc<AtomicBool>,
    source: S,
    mut step: impl FnMut(&S, &mut [u8]) -> io::Result<usize> + Send + 'static,
) -> JoinHandle<()> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let mut buffer = vec![0; BUFFER];
        while !stop.load(Ordering::Relaxed) {
            if step(&source, &mut buffer).is_err() {
                wait(source.as_fd());
            }
        }
    })
}

fn wait(fd: BorrowedFd<'_>) {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    let _ = poll(&mut fds, PollTimeout::from(POLL_MILLIS));
}

impl Drop for CopyTunnel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
