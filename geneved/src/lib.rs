//! The I/O half of geneved: daemon, command line, packet I/O.
//!
//! `libgeneve` decides what happens to a packet; this crate reads, writes and shows.

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
