//! Labels of endpoints, as text and as keyed hashes.
//!
//! Implements Kubernetes' syntax of labels and selectors, their keyed hashes, and matching.
//! [`options`](crate::options) defines the option that carries a [`LabelSet`]; the policy decides what a match means.

mod hash;
mod map;
mod selector;
mod set;
mod syntax;

pub use hash::{HashedRequirement, HashedSelector, LabelKey};
pub use map::{LabelError, LabelMap};
pub use selector::{
    MAX_REQUIREMENTS, MAX_SELECTOR_LEN, MAX_VALUES, Requirement, Selector, SelectorError,
};
pub use set::{LabelCollision, LabelSet};
pub use syntax::SyntaxError;

/// Most labels of one endpoint: what one option carries at 8 bytes each.
pub const MAX_LABELS: usize = 15;

/// One label, hashed with the fabric's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label {
    /// 32 bits of hash(key).
    pub key: u32,
    /// 32 bits of hash(key=value).
    pub pair: u32,
}

/// What is known about an endpoint's labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels<'a> {
    /// Neither the packet nor the configuration says.
    Unknown,
    /// Exactly these, sorted by key; empty if the endpoint is known to have none.
    Known(&'a [Label]),
}
