//! Selectors, labels and option matches: any text is refused or has one canonical form, and hashes match where texts
//! do.
#![no_main]

use libfuzzer_sys::fuzz_target;
use libgeneve::label::{LabelKey, LabelMap, Labels, Selector};
use libgeneve::options::OptionMatch;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // The labels to match against precede the first line break.
    let (labels, rest) = text.split_once('\n').unwrap_or(("", text));
    let labels = labels.parse::<LabelMap>().ok();
    if let Some(labels) = &labels {
        assert_eq!(labels.to_string().parse().as_ref(), Ok(labels));
    }
    match rest.parse::<Selector>() {
        Ok(selector) => {
            assert_eq!(selector.to_string().parse().as_ref(), Ok(&selector));
            let key = LabelKey::from_secret(b"a secret for fuzzing");
            let hashed = selector.hashed(&key);
            assert_eq!(
                hashed.decide(Labels::Unknown).is_some(),
                selector.is_empty()
            );
            let labels = labels.unwrap_or_default();
            if let Ok(set) = labels.hashed(&key) {
                assert_eq!(
                    hashed.decide(Labels::Known(&set)),
                    Some(selector.matches_map(&labels))
                );
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match rest.parse::<OptionMatch>() {
        Ok(wanted) => assert_eq!(wanted.to_string().parse().as_ref(), Ok(&wanted)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
