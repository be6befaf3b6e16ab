//! Configuration: file, validated desired state, plan of changes.
//!
//! A file and a command at run time go the same way: words as written ([`words`], with the single
//! values of [`value`]) become objects that fit together ([`state`]), [`difference`] says in what
//! two states differ, and [`plan`] what must be done to get from one to the other. Nothing here touches the kernel.

pub mod args;
pub mod difference;
pub mod file;
mod file_trust;
pub mod plan;
pub mod regular_file;
pub mod secret;
pub mod settings;
pub mod shared_map;
pub mod state;
mod toml_tables;
pub mod value;

#[cfg(test)]
mod deletion_tests;
#[cfg(test)]
mod encapsulation_tests;
#[cfg(test)]
mod function_tests;
#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
mod tests;
