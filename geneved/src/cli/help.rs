//! Output of `help`: BNF generated from the tables, with notes on metavariables.

use super::command::{CommandDef, GlobalCommand, ObjectDef};
use super::options;
use super::synopsis::synopsis;
use super::table::{ALL_OBJECTS, VERBS};

const WIDTH: usize = 79;

/// Grammar of the whole command line.
#[must_use]
pub fn everything() -> String {
    let mut text = String::from(
        "Usage: geneved [ OPTIONS ] OBJECT { COMMAND | help }
       geneved [ OPTIONS ] VERB [ ARGUMENTS | help ]
       geneved [ OPTIONS ] [ -force | -atomic ] -batch { FILE | - }
",
    );
    let objects: Vec<_> = ALL_OBJECTS.iter().map(|o| o.name.to_owned()).collect();
    let verbs: Vec<_> = VERBS.iter().map(|v| v.name.to_owned()).collect();
    text += &alternatives("where  OBJECT := ", &objects);
    text += &alternatives("       VERB := ", &verbs);
    text += &alternatives("       OPTIONS := ", &options::bnf());
    let about = ALL_OBJECTS.iter().map(|o| (o.name, o.about));
    for (name, about) in about.chain(VERBS.iter().map(|v| (v.name, v.about))) {
        text += &format!("       {name:<11} {about}\n");
    }
    text
}

/// Formats `HEAD{ A | B | ... }`, with continuation lines indented below the brace.
fn alternatives(head: &str, all: &[String]) -> String {
    let indent = " ".repeat(head.len() + 1);
    let mut lines = vec![format!("{head}{{")];
    for (at, one) in all.iter().enumerate() {
        let end = if at + 1 == all.len() { " }" } else { " |" };
        let last = lines.last_mut().expect("there is a first line");
        if last.len() + 1 + one.len() + end.len() > WIDTH {
            lines.push(format!("{indent} {one}{end}"));
        } else {
            *last += &format!(" {one}{end}");
        }
    }
    lines.join("\n") + "\n"
}

/// Grammar of an object's commands.
#[must_use]
pub fn object(object: &ObjectDef) -> String {
    let commands: Vec<_> = object.commands.iter().collect();
    with_notes(&usage(object.name, &commands), object.notes)
}

/// Grammar of one command of an object.
#[must_use]
pub fn command(object: &ObjectDef, command: &CommandDef) -> String {
    with_notes(&usage(object.name, &[command]), object.notes)
}

/// Grammar of a command that works on no object.
#[must_use]
pub fn verb(verb: &GlobalCommand) -> String {
    let words = (verb.command.words)();
    let head = format!("geneved {}", verb.name);
    with_notes(
        &format!("Usage: {}\n", indented(&synopsis(&head, &words))),
        verb.notes,
    )
}

fn usage(object: &str, commands: &[&CommandDef]) -> String {
    let mut text = String::new();
    for (at, command) in commands.iter().enumerate() {
        let head = format!("geneved {object} {}", command.names[0]);
        let margin = if at == 0 { "Usage: " } else { "       " };
        text += margin;
        text += &indented(&synopsis(&head, &(command.words)()));
        text += "\n";
    }
    text
}

fn with_notes(usage: &str, notes: &str) -> String {
    match notes {
        "" => usage.to_owned(),
        notes => format!("{usage}where  {}\n", indented(notes)),
    }
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n       ")
}
