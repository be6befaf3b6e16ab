//! Suggestions for mistyped words.

use strsim::osa_distance;

/// Maximum number of letters to compare, which bounds the cost of long words.
const MAX_COMPARED: usize = 64;

/// Finds the candidate nearest to a mistyped word, if one is near enough.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = beginning(word);
    candidates
        .into_iter()
        .map(|candidate| (osa_distance(typed, beginning(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.len().min(word.len()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Prefix of a word that is compared.
fn beginning(word: &str) -> &str {
    match word.char_indices().nth(MAX_COMPARED) {
        Some((at, _)) => &word[..at],
        None => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_are_lost_replaced_or_swapped_are_near() {
        let words = ["remote", "local", "id"];
        for typed in ["remte", "remotte", "remite", "remoet"] {
            assert_eq!(nearest(typed, words), Some("remote"));
        }
        assert_eq!(nearest("ix", words), Some("id"));
        assert_eq!(nearest("xyz", words), None);
    }

    #[test]
    fn long_words_are_compared_by_their_beginning() {
        let long = "ä".repeat(100);
        assert_eq!(beginning(&long).chars().count(), MAX_COMPARED);
        assert_eq!(nearest(&"a".repeat(1 << 20), ["remote"]), None);
        assert_eq!(nearest(&long, [long.as_str()]), Some(long.as_str()));
    }
}
