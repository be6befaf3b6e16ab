//! Observability of a running daemon: log, events and metrics.
//!
//! [`log`] sets up logging; [`counters`] converts counters for every output; [`event_hub`] sends events to watchers;
//! [`metrics`] formats metrics, and [`scrape`] serves them.

pub mod counters;
pub mod event_hub;
pub mod log;
mod log_queue;
pub mod metrics;
pub mod repeat_filter;
pub mod scrape;
