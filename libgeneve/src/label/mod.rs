//! Labels of endpoints, as text and as the wire and the rules see them.
//!
//! Owns the syntax of labels and selectors (Kubernetes'), their keyed hashes, and matching one against
//! the other. Which option carries a [`LabelSet`] is [`options`](crate::options)'s; what a rule does
//! with an answer is the policy's.

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

/// The most labels of one endpoint: what one option carries, at 8 bytes each.
pub const MAX_LABELS: usize = 15;

/// One label, hashed with the fabric's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label {
    /// 32 bits of hash(key).
    pub key: u32,
    /// 32 bits of hash(key=value).
    pub pair: u32,
}

/// What is known of an endpoint's labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels<'a> {
    /// Nothing: neither the packet nor the configuration says.
    Unknown,
    /// Exactly these, sorted by key; an empty list is an endpoint that is known to have none.
    Known(&'a [Label]),
}
