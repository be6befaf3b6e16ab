//! The locks and atomics of what workers share: those of `std`, or in models of it those of `shuttle`, which choose what
//! thread goes on at each of them.

#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, RwLock, atomic};
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, atomic};
