//! The half of geneved that does I/O and talks to people: daemon, command line, packet I/O.
//!
//! What is decided about a packet is decided in `libgeneve`; here it is read, written and shown.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod io;
pub mod lab;
pub mod net;
pub mod observe;
mod plural;
mod random;
pub mod refusal;
pub mod traffic;
