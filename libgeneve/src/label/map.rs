//! The labels of an endpoint as text: `app=web,tier=front`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::syntax::{SyntaxError, check_key, check_value, quote};
use super::{Label, LabelCollision, LabelKey, LabelSet, MAX_LABELS};

/// Labels of an endpoint: at most 15 values, each under its own key.
///
/// A key is a name of at most 63 letters, digits, `-`, `_` and `.`, optionally preceded by a prefix, which is a DNS
/// name and a `/`. A value is empty or a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelMap(BTreeMap<String, String>);

/// Why a text is not a valid list of labels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The label has no `=`.
    #[error("label {}: expected KEY=VALUE", quote(.0))]
    NoValue(String),
    /// The key is invalid.
    #[error("label {}: key {}: {why}", quote(.label), quote(.key))]
    Key {
        /// The whole label.
        label: String,
        /// Its key.
        key: String,
        /// The rule that it breaks.
        why: SyntaxError,
    },
    /// The value is invalid.
    #[error("label {}: value {}: {why}", quote(.label), quote(.value))]
    Value {
        /// The whole label.
        label: String,
        /// Its value.
        value: String,
        /// The rule that it breaks.
        why: SyntaxError,
    },
    /// The key occurs twice.
    #[error("label {}: its key is there twice", quote(.0))]
    Duplicate(String),
    /// This label is one too many: the limit is 15.
    #[error("label {}: an endpoint has at most {MAX_LABELS} labels", quote(.0))]
    TooMany(String),
}

impl LabelMap {
    /// Number of labels, 0 to 15.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Adds the label `key=value`.
    ///
    /// # Errors
    ///
    /// A [`LabelError`] if the label is invalid, a duplicate or one too many; nothing is added then.
    pub fn insert(&mut self, key: &str, value: &str) -> Result<(), LabelError> {
        let label = || format!("{key}={value}");
        check_key(key).map_err(|why| LabelError::Key {
            label: label(),
            key: key.to_owned(),
            why,
        })?;
        check_value(value).map_err(|why| LabelError::Value {
            label: label(),
            value: value.to_owned(),
            why,
        })?;
        if self.0.contains_key(key) {
            return Err(LabelError::Duplicate(label()));
        }
        if self.0.len() == MAX_LABELS {
            return Err(LabelError::TooMany(label()));
        }
        self.0.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// Returns the labels as the wire carries them.
    ///
    /// # Errors
    ///
    /// [`LabelCollision`] if two keys have the same 32-bit hash under this secret, so that a receiver could not tell
    /// them apart. For 15 labels this happens with one secret in 40 million.
    pub fn hashed(&self, key: &LabelKey) -> Result<LabelSet, LabelCollision> {
        let mut labels: Vec<(Label, &str)> =
            self.iter().map(|(k, v)| (key.label(k, v), k)).collect();
        labels.sort_unstable();
        if let Some(pair) = labels.windows(2).find(|two| two[0].0.key == two[1].0.key) {
            return Err(LabelCollision(pair[0].1.to_owned(), pair[1].1.to_owned()));
        }
        let mut set = LabelSet::EMPTY;
        for (label, _) in labels {
            set.push(label);
        }
        Ok(set)
    }
}

/// Parses `KEY=VALUE,KEY=VALUE`, with optional white space around labels; an empty text has no labels.
impl FromStr for LabelMap {
    type Err = LabelError;
    fn from_str(text: &str) -> Result<LabelMap, LabelError> {
        let mut map = LabelMap::default();
        if text.trim().is_empty() {
            return Ok(map);
        }
        for label in text.split(',').map(str::trim) {
            let (key, value) = label
                .split_once('=')
                .ok_or_else(|| LabelError::NoValue(label.to_owned()))?;
            map.insert(key, value)?;
        }
        Ok(map)
    }
}

/// `KEY=VALUE,KEY=VALUE`, sorted by key.
impl fmt::Display for LabelMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, value)) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<LabelMap, LabelError> {
        text.parse()
    }

    #[test]
    fn labels_are_read_and_shown_in_the_order_of_their_keys() {
        let map = parse("tier=front, example.com/app=web ,empty=").unwrap();
        assert_eq!(map.to_string(), "empty=,example.com/app=web,tier=front");
        assert_eq!(parse(&map.to_string()), Ok(map.clone()));
        assert_eq!(map.get("empty"), Some(""));
        assert_eq!(map.get("none"), None);
        assert!(parse("").unwrap().is_empty() && parse(" ").unwrap().is_empty());
    }

    #[test]
    fn an_error_says_which_label_and_why() {
        let message = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(message("a=b,c"), "label 'c': expected KEY=VALUE");
        assert_eq!(message("a=b,"), "label '': expected KEY=VALUE");
        assert_eq!(message("a=b,a=b"), "label 'a=b': its key is there twice");
        assert!(message("a=b=c").starts_with("label 'a=b=c': value 'b=c': only letters"));
        assert!(message("=b").starts_with("label '=b': key '': a key's name is not empty"));
        let many: Vec<String> = (0..16).map(|n| format!("k{n}=v")).collect();
        assert_eq!(
            message(&many.join(",")),
            "label 'k15=v': an endpoint has at most 15 labels"
        );
        assert_eq!(parse(&many[..15].join(",")).unwrap().len(), 15);
    }

    #[test]
    fn keys_that_the_wire_cannot_tell_apart_are_refused() {
        let secret = LabelKey::from_secret(b"a secret for tests");
        let mut seen = std::collections::HashMap::new();
        let (one, two) = (0..400_000)
            .find_map(|n| {
                let earlier = seen.insert(secret.key_hash(&format!("k{n}")), n)?;
                Some((format!("k{earlier}"), format!("k{n}")))
            })
            .unwrap();
        let map = parse(&format!("{one}=a,{two}=b,other=c")).unwrap();
        let LabelCollision(a, b) = map.hashed(&secret).unwrap_err();
        assert!([a, b].contains(&one) && one != two);
        assert!(map.hashed(&LabelKey::from_secret(b"another")).is_ok());
    }
}
