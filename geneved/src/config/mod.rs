//! Configuration: file, validated desired state, plan of changes.
//!
//! Files and run-time commands take the same path: words as written ([`args`], with the single values of [`value`])
//! become consistent objects ([`state`]); [`difference`] compares two states, and [`plan`] lists the steps from one
//! to the other. Nothing here touches the kernel.

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
