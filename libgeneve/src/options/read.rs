//! Reading the options of a packet: in one walk, decodes all known ones, or returns a drop reason.

use super::{ClassOption, EndpointOption, KnownOption, OptionSchema, ServiceOption};
use crate::drop::DropReason;
use crate::label::LabelSet;
use crate::wire::option::OptionIter;

/// Decoded options of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceivedOptions {
    /// Types of the two endpoints.
    pub endpoint: Option<EndpointOption>,
    /// Labels of the source; an empty set means that the source is known to have none.
    pub labels: Option<LabelSet>,
    /// Whether this host must enforce the labels.
    pub labels_critical: bool,
    /// QoS class.
    pub class: Option<ClassOption>,
    /// Virtual address that the client connected to.
    pub service: Option<ServiceOption>,
    /// Which known options are there: bit N is [`KnownOption::slot`] N.
    pub slots: u32,
}

impl ReceivedOptions {
    /// Reads all options of a packet (RFC 8926 section 3.5). Unknown options are skipped unless they are critical;
    /// user-defined ones may occur several times, geneved's own only once.
    ///
    /// # Errors
    ///
    /// [`DropReason::UnknownCriticalOption`] for a critical option that `schema` does not know, regardless of the C
    /// bit and of its position in the list; [`DropReason::OptionMalformed`] for a known option with a length or
    /// content that its definition forbids, and for a duplicate of one of geneved's own.
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

    /// Whether the option with this slot is present.
    #[inline]
    #[must_use]
    pub const fn has(&self, slot: usize) -> bool {
        self.slots >> slot & 1 != 0
    }

    /// Decodes one known option; `None` if it is malformed.
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
