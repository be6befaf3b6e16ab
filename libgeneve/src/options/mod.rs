//! The Geneve options that geneved speaks: what their data means.
//!
//! Owns the codecs of geneved's own options, the schema of those that a user defines, reading and
//! attaching all of them, and matching any option by class, type and data. How options lie in a packet is
//! [`wire::option`](crate::wire::option)'s; what is done because of them is decided in
//! [`datapath`](crate::datapath).

mod class;
mod endpoint;
mod known;
mod matching;
mod read;
mod service;
mod write;

pub use class::ClassOption;
pub use endpoint::{EndpointOption, EndpointType, EndpointTypeError};
pub use known::{
    COUNTER_SLOTS, DEFAULT_OPTION_CLASS, KnownOption, MAX_USER_OPTIONS, OptionDataError, OptionDef,
    OptionSchema, SchemaError, kind,
};
pub use matching::{MatchError, OptionMatch, class_named};
pub use read::ReceivedOptions;
pub use service::ServiceOption;
pub use write::SentOptions;
