//! Building the Geneve header with the options that are attached to a packet.

use super::{ClassOption, EndpointOption, OptionSchema, ServiceOption, kind};
use crate::label::{LabelSet, MAX_LABELS};
use crate::wire::geneve::{BuildError, GeneveBuilder, Vni};
use crate::wire::header::HeaderBytes;
use crate::wire::option::{GeneveOption, OPTION_HEADER_LEN};

/// geneved's own options to attach to a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentOptions {
    /// Types of the two endpoints.
    pub endpoint: Option<EndpointOption>,
    /// Labels of the source, and whether the receiver must enforce them.
    pub labels: Option<(LabelSet, bool)>,
    /// QoS class.
    pub class: Option<ClassOption>,
    /// Virtual address that the client connected to.
    pub service: Option<ServiceOption>,
}

impl SentOptions {
    /// Returns the Geneve header with these options in the order of the fields, followed by those in `defined`, whose
    /// data must have the length of their definition. The C bit is derived from the options (RFC 8926 section 3.4).
    ///
    /// # Errors
    ///
    /// [`BuildError`] if the length of one of `defined` cannot be encoded, or if all options together exceed 252
    /// bytes; geneved's own take up to 164.
    pub fn header<'a>(
        &self,
        schema: &OptionSchema,
        vni: Vni,
        protocol: u16,
        defined: impl IntoIterator<Item = GeneveOption<'a>>,
    ) -> Result<HeaderBytes, BuildError> {
        let class = schema.class();
        let mut builder = GeneveBuilder::new(vni, protocol);
        if let Some(option) = self.endpoint {
            builder = builder.option(class, kind::ENDPOINT, &option.to_wire())?;
        }
        if let Some((set, critical)) = &self.labels {
            let kind = if *critical {
                kind::LABELS_CRITICAL
            } else {
                kind::LABELS
            };
            builder = builder.option(class, kind, set.write(&mut [0; MAX_LABELS * 8]))?;
        }
        if let Some(option) = self.class {
            builder = builder.option(class, kind::CLASS, &option.to_wire())?;
        }
        if let Some(option) = &self.service {
            let data = &mut [0; ServiceOption::LEN_V6];
            builder = builder.option(class, kind::SERVICE, option.write(data))?;
        }
        for option in defined {
            builder = builder.copy_option(&option)?;
        }
        Ok(builder.finish())
    }

    /// Returns the length of these options with their headers, without user-defined ones: 0 to 164 bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        let labels = self.labels.as_ref().map(|(set, _)| set.wire_len());
        let service = self.service.as_ref().map(ServiceOption::wire_len);
        [
            self.endpoint.map(|_| EndpointOption::LEN),
            labels,
            self.class.map(|_| ClassOption::LEN),
            service,
        ]
        .into_iter()
        .flatten()
        .map(|data| OPTION_HEADER_LEN + data)
        .sum()
    }

    /// Whether there are no options.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
