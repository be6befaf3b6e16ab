//! What a thread may do that needs no privilege.

use caps::CapSet;

/// Gives up all capabilities of the calling thread, for good. A sandbox that forbids it is no reason not to work.
pub fn give_up_capabilities() {
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        let _ = caps::clear(None, set);
    }
}
