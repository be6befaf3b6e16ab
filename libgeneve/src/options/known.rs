//! Schema of the options that this host knows: geneved's own, and user-defined ones.

use std::collections::BTreeSet;

use crate::wire::option::{MAX_OPTION_DATA, OptionClass, OptionType};

/// Class of geneved's own options unless the operator sets another; in the experimental range (RFC 8926 section 7).
pub const DEFAULT_OPTION_CLASS: OptionClass = OptionClass(0xff47);

/// Types of geneved's own options, in its class.
pub mod kind {
    use super::OptionType;

    /// Types of the two endpoints.
    pub const ENDPOINT: OptionType = OptionType(0x01);
    /// Labels of the source.
    pub const LABELS: OptionType = OptionType(0x02);
    /// Labels of the source, which the receiver must enforce.
    pub const LABELS_CRITICAL: OptionType = OptionType(0x82);
    /// QoS class.
    pub const CLASS: OptionType = OptionType(0x03);
    /// Virtual address that the client connected to.
    pub const SERVICE: OptionType = OptionType(0x04);
}

/// Names of geneved's own options, in the order of their slots.
const OWN_NAMES: [&str; 4] = ["endpoint", "labels", "class", "service"];
/// Number of options with their own counter: geneved's four, and user-defined ones.
pub const COUNTER_SLOTS: usize = 32;
/// Most options that a user may define.
pub const MAX_USER_OPTIONS: usize = COUNTER_SLOTS - OWN_NAMES.len();

/// User-defined option.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OptionDef {
    /// Name by which it is attached, displayed and counted: lower-case letters, digits and `-`.
    pub name: String,
    /// Its class.
    pub class: OptionClass,
    /// Its type; the high bit makes it critical.
    pub kind: OptionType,
    /// Length of its data in bytes: a multiple of 4, at most 124. It never changes (RFC 8926 section 3.5).
    pub len: u8,
}

/// Why data does not fit an option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionDataError {
    /// The text is not an even number of hexadecimal digits.
    #[error("option {0}: expected its data in hexadecimal, two digits a byte")]
    Hex(String),
    /// The data's length differs from the definition.
    #[error("option {name}: data of {found} bytes, expected {len}")]
    Length {
        /// The option's name.
        name: String,
        /// Length of the data, in bytes.
        found: usize,
        /// Length in the definition, in bytes.
        len: u8,
    },
}

impl OptionDef {
    /// Parses hexadecimal data: two digits per byte, as many bytes as the option has.
    ///
    /// # Errors
    ///
    /// As [`OptionDataError`] says.
    pub fn data(&self, hex: &str) -> Result<Vec<u8>, OptionDataError> {
        let data = hex::decode(hex.strip_prefix("0x").unwrap_or(hex))
            .map_err(|_| OptionDataError::Hex(self.name.clone()))?;
        if data.len() != usize::from(self.len) {
            return Err(OptionDataError::Length {
                name: self.name.clone(),
                found: data.len(),
                len: self.len,
            });
        }
        Ok(data)
    }
}

/// Known option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KnownOption {
    /// Types of the two endpoints.
    Endpoint,
    /// Labels of the source.
    Labels {
        /// Whether the receiver must enforce them: type 0x82.
        critical: bool,
    },
    /// QoS class.
    Class,
    /// Virtual address that the client connected to.
    Service,
    /// User-defined option, by its index in the schema: 0 to 27.
    Defined(u8),
}

impl KnownOption {
    /// The counter of this option: 0 to 31, below [`COUNTER_SLOTS`]. Both types of labels share one.
    #[inline]
    #[must_use]
    pub fn slot(self) -> usize {
        match self {
            KnownOption::Endpoint => 0,
            KnownOption::Labels { .. } => 1,
            KnownOption::Class => 2,
            KnownOption::Service => 3,
            KnownOption::Defined(index) => {
                (OWN_NAMES.len() + usize::from(index)).min(COUNTER_SLOTS - 1)
            }
        }
    }
}

/// Why a set of options cannot be defined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The name is empty or has invalid characters.
    #[error("option {0:?}: a name has lower-case letters, digits and '-' only")]
    Name(String),
    /// The name is used twice, or is that of one of geneved's own options.
    #[error("option {0}: there is one of this name already")]
    DuplicateName(String),
    /// Another option has the same class and type.
    #[error("option {name}: {other} has its class and type already")]
    Duplicate {
        /// The later one.
        name: String,
        /// The earlier one.
        other: String,
    },
    /// Apart from the critical bit, class and type are those of one of geneved's own options.
    #[error("option {name}: types {kind:#04x} and {critical:#04x} of class {class} are geneved's own", critical = kind | OptionType::CRITICAL)]
    Own {
        /// The option.
        name: String,
        /// The type, without its critical bit.
        kind: u8,
        /// geneved's class.
        class: OptionClass,
    },
    /// The length of its data is not a multiple of 4 from 0 to 124.
    #[error(
        "option {name}: data of {len} bytes: the length is a multiple of 4, at most {MAX_OPTION_DATA}"
    )]
    Length {
        /// The option.
        name: String,
        /// The length, in bytes.
        len: u8,
    },
    /// This many options, more than 28.
    #[error("{0} options: at most {MAX_USER_OPTIONS} can be defined")]
    TooMany(usize),
}

