//! Numbers of things, in words.

use std::fmt::Display;

/// `1 link`, `2 links`: the plural is the word with an `s`.
#[must_use]
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(number: N, what: &str) -> String {
    match number == N::from(1) {
        true => format!("{number} {what}"),
        false => format!("{number} {what}s"),
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
    }
}
