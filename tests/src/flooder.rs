//! Traffic flooder: sends prebuilt datagrams to a daemon's port as fast as the kernel accepts them.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use geneved::lab::netns::LabNetns;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// Sends the same datagrams repeatedly until dropped.
pub struct Flooder {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Flooder {
    /// Sends `datagrams`, all of one length, from `from` of `host` to `to`. They leave as one train (UDP GSO), so that
    /// sending one costs a fraction of what receiving it does.
    ///
    /// # Panics
    /// If the address is not the host's, or the datagrams differ in length.
    #[must_use]
    pub fn start(host: &LabNetns, from: SocketAddr, to: SocketAddr, datagrams: &[Vec<u8>]) -> Self {
        let len = datagrams[0].len();
        assert!(datagrams.iter().all(|one| one.len() == len));
        let bytes = datagrams.concat();
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let bound = host.netns().run(|| UdpSocket::bind(from));
        let socket = bound
            .and_then(std::convert::identity)
            .expect("an address of the host");
        socket.connect(to).expect("a route");
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let trains = datagrams.len() as u64;
        let thread = std::thread::spawn(move || {
            let segment = len as u16;
            let train = [ControlMessage::UdpGsoSegments(&segment)];
            while !stopped.load(Ordering::Relaxed) {
                let slices = [IoSlice::new(&bytes)];
                let flags = MsgFlags::empty();
                match sendmsg::<()>(socket.as_raw_fd(), &slices, &train, flags, None) {
                    Ok(_) => {
                        count.fetch_add(trains, Ordering::Relaxed);
                    }
                    Err(_) => std::thread::sleep(Duration::from_micros(50)),
                }
            }
        });
        Flooder {
            stop,
            sent,
            threads: vec![thread],
        }
    }

    /// Number of datagrams that the kernel has accepted.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flooder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