/// Schema of the options that this host knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionSchema {
    class: OptionClass,
    defined: Vec<OptionDef>,
    /// Indices into `defined`, sorted by class and type.
    index: Vec<(OptionClass, OptionType, u8)>,
}

impl OptionSchema {
    /// Returns a schema with geneved's own options in the class `class`, and the user-defined ones.
    ///
    /// # Errors
    ///
    /// See [`SchemaError`].
    pub fn new(class: OptionClass, defined: Vec<OptionDef>) -> Result<OptionSchema, SchemaError> {
        if defined.len() > MAX_USER_OPTIONS {
            return Err(SchemaError::TooMany(defined.len()));
        }
        let mut names = BTreeSet::from(OWN_NAMES);
        let mut schema = OptionSchema {
            class,
            defined: Vec::new(),
            index: Vec::new(),
        };
        for (at, def) in (0u8..).zip(&defined) {
            check(def, class)?;
            if !names.insert(&def.name) {
                return Err(SchemaError::DuplicateName(def.name.clone()));
            }
            match schema.find(def.class, def.kind) {
                Ok(place) => {
                    return Err(SchemaError::Duplicate {
                        name: def.name.clone(),
                        other: defined[usize::from(schema.index[place].2)].name.clone(),
                    });
                }
                Err(place) => schema.index.insert(place, (def.class, def.kind, at)),
            }
        }
        schema.defined = defined;
        Ok(schema)
    }

    fn find(&self, class: OptionClass, kind: OptionType) -> Result<usize, usize> {
        self.index
            .binary_search_by_key(&(class, kind), |&(class, kind, _)| (class, kind))
    }

    /// Returns the option with this class and type, if it is known.
    #[inline]
    #[must_use]
    pub fn lookup(&self, class: OptionClass, kind: OptionType) -> Option<KnownOption> {
        if class == self.class {
            match kind {
                kind::ENDPOINT => return Some(KnownOption::Endpoint),
                kind::LABELS => return Some(KnownOption::Labels { critical: false }),
                kind::LABELS_CRITICAL => return Some(KnownOption::Labels { critical: true }),
                kind::CLASS => return Some(KnownOption::Class),
                kind::SERVICE => return Some(KnownOption::Service),
                _ => {}
            }
        }
        let place = self.find(class, kind).ok()?;
        Some(KnownOption::Defined(self.index[place].2))
    }

    /// The class of geneved's own options.
    #[must_use]
    pub fn class(&self) -> OptionClass {
        self.class
    }

    /// The user's options; [`KnownOption::Defined`] counts from the first.
    #[must_use]
    pub fn defined(&self) -> &[OptionDef] {
        &self.defined
    }

    /// Returns the user-defined option with this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&OptionDef> {
        self.defined.iter().find(|def| def.name == name)
    }

    /// Names of the options in the order of their slots; the remaining slots are unused.
    pub fn slot_names(&self) -> impl Iterator<Item = &str> {
        OWN_NAMES
            .into_iter()
            .chain(self.defined.iter().map(|def| def.name.as_str()))
    }
}

/// geneved's own options in [`DEFAULT_OPTION_CLASS`].
impl Default for OptionSchema {
    fn default() -> Self {
        OptionSchema {
            class: DEFAULT_OPTION_CLASS,
            defined: Vec::new(),
            index: Vec::new(),
        }
    }
}

/// Checks a single definition.
fn check(def: &OptionDef, own: OptionClass) -> Result<(), SchemaError> {
    let name = || def.name.clone();
    let in_names = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if def.name.is_empty() || !def.name.bytes().all(in_names) {
        return Err(SchemaError::Name(name()));
    }
    if usize::from(def.len) > MAX_OPTION_DATA || !def.len.is_multiple_of(4) {
        return Err(SchemaError::Length {
            name: name(),
            len: def.len,
        });
    }
    // Refused with either critical bit: one number must not have two meanings on the wire.
    let kind = def.kind.0 & !OptionType::CRITICAL;
    if def.class == own && (kind::ENDPOINT.0..=kind::SERVICE.0).contains(&kind) {
        return Err(SchemaError::Own {
            name: name(),
            kind,
            class: own,
        });
    }
    Ok(())
}

#[cfg(test)]
#[path = "known_tests.rs"]
mod tests;
