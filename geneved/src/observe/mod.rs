//! What the operator sees of a running daemon: log and metrics.
//!
//! [`log`] sets the log up; [`counters`] is the one way by which counters reach the command line and
//! whoever scrapes them.

pub mod counters;
pub mod log;
