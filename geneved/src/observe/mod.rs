//! What the operator sees of a running daemon: log, events and metrics.
//!
//! [`log`] sets the log up; [`counters`] is the one way by which counters reach the command line;
//! [`hub`] tells those who watch what happens;
//! [`metrics`] is the form in which they are scraped, and [`scrape`] serves it.

pub mod counters;
pub mod event_hub;
pub mod log;
mod log_queue;
pub mod metrics;
pub mod repeat_filter;
pub mod scrape;
