//! Labels, selectors, and the source and destination of rules.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use libgeneve::label::{LabelMap, Selector};

use super::address::wrong_length;
use super::{NONE_WORD, ValueError, as_word, not_among, wrong};

as_word! { LabelsValue SelectorValue RulePeerValue }

/// `KEY=VALUE,...`, or `none` for an endpoint known to have no labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelsValue(pub LabelMap);

impl FromStr for LabelsValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        if matches!(text.trim(), "none" | "") {
            return Ok(LabelsValue::default());
        }
        text.parse()
            .map(LabelsValue)
            .map_err(|e| ValueError::new(format!("invalid labels: {e}")))
    }
}

impl fmt::Display for LabelsValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("none")
        } else {
            self.0.fmt(f)
        }
    }
}

/// A non-empty selector in Kubernetes syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorValue(pub Selector);

impl FromStr for SelectorValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.parse::<Selector>() {
            Ok(selector) if selector.is_empty() => not_among(
                &["any"],
                "invalid selector: it is empty; write \"any\" for everybody",
            ),
            Ok(selector) => Ok(SelectorValue(selector)),
            Err(e) => wrong(format!("invalid selector: {e}")),
        }
    }
}

impl fmt::Display for SelectorValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Source or destination of a rule: `any`, a prefix, or a selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RulePeerValue {
    /// Every address.
    #[default]
    Any,
    /// Addresses in this prefix, which has no host bits.
    Prefix(IpNet),
    /// Endpoints whose labels match.
    Selector(SelectorValue),
}

impl FromStr for RulePeerValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        if text == "any" {
            return Ok(RulePeerValue::Any);
        }
        // As a selector it would be a key that hardly any endpoint has.
        if text == NONE_WORD {
            return wrong(
                "everybody is \"any\"; a selector of this key is written \"none in (VALUE)\"",
            );
        }
        let prefix = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match prefix {
            Ok(net) if net == net.trunc() => Ok(RulePeerValue::Prefix(net)),
            Ok(net) => wrong(format!(
                "invalid prefix: bits beyond the prefix length are set; did you mean \"{}\"?",
                net.trunc()
            )),
            // A mistyped prefix is usually a valid label key, but one that no endpoint would ever have.
            Err(_) if looks_like_an_address(text) => match wrong_length(text) {
                Some(error) => Err(error),
                None => wrong(
                    "neither an address nor a prefix; a selector of a key like this is written \"KEY in (VALUE)\"",
                ),
            },
            Err(_) => text.parse().map(RulePeerValue::Selector),
        }
    }
}

fn looks_like_an_address(text: &str) -> bool {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    text.contains(':') || digits && !text.contains([' ', '=', ',', '('])
}

impl fmt::Display for RulePeerValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RulePeerValue::Any => f.write_str("any"),
            RulePeerValue::Prefix(net) if net.prefix_len() == net.max_prefix_len() => {
                net.addr().fmt(f)
            }
            RulePeerValue::Prefix(net) => net.fmt(f),
            RulePeerValue::Selector(selector) => selector.fmt(f),
        }
    }
}
