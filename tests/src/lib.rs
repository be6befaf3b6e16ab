//! Test harness shared by scenarios and benchmarks.
//!
//! [`world`] has hosts and daemons, [`trio`] and [`datagrams`] conversations between them, [`bridged`] stations
//! behind them, [`guest`] a virtual machine, [`flooder`] a traffic flooder, [`ovs`] Open vSwitch as a peer,
//! [`packet`] hand-made packets, [`sniffer`] packet capture, [`relay`] a lossy underlay, [`peer`] a tunnel peer
//! without a daemon, [`scrape`] metrics, [`launch`] daemons started through wrappers, [`running_command`] long-running commands,
//! [`shell`] shell commands. None of it uses libgeneve, so that a bug there cannot hide itself here.

pub mod bridged;
pub mod datagrams;
pub mod flooder;
pub mod forged;
pub mod guest;
pub mod launch;
pub mod ovs;
pub mod packet;
pub mod peer;
pub mod relay;
pub mod running_command;
pub mod scrape;
pub mod shell;
pub mod sniffer;
pub mod trio;
pub mod tshark;
pub mod world;

/// Generates a test of each body for both I/O backends: `NAME::io_uring` and `NAME::syscalls`.
///
/// `on_both_backends! { fn name(io) { ... } }`; `io` is an [`world::TestBackend`].
#[macro_export]
macro_rules! on_both_backends {
    ($($(#[doc = $doc:literal])* fn $name:ident($io:ident) $body:block)+) => {$(
        $(#[doc = $doc])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            fn scenario($io: $crate::world::TestBackend) $body

            #[test]
            fn io_uring() {
                scenario($crate::world::TestBackend::Uring);
            }

            #[test]
            fn syscalls() {
                scenario($crate::world::TestBackend::Syscalls);
            }
        }
    )+};
}

/// Polls `condition` until it holds; panics with `what` if it does not within `seconds`.
///
/// # Panics
/// If the condition does not hold in time.
pub fn eventually(seconds: u64, what: &str, mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(
            start.elapsed().as_secs() < seconds,
            "not within {seconds} s: {what}"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
