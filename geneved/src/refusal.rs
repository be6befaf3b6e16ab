//! The error that users read. Every module may depend on this one; it depends on none.

use std::fmt;

/// Why a change was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Object, value and reason.
    pub reason: String,
    /// What to do next; may be empty.
    pub hint: String,
    /// Index of the refused change in a batch; `None` if it is not known.
    pub change: Option<usize>,
    /// The cause, for callers that handle some causes differently.
    pub cause: RefusalCause,
}

/// Cause of a refusal, with the name of the object involved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RefusalCause {
    /// Any other cause.
    #[default]
    Other,
    /// The object already exists.
    Exists(String),
    /// There is no link with this name.
    NoLink(String),
    /// Another object that is needed does not exist.
    Missing(String),
    /// Another object already holds the requested resource.
    Conflict(String),
}

impl RefusalCause {
    /// Name of the object.
    #[must_use]
    pub fn object(&self) -> Option<&str> {
        match self {
            RefusalCause::Other => None,
            RefusalCause::Exists(name)
            | RefusalCause::NoLink(name)
            | RefusalCause::Missing(name)
            | RefusalCause::Conflict(name) => Some(name),
        }
    }
}

impl Refusal {
    /// Creates a refusal from a reason and a hint.
    pub fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Refusal {
            reason: reason.into(),
            hint: hint.into(),
            change: None,
            cause: RefusalCause::Other,
        }
    }

    /// Sets the cause.
    #[must_use]
    pub fn because(self, cause: RefusalCause) -> Self {
        Refusal { cause, ..self }
    }

    /// Sets the index of the refused change, from 0.
    #[must_use]
    pub fn of_change(self, number: usize) -> Self {
        Refusal {
            change: Some(number),
            ..self
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.hint.as_str() {
            "" => f.write_str(&self.reason),
            hint => write!(f, "{}; {hint}", self.reason.trim_end_matches('.')),
        }
    }
}

impl std::error::Error for Refusal {}
