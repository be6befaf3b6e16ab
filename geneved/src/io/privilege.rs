//! Dropping of privileges.

use caps::CapSet;

/// Permanently drops all capabilities of the calling thread. A sandbox that forbids this is no reason to stop.
pub fn give_up_capabilities() {
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        let _ = caps::clear(None, set);
    }
}
