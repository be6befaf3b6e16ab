//! Scenarios that measure rates, times or memory, or flood, so that another one beside them would change what they see.

mod adversity;
mod clients;
mod errors;
mod flood;
mod floods;
mod isolation;
mod qos;
mod scale;
mod shares;
mod soak;
