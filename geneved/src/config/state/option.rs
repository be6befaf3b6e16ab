//! User-defined options, and where they are attached.

use libgeneve::wire::option::{OPTION_HEADER_LEN, OptionClass, OptionType};

use super::{DesiredState, nearest, presence, required, whole};
use crate::config::args::{ChangeVerb, OptionArgs};
use crate::config::value::{NONE_WORD, NamedData, ObjectName, OptionClassValue, OptionTypeValue};
use crate::refusal::{Refusal, RefusalCause};

/// Maximum number of defined options: the room that counters have beside geneved's own.
pub const MAX_DEFINED_OPTIONS: usize = 28;
/// Maximum size of attached options in bytes, with their headers: 252 less what geneved's own options need for an
/// endpoint with the maximum number of labels.
pub const MAX_ATTACHED: usize = 88;

/// Definition of a named option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefinedOption {
    /// Option class, the namespace of the type.
    pub class: OptionClass,
    /// Option type with its critical bit.
    pub kind: OptionType,
    /// Bytes of data: a multiple of 4, at most 124.
    pub len: u8,
}

impl DefinedOption {
    /// Converts to the words that create it.
    #[must_use]
    pub fn words(&self, name: &ObjectName) -> OptionArgs {
        OptionArgs {
            name: name.clone(),
            class: Some(OptionClassValue(self.class)),
            kind: Some(OptionTypeValue(self.kind)),
            len: Some(self.len),
            critical: self.kind.is_critical(),
        }
    }
}

impl DesiredState {
    pub(super) fn change_option(
        &mut self,
        verb: ChangeVerb,
        words: &OptionArgs,
    ) -> Result<(), Refusal> {
        let name = &words.name;
        let object = format!("option \"{name}\"");
        let there = self.options.get(name);
        let names = self.options.keys();
        presence(verb, there.is_some(), &object, ("option", name), names)?;
        if verb == ChangeVerb::Del {
            if let Some(user) = self.user_of_option(name) {
                return Err(Refusal::new(
                    format!("{object} is in use by {user}"),
                    "change or delete that first",
                ));
            }
            self.options.remove(name);
            return Ok(());
        }
        if name.as_str() == NONE_WORD {
            return Err(Refusal::new(
                format!("{object}: \"{NONE_WORD}\" is the word for no option"),
                "choose another name",
            ));
        }
        let words = whole(verb, there.map(|o| o.words(name)), words.clone());
        let class = required(&object, "class", words.class)?.0;
        let mut kind = required(&object, "type", words.kind)?.0;
        let len = required(&object, "len", words.len)?;
        if words.critical {
            kind.0 |= OptionType::CRITICAL;
        }
        if len > 124 || !len.is_multiple_of(4) {
            return Err(Refusal::new(
                format!("{object}: len \"{len}\" is wrong: a multiple of 4 from 0 to 124"),
                "",
            ));
        }
        let own = class == self.fabric.option_class.0;
        if own && matches!(kind.0 & !OptionType::CRITICAL, 1..=4) {
            return Err(Refusal::new(
                format!("{object}: type {kind} of class {class} is one of geneved's own"),
                "choose another class or type",
            ));
        }
        let taken = self
            .options
            .iter()
            .find(|(other, o)| *other != name && (o.class, o.kind) == (class, kind));
        if let Some((other, _)) = taken {
            return Err(Refusal::new(
                format!("{object}: type {kind} of class {class} is already option \"{other}\""),
                "use that, or choose another type",
            ));
        }
        let defined = DefinedOption { class, kind, len };
        if let (Some(was), Some(user)) = (there, self.user_of_option(name))
            && was.len != len
        {
            return Err(Refusal::new(
                format!("{object}: its len cannot change while it is in use by {user}"),
                "change or delete that first",
            ));
        }
        if there.is_none() && self.options.len() >= MAX_DEFINED_OPTIONS {
            return Err(Refusal::new(
                format!("{object}: {MAX_DEFINED_OPTIONS} options are defined already"),
                "delete one first",
            ));
        }
        self.options.insert(name.clone(), defined);
        Ok(())
    }

    fn user_of_option(&self, name: &ObjectName) -> Option<String> {
        let has = |options: &[NamedData]| options.iter().any(|o| o.name == *name);
        let link = self.links.values().find(|link| has(&link.options));
        let endpoint = self.endpoints.iter().find(|(_, e)| has(&e.options));
        link.map(|link| format!("link \"{}\"", link.name))
            .or_else(|| endpoint.map(|((dev, addr), _)| format!("endpoint \"{addr}\" dev {dev}")))
    }

    /// Checks that attached options are defined and have the defined length.
    pub(super) fn check_options(&self, object: &str, options: &[NamedData]) -> Result<(), Refusal> {
        for NamedData { name, data } in options {
            let Some(defined) = self.options.get(name) else {
                let names = self.options.keys().map(ObjectName::as_str);
                let hint = match nearest(name.as_str(), names) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("define it with \"geneved option add {name}\""),
                };
                return Err(Refusal::new(
                    format!("{object}: option \"{name}\" is not defined"),
                    hint,
                )
                .because(RefusalCause::Missing(name.to_string())));
            };
            if data.len() != usize::from(defined.len) {
                return Err(Refusal::new(
                    format!(
                        "{object}: option \"{name}\" has {} bytes of data, and was given {}",
                        defined.len,
                        data.len()
                    ),
                    format!("write {} hexadecimal digits", usize::from(defined.len) * 2),
                ));
            }
        }
        Ok(())
    }
}

/// Size of these options in a header, in bytes.
#[must_use]
pub fn size(options: &[NamedData]) -> usize {
    options
        .iter()
        .map(|o| OPTION_HEADER_LEN + o.data.len())
        .sum()
}

pub(super) fn check_room(object: &str, bytes: usize) -> Result<(), Refusal> {
    if bytes <= MAX_ATTACHED {
        return Ok(());
    }
    Err(Refusal::new(
        format!("{object}: the options of link and endpoint together take {bytes} bytes"),
        format!("at most {MAX_ATTACHED} fit beside geneved's own"),
    ))
}
