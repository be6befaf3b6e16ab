//! Parsing of words against a small table.

use super::super::synopsis::synopsis;
use super::*;

#[derive(Debug, Default, PartialEq)]
struct SampleCommand {
    name: String,
    count: u32,
    list: Vec<String>,
    on: bool,
}

const KEYWORDS: &[Keyword<SampleCommand>] = &[
    Keyword::value(&["name", "dev"], "NAME", |c: &mut SampleCommand, v| {
        c.name = v.into();
        Ok(())
    })
    .bare()
    .times(Repetition::Once),
    Keyword::value(&["count"], "N", |c: &mut SampleCommand, v| {
        c.count = v.parse().map_err(|_| ValueError::new("not a number"))?;
        Ok(())
    }),
    Keyword::value(&["column"], "C", |c: &mut SampleCommand, v| {
        c.list.push(v.into());
        Ok(())
    })
    .times(Repetition::Many),
    Keyword::flag(&["on"], |c: &mut SampleCommand| c.on = true),
    Keyword::flag(&["noon"], |c: &mut SampleCommand| c.on = false),
];

fn words(line: &str) -> Result<SampleCommand, String> {
    let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
    let mut command = SampleCommand::default();
    parse(KEYWORDS, &words, &mut command).map_err(|e| e.to_string())?;
    Ok(command)
}

#[test]
fn keywords_come_in_any_order_and_by_prefix() {
    let command = words("count 3 x on col a col b").unwrap();
    assert_eq!(command, words("x col a on col b cou 3").unwrap());
    assert_eq!(
        (command.name.as_str(), command.count, command.list.len()),
        ("x", 3, 2)
    );
}

#[test]
fn the_first_word_is_the_name_even_if_a_keyword_begins_so() {
    assert_eq!(words("c count 1").unwrap().name, "c");
    assert_eq!(words("on name c").unwrap().name, "c");
}

#[test]
fn complaints_have_the_words_of_ip() {
    let complaint = |line| words(line).unwrap_err();
    assert_eq!(
        complaint("x co 1"),
        "Error: argument \"co\" is wrong: ambiguous: could be count, column"
    );
    assert_eq!(
        complaint("x count many"),
        "Error: argument \"many\" is wrong: not a number"
    );
    assert_eq!(
        complaint("x count 1 count 2"),
        "Error: either \"count\" is duplicate, or \"2\" is a garbage."
    );
    assert_eq!(
        complaint("x banana"),
        "Error: either \"name\" is duplicate, or \"banana\" is a garbage."
    );
    assert_eq!(
        complaint("x cuont 1"),
        "Error: argument \"cuont\" is wrong: unknown keyword; did you mean \"count\"?"
    );
    assert_eq!(
        complaint("x count"),
        "Command line is not complete. Try option \"help\""
    );
    assert_eq!(
        complaint("count 1"),
        "Not enough information: \"name\" argument is required."
    );
}

#[test]
fn help_is_made_of_the_same_table() {
    assert_eq!(
        synopsis("geneved x add", &super::words(KEYWORDS)),
        "geneved x add [ name ] NAME [ count N ] [ column C ]... [ [no]on ]"
    );
}

#[test]
fn a_flag_and_its_opposite_do_not_stand_together() {
    assert_eq!(words("x on on").unwrap(), words("x on").unwrap());
    for (line, word, other) in [("x on noon", "noon", "on"), ("x noon on", "on", "noon")] {
        let said = words(line).unwrap_err();
        let expected =
            format!("Error: argument \"{word}\" is wrong: it is the opposite of \"{other}\"");
        assert_eq!(said, expected);
    }
}

#[test]
fn a_suggestion_is_a_word_that_is_valid_and_not_one_that_the_reason_quotes() {
    let quoting = ValueError::new("not a name: letters and \"_\"");
    assert_eq!(
        wrong_value("-", &quoting).to_string(),
        "Error: argument \"-\" is wrong: not a name: letters and \"_\""
    );
    let expecting = ValueError::new("a way").expecting(&["left", "right"]);
    assert_eq!(
        wrong_value("rihgt", &expecting).to_string(),
        "Error: argument \"rihgt\" is wrong: a way; did you mean \"right\"?"
    );
}
