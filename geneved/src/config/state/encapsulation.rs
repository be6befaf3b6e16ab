//! Refuses, at configuration time, what an encapsulation cannot carry.

use libgeneve::wire::encapsulation::InnerProtocol;

use super::{DesiredState, LinkSpec};
use crate::config::value::{IfName, LabelsUse};
use crate::refusal::{Refusal, RefusalCause};

impl DesiredState {
    /// Checks that a link's encapsulation suits its other settings and the other links.
    pub(super) fn check_encapsulation(&self, link: &LinkSpec) -> Result<(), Refusal> {
        let (name, encapsulation) = (&link.name, link.encapsulation);
        let other = self.other_on_port(link);
        let other = other.filter(|other| other.encapsulation != encapsulation);
        if let Some(other) = other {
            return Err(Refusal::new(
                format!(
                    "link \"{name}\": port {} is already that of link \"{}\" of type {}",
                    link.port, other.name, other.encapsulation
                ),
                "links of one type share a port; choose another dstport",
            )
            .because(RefusalCause::Conflict(other.name.to_string())));
        }
        if !encapsulation.carries(link.inner) {
            return Err(Refusal::new(
                format!(
                    "link \"{name}\": inner \"{}\" is wrong: {} carries Ethernet frames only",
                    link.inner,
                    encapsulation.title()
                ),
                "leave \"inner\" out, or make it \"type geneve\"",
            ));
        }
        if link.lladdr.is_some() && link.inner != InnerProtocol::Ethernet {
            return Err(Refusal::new(
                format!("link \"{name}\": lladdr is for links whose datagrams carry frames"),
                "add \"inner ethernet\", or leave \"lladdr\" out",
            ));
        }
        let object = format!("link \"{name}\"");
        if !link.options.is_empty() {
            refuse_options(link, &object, "option")?;
        }
        if link.labels != LabelsUse::Optional {
            refuse_options(link, &object, "labels")?;
        }
        Ok(())
    }

    /// Checks that packets of the link `dev` can carry the options that `word` of `object` needs.
    pub(super) fn check_carried(
        &self,
        dev: &IfName,
        object: &str,
        word: &str,
    ) -> Result<(), Refusal> {
        refuse_options(self.link(dev)?, object, word)
    }
}

fn refuse_options(link: &LinkSpec, object: &str, word: &str) -> Result<(), Refusal> {
    if link.encapsulation.has_options() {
        return Ok(());
    }
    Err(Refusal::new(
        format!(
            "{object}: {word} needs options in packets, and {} has none",
            link.encapsulation.title()
        ),
        format!("leave \"{word}\" out, or make the link \"type geneve\""),
    ))
}
