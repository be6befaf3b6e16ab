//! Locks and atomics for state shared by workers: those of `std`, or in model tests those of `shuttle`, which may
//! switch threads at each of them.

#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, atomic};
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, atomic};
