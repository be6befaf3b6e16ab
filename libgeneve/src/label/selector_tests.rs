//! Tests of the selector grammar, and that text and hashes match alike.

use super::*;
use proptest::prelude::*;
use proptest::sample::select;

fn parse(text: &str) -> Result<Selector, SelectorError> {
    text.parse()
}

fn labels(text: &str) -> LabelMap {
    text.parse().unwrap()
}

#[test]
fn every_form_of_kubernetes_is_read_and_has_one_spelling() {
    for (text, canonical) in [
        ("", ""),
        (" \t\r\n", ""),
        ("a=b", "a=b"),
        ("a == b", "a=b"),
        ("a != b", "a!=b"),
        ("a in (b)", "a=b"),
        ("a notin(b)", "a!=b"),
        ("a in ( c , b,c )", "a in (b,c)"),
        ("a\nnotin\t(c,b)", "a notin (b,c)"),
        ("a", "a"),
        ("! a", "!a"),
        ("b,a,!c , d=e", "b,a,!c,d=e"),
        ("example.com/app=web", "example.com/app=web"),
        // A missing value is the empty value.
        ("a=", "a="),
        ("a=,b!=", "a=,b!="),
        ("a in (,)", "a="),
        ("a in (b,)", "a in (,b)"),
        ("a in (b,,c)", "a in (,b,c)"),
        // Operators are names where no operator is allowed.
        ("in", "in"),
        ("!notin", "!notin"),
        ("in in (in,notin)", "in in (in,notin)"),
        ("in=in,notin notin (notin)", "in=in,notin!=notin"),
    ] {
        let selector = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(selector.to_string(), canonical, "{text}");
        assert_eq!(parse(canonical), Ok(selector), "{text}");
    }
}

#[test]
fn an_error_says_where_and_what_was_expected() {
    for (text, at, found, expected) in [
        (",", 0, "','", "a key or '!'"),
        ("a,", 2, "the end", "a key or '!'"),
        ("a,,b", 2, "','", "a key or '!'"),
        ("!", 1, "the end", "a key"),
        ("!!a", 1, "'!'", "a key"),
        ("a b", 2, "'b'", "an operator, ',' or the end"),
        ("!a=b", 2, "'='", "',' or the end"),
        ("a=b c", 4, "'c'", "',' or the end"),
        ("a===b", 3, "'='", "a value"),
        ("a=(b)", 2, "'('", "a value"),
        ("a in b", 5, "'b'", "'('"),
        ("a in", 4, "the end", "'('"),
        ("a in ()", 6, "')'", "a value or ','"),
        ("a in (b", 7, "the end", "',' or ')'"),
        ("a in (b c)", 8, "'c'", "',' or ')'"),
        ("a in ((b))", 6, "'('", "a value, ',' or ')'"),
    ] {
        let found = found.to_owned();
        let error = SelectorError::Unexpected {
            at,
            found,
            expected,
        };
        assert_eq!(parse(text), Err(error), "{text}");
    }
    let message = |text: &str| parse(text).unwrap_err().to_string();
    assert!(message("a > 5").contains("at byte 2: found '>'"));
    assert!(message("a > 5").contains("no order"));
    assert!(message("a=b,-c").starts_with("selector, at byte 4: key '-c': only letters"));
    assert!(message("a=b, c=d_").starts_with("selector, at byte 7: value 'd_': only letters"));
    assert!(message("ä=b").starts_with("selector, at byte 0: key 'ä'"));
}

#[test]
fn a_selector_has_bounds_and_ten_kilobytes_are_within() {
    let many = |count: usize| vec!["k"; count].join(",");
    assert!(parse(&many(MAX_REQUIREMENTS)).is_ok());
    let error = parse(&many(MAX_REQUIREMENTS + 1)).unwrap_err();
    assert_eq!(error, SelectorError::TooManyRequirements(2000));
    assert!(parse(&format!("k in ({})", vec!["v"; MAX_VALUES].join(","))).is_ok());
    let values = vec!["k in (v,w)"; MAX_VALUES / 2].join(",");
    assert!(parse(&values).is_ok());
    let error = parse(&format!("{values},k=v")).unwrap_err();
    assert!(matches!(error, SelectorError::TooManyValues(_)));
    assert_eq!(
        parse(&" ".repeat(MAX_SELECTOR_LEN + 1)),
        Err(SelectorError::TooLong(MAX_SELECTOR_LEN + 1))
    );
    let long: Vec<String> = (0..200).map(|n| format!("{n:063}")).collect();
    let long = format!("k in ({})", long.join(","));
    assert!(long.len() > 10_240);
    assert_eq!(parse(&long).unwrap().to_string(), long);
}

#[test]
fn an_absent_label_fulfils_what_denies_and_nothing_else() {
    for (text, web, other, absent) in [
        ("", true, true, true),
        ("app=web", true, false, false),
        ("app!=web", false, true, true),
        ("app in (web,db)", true, false, false),
        ("app notin (web,db)", false, true, true),
        ("app", true, true, false),
        ("!app", false, false, true),
        ("app,app!=web", false, true, false),
    ] {
        let selector = parse(text).unwrap();
        let matches =
            ["app=web,x=y", "app=other", "x=web"].map(|l| selector.matches_map(&labels(l)));
        assert_eq!(matches, [web, other, absent], "{text}");
    }
    assert!(parse("a=").unwrap().matches_map(&labels("a=")));
    assert!(!parse("a=").unwrap().matches_map(&labels("")));
}

/// Few names, so that selectors and labels often match.
fn name() -> impl Strategy<Value = String> {
    select(vec!["a", "in", "notin", "x.y/a", "B-9", "c_d.e"]).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = String> {
    select(vec!["", "a", "in", "notin", "v1.2", "Z"]).prop_map(str::to_owned)
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let values = || proptest::collection::btree_set(value(), 1..4);
    prop_oneof![
        (name(), values()).prop_map(|(key, values)| Requirement::In { key, values }),
        (name(), values()).prop_map(|(key, values)| Requirement::NotIn { key, values }),
        name().prop_map(Requirement::Exists),
        name().prop_map(Requirement::NotExists),
    ]
}

fn selector() -> impl Strategy<Value = Selector> {
    proptest::collection::vec(requirement(), 0..5)
        .prop_map(|requirements| Selector { requirements })
}

fn label_map() -> impl Strategy<Value = LabelMap> {
    proptest::collection::btree_map(name(), value(), 0..5).prop_map(|labels| {
        let mut map = LabelMap::default();
        for (key, value) in labels {
            map.insert(&key, &value).unwrap();
        }
        map
    })
}

proptest! {
    #[test]
    fn a_selector_survives_its_own_text(selector in selector()) {
        prop_assert_eq!(parse(&selector.to_string()), Ok(selector));
    }

    #[test]
    fn arbitrary_text_never_panics_and_has_one_spelling(
        text in prop_oneof![any::<String>(), "[a-c!=(), <>\tinot/._-]{0,40}"]
    ) {
        if let Ok(selector) = parse(&text) {
            prop_assert_eq!(parse(&selector.to_string()), Ok(selector));
        }
        if let Ok(labels) = text.parse::<LabelMap>() {
            prop_assert_eq!(labels.to_string().parse(), Ok(labels));
        }
    }

    #[test]
    fn hashes_match_where_texts_do(selector in selector(), labels in label_map()) {
        let key = LabelKey::from_secret(b"a secret for tests");
        let set = labels.hashed(&key).unwrap();
        prop_assert_eq!(set.len(), labels.len());
        prop_assert_eq!(selector.hashed(&key).matches(&set), selector.matches_map(&labels));
    }
}
