//! Kubernetes' syntax rules for label keys and values.

/// Most bytes of a value or of the name part of a key.
const MAX_NAME: usize = 63;
/// Most bytes of a key's prefix, as for any DNS name.
const MAX_PREFIX: usize = 253;

/// Why a label's key or value is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// The key is empty, or nothing follows its `/`.
    #[error("a key's name is not empty")]
    EmptyName,
    /// The name or the value has more than 63 bytes.
    #[error("at most 63 characters")]
    TooLong,
    /// The name or the value has an invalid character, or begins or ends with `-`, `_` or `.`.
    #[error("only letters, digits, '-', '_' and '.', with a letter or digit first and last")]
    Character,
    /// The part before the `/` is not a DNS name.
    #[error(
        "before the '/' stands a DNS name of at most 253 characters: lower-case letters, digits, '-' and '.'"
    )]
    Prefix,
}

/// Checks that `key` is a name, optionally preceded by a DNS name and a `/`.
pub(super) fn check_key(key: &str) -> Result<(), SyntaxError> {
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            if !is_dns_name(prefix) {
                return Err(SyntaxError::Prefix);
            }
            name
        }
        None => key,
    };
    if name.is_empty() {
        return Err(SyntaxError::EmptyName);
    }
    check_name(name)
}

/// Checks that `value` is empty or a name.
pub(super) fn check_value(value: &str) -> Result<(), SyntaxError> {
    if value.is_empty() {
        return Ok(());
    }
    check_name(value)
}

fn check_name(name: &str) -> Result<(), SyntaxError> {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.len() > MAX_NAME {
        Err(SyntaxError::TooLong)
    } else if encloses(name, |byte| byte.is_ascii_alphanumeric()) && name.bytes().all(inside) {
        Ok(())
    } else {
        Err(SyntaxError::Character)
    }
}

fn is_dns_name(name: &str) -> bool {
    let outside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_part = |part: &str| {
        encloses(part, outside) && part.bytes().all(|byte| outside(byte) || byte == b'-')
    };
    name.len() <= MAX_PREFIX && name.split('.').all(is_part)
}

/// Whether `text` is not empty, and its first and last byte satisfy `kind`.
fn encloses(text: &str, kind: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|&byte| kind(byte)) && bytes.last().is_some_and(|&byte| kind(byte))
}

/// Quotes `text`, truncated to a length that fits a message.
pub(super) fn quote(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("'{}…'", text[..end].escape_debug()),
        None => format!("'{}'", text.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_the_rules_of_kubernetes() {
        let long = "a".repeat(63);
        for good in [
            "a",
            "App",
            "a.b_c-D9",
            "9",
            "example.com/app",
            "a-b.c/x",
            "1.2/x",
            &long,
        ] {
            assert_eq!(check_key(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", SyntaxError::EmptyName),
            ("example.com/", SyntaxError::EmptyName),
            (&*format!("{long}a"), SyntaxError::TooLong),
            ("-a", SyntaxError::Character),
            ("a.", SyntaxError::Character),
            ("a b", SyntaxError::Character),
            ("ä", SyntaxError::Character),
            ("a/b/c", SyntaxError::Character),
            ("/a", SyntaxError::Prefix),
            ("Example.com/a", SyntaxError::Prefix),
            ("a..b/c", SyntaxError::Prefix),
            ("a_b/c", SyntaxError::Prefix),
            ("-a.b/c", SyntaxError::Prefix),
            (&*format!("{}/a", "a.".repeat(127)), SyntaxError::Prefix),
        ] {
            assert_eq!(check_key(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn a_value_may_be_empty_and_has_no_prefix() {
        assert_eq!(check_value(""), Ok(()));
        assert_eq!(check_value("v1.2_rc-3"), Ok(()));
        assert_eq!(check_value("a/b"), Err(SyntaxError::Character));
        assert_eq!(check_value(&"a".repeat(64)), Err(SyntaxError::TooLong));
    }

    #[test]
    fn a_quote_is_short_and_printable() {
        assert_eq!(quote("a\nb"), "'a\\nb'");
        let long = quote(&"ä".repeat(1000));
        assert!(long.chars().count() <= 83, "{long}");
    }
}
