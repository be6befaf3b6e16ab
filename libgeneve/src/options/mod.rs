//! Geneve options that geneved understands, and the meaning of their data.
//!
//! Owns the codecs of geneved's own options, the schema of user-defined ones, reading and attaching all of them, and
//! matching any option by class, type and data. The layout of options in a packet is in
//! [`wire::option`](crate::wire::option); [`datapath`](crate::datapath) acts on them.

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
