//! Labels as the wire and the rules see them: pairs of keyed hashes.

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
