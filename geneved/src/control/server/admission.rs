//! Admission control for clients of the control socket: connections, received bytes, and bytes of pending replies.
//!
//! Each is bounded for all clients together. Root and the daemon's own user have reserved connections and never wait
//! for other clients' replies, so that an administrator always gets in.

use std::cell::Cell;
use std::sync::Arc;

use nix::unistd::Uid;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::io::connections;

/// Maximum number of clients; further ones are told that the daemon is busy.
pub(super) const MAX_CLIENTS: usize = 512;
/// Additional connections reserved for root and the daemon's own user.
pub(super) const RESERVED: usize = 16;
/// Bytes of one message or reply that each client has of its own, beside the shared budget.
pub(super) const RESERVED_BYTES: usize = 64 << 10;
/// Shared budget for longer messages that were received but not read yet, in KiB.
const RECEIVED: usize = 64 << 10;
/// Shared budget for longer replies that clients have not taken yet, in KiB.
const REPLIES: usize = 64 << 10;

/// Limits of one control socket.
pub(in crate::control) struct ClientAdmission {
    clients: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
    received: Arc<Semaphore>,
    replies: Arc<Semaphore>,
    /// Held while making a reply whose length is not known yet.
    making: Arc<Semaphore>,
    privileged: fn(Uid) -> bool,
    /// Clients that wait until others have finished a message or taken a reply.
    waiting: Cell<usize>,
}

/// A client's admission, with its privilege.
pub(super) struct ClientSlot {
    _permit: OwnedSemaphorePermit,
    /// Whether the client is root or the daemon's own user.
    pub(super) privileged: bool,
}

/// Bytes charged to a budget until this is dropped.
pub(super) type ByteQuota = Option<OwnedSemaphorePermit>;

impl Default for ClientAdmission {
    fn default() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        ClientAdmission {
            privileged: |uid| uid.is_root() || uid == Uid::effective(),
            // Fewer if the process may open few descriptors, so that clients do not exhaust them.
            clients: semaphore(connections(MAX_CLIENTS)),
            reserved: semaphore(RESERVED),
            received: semaphore(RECEIVED),
            replies: semaphore(REPLIES),
            making: semaphore(1),
            waiting: Cell::new(0),
        }
    }
}

impl ClientAdmission {
    /// The same limits with another test for privilege.
    #[cfg(test)]
    pub(in crate::control) fn with_privileged(privileged: fn(Uid) -> bool) -> Self {
        ClientAdmission {
            privileged,
            ..ClientAdmission::default()
        }
    }

    /// Admits the peer of `stream`; `None` if there are too many clients.
    pub(super) fn place(&self, stream: &UnixStream) -> Option<ClientSlot> {
        let peer = stream.peer_cred().map(|peer| Uid::from_raw(peer.uid()));
        self.place_for(peer.is_ok_and(self.privileged))
    }

    /// Admits a client of this privilege.
    pub(super) fn place_for(&self, privileged: bool) -> Option<ClientSlot> {
        let take = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        let reserved = || privileged.then(|| take(&self.reserved)).flatten();
        let permit = take(&self.clients).or_else(reserved)?;
        Some(ClientSlot {
            _permit: permit,
            privileged,
        })
    }

    /// Waits until a client may have `bytes` that were received but not read yet.
    pub(super) async fn receive(&self, bytes: usize) -> ByteQuota {
        self.charge(&self.received, bytes).await
    }

    /// Whether another client waits for room that a stalled client holds.
    pub(super) fn is_contended(&self) -> bool {
        self.waiting.get() > 0
    }

    /// Waits for the turn to make a reply. Replies are made one at a time, so that at most one is neither charged nor
    /// sent.
    pub(super) async fn make(&self, place: &ClientSlot) -> ByteQuota {
        match place.privileged {
            true => None,
            false => Arc::clone(&self.making).acquire_owned().await.ok(),
        }
    }

    /// Waits until a reply of `bytes` may be queued for its client.
    pub(super) async fn reply(&self, place: &ClientSlot, bytes: usize) -> ByteQuota {
        match place.privileged {
            true => None,
            false => self.charge(&self.replies, bytes).await,
        }
    }

    async fn charge(&self, budget: &Arc<Semaphore>, bytes: usize) -> ByteQuota {
        if bytes <= RESERVED_BYTES {
            return None;
        }
        // A reply larger than the whole budget waits until it can have all of it.
        let kib = bytes.div_ceil(1024).min(REPLIES.min(RECEIVED));
        let kib = u32::try_from(kib).expect("a budget is less than 4 TiB");
        self.waiting.set(self.waiting.get() + 1);
        let charge = Arc::clone(budget).acquire_many_owned(kib).await.ok();
        self.waiting.set(self.waiting.get() - 1);
        charge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_gets_in_where_everybody_else_has_taken_all_places() {
        let admission = ClientAdmission::default();
        let all: Vec<_> = (0..MAX_CLIENTS)
            .map(|_| admission.place_for(false).unwrap())
            .collect();
        assert!(admission.place_for(false).is_none());
        let root: Vec<_> = (0..RESERVED)
            .map(|_| admission.place_for(true).unwrap())
            .collect();
        assert!(admission.place_for(true).is_none());
        drop(all);
        assert!(admission.place_for(false).is_some());
        drop(root);
    }

    #[tokio::test]
    async fn what_waits_for_clients_that_do_not_read_is_bounded_and_short_replies_do_not_wait() {
        let admission = ClientAdmission::default();
        let client = admission.place_for(false).unwrap();
        let held = admission.reply(&client, 60 << 20).await;
        assert!(held.is_some());
        let more = tokio::time::timeout(
            std::time::Duration::from_millis(50),
            admission.reply(&client, 8 << 20),
        );
        assert!(more.await.is_err(), "64 MiB are the bound");
        assert!(admission.is_contended());
        assert!(admission.reply(&client, RESERVED_BYTES).await.is_none());
        let root = admission.place_for(true).unwrap();
        assert!(admission.reply(&root, 8 << 20).await.is_none());
        drop(held);
        // A reply larger than the budget is sent alone.
        assert!(admission.reply(&client, 200 << 20).await.is_some());
    }
}
