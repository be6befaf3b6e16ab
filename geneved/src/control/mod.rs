//! The control socket: a versioned Varlink interface that `varlink` tools can introspect.
//!
//! Holds the protocol, its server and its client. [`crate::daemon`] carries the requests out.

pub mod client;
pub mod protocol;
pub mod server;
pub mod yielding;

#[cfg(test)]
mod tests;
