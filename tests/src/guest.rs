//! Stand-in for a virtual machine: connects a TAP of the host to the network card of a guest, as a hypervisor does.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use geneved::io::create_tun;
use geneved::lab::netns::LabNetns;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

/// Longest frame that a TAP delivers, including its virtio header.
const MAX_FRAME: usize = 70_000;

/// Offset of the VLAN tags: after `struct virtio_net_hdr` and the two MAC addresses.
const TAGS_AT: usize = 10 + 12;
/// Index of the machine's end.
const INSIDE: usize = 1;

/// Virtual machine that runs until dropped.
pub struct Guest {
    /// Namespace of the machine, whose network card is `e0`.
    pub inside: LabNetns,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    large: Arc<AtomicU64>,
}

impl Guest {
    /// Plugs a machine into the bridge `br0` of `host` by the TAP `vnet0`. Both ends leave segmentation and checksums to
    /// the other, as virtio does. `tags` are the VLAN tags, 4 bytes each, that frames of the machine have outside.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    pub fn start(host: &LabNetns, inside: LabNetns, addresses: &[&str], tags: &[u8]) -> Self {
        let queue = |host: &LabNetns, name: &str| {
            let made = host.netns().run(|| create_tun(name, 1, true)).unwrap();
            let mut queues = made.expect("a TAP device").into_queues();
            queues.pop().expect("one queue")
        };
        let ends = [queue(host, "vnet0"), queue(&inside, "e0")].map(Arc::new);
        host.ip("link set vnet0 master br0 up").unwrap();
        for address in addresses {
            inside.ip(&format!("address add {address} dev e0")).unwrap();
        }
        inside.ip("link set e0 up").unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let large = Arc::new(AtomicU64::new(0));
        let copy = |side: usize| {
            let (from, to) = (Arc::clone(&ends[side]), Arc::clone(&ends[1 - side]));
            let (stop, large) = (Arc::clone(&stop), Arc::clone(&large));
            let tags = tags.to_vec();
            let inside = side == INSIDE;
            thread::spawn(move || {
                relay((&*from, &*to), &stop, &large, |frame| match inside {
                    true => tag(frame, &tags),
                    false => untag(frame, &tags),
                });
            })
        };
        let threads = vec![copy(1 - INSIDE), copy(INSIDE)];
        Guest {
            inside,
            stop,
            threads,
            large,
        }
    }

    /// Number of frames forwarded unsegmented.
    #[must_use]
    pub fn large(&self) -> u64 {
        self.large.load(Ordering::Relaxed)
    }
}

fn relay(
    (from, to): (&OwnedFd, &OwnedFd),
    stop: &AtomicBool,
    large: &AtomicU64,
    change: impl Fn(&mut Vec<u8>) -> bool,
) {
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(50_u8)) != Ok(1) {
            continue;
        }
        let mut bytes = vec![0; MAX_FRAME];
        match read(from, &mut bytes) {
            Ok(len) => bytes.truncate(len),
            Err(Errno::EAGAIN) => continue,
            // The namespace is gone.
            Err(_) => return,
        }
        if bytes.len() > 2000 {
            large.fetch_add(1, Ordering::Relaxed);
        }
        // A card that is down loses frames.
        if change(&mut bytes) {
            let _ = write(to, &bytes);
        }
    }
}

/// Inserts the tags into a frame after its virtio header, whose offsets count from the start of the frame.
fn tag(bytes: &mut Vec<u8>, tags: &[u8]) -> bool {
    bytes.splice(TAGS_AT..TAGS_AT, tags.iter().copied());
    shift(bytes, tags.len() as u16);
    true
}

/// Removes the tags; false if the frame does not carry them.
fn untag(bytes: &mut Vec<u8>, tags: &[u8]) -> bool {
    let end = TAGS_AT + tags.len();
    if bytes.get(TAGS_AT..end) != Some(tags) {
        return false;
    }
    bytes.drain(TAGS_AT..end);
    shift(bytes, (tags.len() as u16).wrapping_neg());
    true
}

/// Shifts the offsets in the virtio header: the length of all headers, and the start of the checksum.
fn shift(bytes: &mut [u8], by: u16) {
    const VNET_NEEDS_CSUM: u8 = 1;
    if bytes[0] & VNET_NEEDS_CSUM == 0 {
        return;
    }
    for at in [2, 6] {
        let field = u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        if field != 0 {
            bytes[at..at + 2].copy_from_slice(&field.wrapping_add(by).to_ne_bytes());
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
