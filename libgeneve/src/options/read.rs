//! Reading the options of a packet: one walk, and either all that is known of them or the reason to drop.

use super::{ClassOption, EndpointOption, KnownOption, OptionSchema, ServiceOption};
use crate::drop::DropReason;
use crate::label::LabelSet;
use crate::wire::option::OptionIter;

/// What the options of a packet say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceivedOptions {
    /// What its endpoints are.
    pub endpoint: Option<EndpointOption>,
    /// The labels of its source; an empty set is a source that is known to have none.
    pub labels: Option<LabelSet>,
    /// Whether this host must enforce the labels.
    pub labels_critical: bool,
    /// Its QoS class.
    pub class: Option<ClassOption>,
    /// The virtual address that a client asked for.
    pub service: Option<ServiceOption>,
    /// Which known options are there: bit N is [`KnownOption::slot`] N.
    pub slots: u32,
}

impl ReceivedOptions {
    /// Reads all options of a packet (RFC 8926 section 3.5). Those that are not known and not critical are
    /// passed over; those that a user defined may come several times, geneved's own only once.
    ///
    /// # Errors
    ///
    /// [`DropReason::UnknownCriticalOption`] for a critical option that `schema` does not know, whatever the C bit
    /// says and wherever in the list it stands; [`DropReason::OptionMalformed`] for a known option with a
    /// length or content that its definition forbids, and for one of geneved's own that is there twice.
    #[inline]
    pub fn read(
        schema: &OptionSchema,
        options: OptionIter<'_>,
    ) -> Result<ReceivedOptions, DropReason> {
        let mut received = ReceivedOptions::default();
        let mut malformed = false;
        for option in options {
            let Some(known) = schema.lookup(option.class, option.kind) else {
                if option.is_critical() {
                    return Err(DropReason::UnknownCriticalOption);
                }
                continue;
            };
            malformed |= received.take(schema, known, option.data).is_none();
        }
        if malformed {
            return Err(DropReason::OptionMalformed);
        }
        Ok(received)
    }

    /// Whether the option with this slot is there.
    #[inline]
    #[must_use]
    pub const fn has(&self, slot: usize) -> bool {
        self.slots >> slot & 1 != 0
    }

    /// Takes one known option in; `None` where it is malformed.
    fn take(&mut self, schema: &OptionSchema, known: KnownOption, data: &[u8]) -> Option<()> {
        let bit = 1 << known.slot();
        let repeated = self.slots & bit != 0;
        self.slots |= bit;
        if let KnownOption::Defined(index) = known {
            let def = schema.defined().get(usize::from(index))?;
            return (data.len() == usize::from(def.len)).then_some(());
        }
        if repeated {
            return None;
        }
        match known {
            KnownOption::Endpoint => self.endpoint = Some(EndpointOption::from_wire(data)?),
            KnownOption::Labels { critical } => {
                self.labels = Some(LabelSet::from_wire(data)?);
                self.labels_critical = critical;
            }
            KnownOption::Class => self.class = Some(ClassOption::from_wire(data)?),
            KnownOption::Service => self.service = Some(ServiceOption::from_wire(data)?),
            KnownOption::Defined(_) => {}
        }
        Some(())
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
