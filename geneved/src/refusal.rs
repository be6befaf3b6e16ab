//! Why something is not done: the error that users read, on which every module may depend and which depends on none.

use std::fmt;

/// Why a change is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Object, value and reason.
    pub reason: String,
    /// What to do next; may be empty.
    pub hint: String,
    /// Of several changes the one that is refused, from 0; `None` where it is known of none.
    pub change: Option<usize>,
    /// What it comes from, where that makes a difference.
    pub cause: RefusalCause,
}

/// The object that a change is refused because of, by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RefusalCause {
    /// None, or it makes no difference which.
    #[default]
    Other,
    /// The object exists already.
    Exists(String),
    /// The link of this name is missing.
    NoLink(String),
    /// Another object that it needs is missing.
    Missing(String),
    /// Another object has what it wants.
    Conflict(String),
}

impl RefusalCause {
    /// The object's name.
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
    /// A refusal with a reason and what to do next.
    pub fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Refusal {
            reason: reason.into(),
            hint: hint.into(),
            change: None,
            cause: RefusalCause::Other,
        }
    }

    /// The same, because of this.
    #[must_use]
    pub fn because(self, cause: RefusalCause) -> Self {
        Refusal { cause, ..self }
    }

    /// The same, of the change with this number, from 0.
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
