//! Formatting of counts with their nouns.

use std::fmt::Display;

/// `1 link`, `2 links`: forms the plural with an `s`.
#[must_use]
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(number: N, what: &str) -> String {
    format!("{number} {}", noun(number, what))
}

/// The noun alone, in the form that fits `number`.
#[must_use]
pub fn noun<N: Copy + PartialEq + From<u8>>(number: N, what: &str) -> String {
    match number == N::from(1) {
        true => what.to_owned(),
        false => format!("{what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_no_plural() {
        assert_eq!(counted(1_usize, "link"), "1 link");
        assert_eq!(counted(0_u32, "host"), "0 hosts");
        assert_eq!(counted(2_u64, "route"), "2 routes");
        assert_eq!(format!("1.0k {}", noun(1000_u64, "event")), "1.0k events");
    }
}
