//! Sockets that io_uring receives from: how much each has to read, and which of them wait for buffers.

use std::os::fd::RawFd;

use crate::io::backend::place;

/// Trains per turn from which a socket counts as having much to read. The kernel takes up to 32 from one socket
/// before the next.
pub(super) const MUCH: u32 = 16;
/// Sockets share the buffers if two of them had trains within this many turns.
const RECENT: u64 = 16;

/// Receiving socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct UringSocket {
    pub(super) fd: RawFd,
    /// It takes the datagrams of no VPC.
    pub(super) stray: bool,
    /// Trains received in `turn`, the last turn in which there were any.
    took: u32,
    turn: u64,
}

/// All receiving sockets, by slot.
pub(super) struct Listeners {
    all: Vec<Option<UringSocket>>,
    /// Sockets that receive nothing until buffers are available.
    waiting: Vec<u32>,
    turns: u64,
    /// The socket that received last, and the last turn in which that changed.
    latest: u32,
    shared: u64,
}

impl Listeners {
    pub(super) fn new() -> Self {
        Listeners {
            all: Vec::new(),
            waiting: Vec::with_capacity(64),
            turns: RECENT,
            latest: 0,
            shared: 0,
        }
    }

    pub(super) fn add(&mut self, slot: u32, fd: RawFd, stray: bool) {
        let listener = UringSocket {
            fd,
            stray,
            took: 0,
            turn: 0,
        };
        place(&mut self.all, slot, listener);
        // All of them may wait for buffers at once, and the packet path must not allocate.
        let room = self.all.len().saturating_sub(self.waiting.len());
        self.waiting.reserve(room);
    }

    pub(super) fn get(&self, slot: u32) -> Option<UringSocket> {
        *self.all.get(slot as usize)?
    }

    pub(super) fn remove(&mut self, slot: u32) {
        if let Some(listener) = self.all.get_mut(slot as usize) {
            *listener = None;
        }
    }

    pub(super) fn begin_turn(&mut self) {
        self.turns += 1;
    }

    /// Records that a socket received a train.
    pub(super) fn note_train(&mut self, slot: u32) {
        let turn = self.turns;
        if let Some(Some(listener)) = self.all.get_mut(slot as usize) {
            if listener.turn != turn {
                (listener.turn, listener.took) = (turn, 0);
            }
            listener.took += 1;
        }
        if std::mem::replace(&mut self.latest, slot) != slot {
            self.shared = turn;
        }
    }

    /// Whether a socket has so much to read that it would starve others of buffers.
    pub(super) fn has_much(&self, slot: u32) -> bool {
        let shared = self.turns - self.shared <= RECENT;
        shared && self.took(slot) >= MUCH
    }

    /// Number of trains that a socket received in this turn.
    fn took(&self, slot: u32) -> u32 {
        match self.get(slot) {
            Some(listener) if listener.turn == self.turns => listener.took,
            _ => 0,
        }
    }

    /// Puts a socket on the list of those waiting for buffers.
    pub(super) fn wait(&mut self, slot: u32) {
        self.waiting.push(slot);
    }

    /// Takes a socket off the waiting list; false if it was not on it.
    pub(super) fn stop_waiting(&mut self, slot: u32) -> bool {
        let at = self.waiting.iter().position(|&s| s == slot);
        at.map(|at| self.waiting.swap_remove(at)).is_some()
    }

    /// Takes the waiting list, sorted so that the sockets that received least get buffers first. What remains goes
    /// back through [`Listeners::keep_waiting`].
    pub(super) fn take_waiting(&mut self) -> Vec<u32> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.sort_unstable_by_key(|&slot| self.took(slot));
        waiting
    }

    pub(super) fn keep_waiting(&mut self, waiting: Vec<u32>) {
        self.waiting = waiting;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners() -> Listeners {
        let mut listeners = Listeners::new();
        (0..3).for_each(|slot| listeners.add(slot, -1, slot == 0));
        listeners
    }

    #[test]
    fn a_socket_has_much_while_it_brings_many_trains_and_others_bring_some() {
        let mut listeners = listeners();
        listeners.begin_turn();
        (0..MUCH).for_each(|_| listeners.note_train(1));
        assert!(listeners.has_much(1));
        assert!(!listeners.has_much(2));
        for _ in 0..=RECENT {
            listeners.begin_turn();
            (0..MUCH).for_each(|_| listeners.note_train(1));
        }
        assert!(!listeners.has_much(1), "it is alone");
        listeners.note_train(2);
        (0..MUCH).for_each(|_| listeners.note_train(1));
        assert!(listeners.has_much(1));
        listeners.begin_turn();
        assert!(!listeners.has_much(1), "it brought nothing this turn");
    }

    #[test]
    fn who_brought_least_is_the_first_to_get_buffers() {
        let mut listeners = listeners();
        listeners.begin_turn();
        for (slot, trains) in [(0, 5), (1, 9), (2, 1)] {
            (0..trains).for_each(|_| listeners.note_train(slot));
            listeners.wait(slot);
        }
        assert_eq!(listeners.take_waiting(), [2, 0, 1]);
        listeners.keep_waiting(vec![0, 1]);
        assert!(listeners.stop_waiting(1));
        assert!(!listeners.stop_waiting(1));
        assert_eq!(listeners.take_waiting(), [0]);
    }
}
