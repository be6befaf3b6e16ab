//! What the commands of most objects have in common: `add`, `set`, `del` and `show`.

use super::error::CliError;
use super::grammar::{self, Keyword};
use super::output::Record;
use super::{Command, Context};
use crate::config::words::{Change, Verb};

/// An object as its commands gather it, word by word.
pub trait Subject: Default + 'static {
    /// The object's name.
    const NAME: &'static str;
    /// The keywords of `add`.
    const ADD: &'static [Keyword<Self>];
    /// The keywords of `set`.
    const SET: &'static [Keyword<Self>] = Self::ADD;
    /// The keywords of `del`: what names the object.
    const DEL: &'static [Keyword<Self>];
    /// The keywords of `show`.
    const SHOW: &'static [Keyword<Self>];

    /// The change that these words ask for.
    ///
    /// # Errors
    /// The words are not enough.
    fn change(self, verb: Verb) -> Result<Change, CliError>;

    /// Shows the objects that these words name.
    ///
    /// # Errors
    /// The daemon does not answer, or refuses.
    fn show(self, context: &mut Context) -> Result<(), CliError>;
}

/// The commands of an object that can be changed in place.
pub const fn commands<T: Subject>() -> [Command; 4] {
    [add::<T>(), set::<T>(), del::<T>(), show::<T>()]
}

/// The commands of an object that is deleted and added instead.
pub const fn commands_without_set<T: Subject>() -> [Command; 3] {
    [add::<T>(), del::<T>(), show::<T>()]
}

const fn add<T: Subject>() -> Command {
    Command {
        names: &["add"],
        run: |c, w| change::<T>(c, Verb::Add, T::ADD, w),
        usage: || usage("add", T::ADD),
    }
}

const fn set<T: Subject>() -> Command {
    Command {
        names: &["set", "change"],
        run: |c, w| change::<T>(c, Verb::Set, T::SET, w),
        usage: || usage("set", T::SET),
    }
}

const fn del<T: Subject>() -> Command {
    Command {
        names: &["del", "delete"],
        run: |c, w| change::<T>(c, Verb::Del, T::DEL, w),
        usage: || usage("del", T::DEL),
    }
}

const fn show<T: Subject>() -> Command {
    Command {
        names: &["show", "list", "lst"],
        run: |c, w| {
            let mut wanted = T::default();
            grammar::parse(T::SHOW, w, &mut wanted)?;
            wanted.show(c)
        },
        usage: || usage("show", T::SHOW),
    }
}

fn usage<T: Subject>(command: &str, keys: &[Keyword<T>]) -> String {
    grammar::synopsis(&format!("geneved {} {command}", T::NAME), keys)
}

fn change<T: Subject>(
    context: &mut Context,
    verb: Verb,
    keys: &[Keyword<T>],
    words: &[String],
) -> Result<(), CliError> {
    let mut subject = T::default();
    grammar::parse(keys, words, &mut subject)?;
    context.apply(subject.change(verb)?)
}

/// Prints what a reply has, one record each.
pub fn print<R: Record>(context: &Context, all: &[R]) {
    let records: Vec<&dyn Record> = all.iter().map(|one| one as &dyn Record).collect();
    context.print(&records);
}
