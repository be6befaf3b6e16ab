use std::os::fd::AsRawFd;

use nix::sys::eventfd::EventFd;

use super::*;

#[test]
fn what_a_stuck_ring_does_not_take_is_refused() {
    let buffers = BufferPool::new(8, 2048).unwrap();
    let bell = EventFd::new().unwrap();
    let mut uring =
        Uring::new(&buffers, &buffers, bell.as_raw_fd()).expect("io_uring is allowed here");
    let other = std::fs::File::open("/dev/null").unwrap();
    // SAFETY: both are open. From now on the ring's descriptor refers to a file, which takes nothing from its queue.
    let rc = unsafe { libc::dup2(other.as_raw_fd(), uring.ring.as_raw_fd()) };
    assert!(rc >= 0);
    for id in 0..SUBMISSIONS + 8 {
        // SAFETY: the kernel never sees any of them.
        unsafe { uring.send(id, -1, std::ptr::null()) };
    }
    let reported = uring.refused.len() + uring.in_flight;
    assert_eq!(reported, SUBMISSIONS as usize + 8);
    assert!(uring.refused.len() >= 8 && uring.full);
    // SAFETY: as above.
    unsafe { uring.write(7, -1, &[]) };
    let wrote = Completion::Wrote {
        id: 7,
        result: -libc::EBUSY,
    };
    assert_eq!(
        format!("{:?}", uring.refused.last()),
        format!("{:?}", Some(wrote))
    );
    uring.remove_tun(3);
    assert_eq!(uring.leaving.len(), 1);
    uring.add_tun(3, -1);
    assert!(uring.leaving.is_empty());
    assert_eq!(uring.rearm_tun, [3]);
}
