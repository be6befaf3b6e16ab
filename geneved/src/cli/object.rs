//! What the commands of most objects have in common: `add`, `set`, `replace`, `del` and `show`.

use super::command::Command;
use super::context::Context;
use super::error::CliError;
use super::field::key;
use super::grammar::{self, Keyword};
use super::honours::Honours;
use super::output::Record;
use super::style::Style;
use crate::config::state::absent;
use crate::config::value::{Direction, IfName, Name};
use crate::config::words::{Change, Verb};
use crate::control::client::ClientError;

/// An object as its commands gather it, word by word.
pub trait Subject: Default + 'static {
    /// What it is called.
    const KIND: &'static str;
    /// The keywords of `add` and `replace`.
    const ADD: &'static [Keyword<Self>];
    /// The keywords of `set`.
    const SET: &'static [Keyword<Self>] = Self::ADD;
    /// The keywords of `del`: what names the object.
    const DEL: &'static [Keyword<Self>];

    /// The object as it is shown.
    type Info: Record;
    /// Which ones are shown.
    type Filter: Default + 'static;
    /// The keywords of `show`.
    const SHOW: &'static [Keyword<Self::Filter>];

    /// The change that these words ask for.
    ///
    /// # Errors
    /// The words are not enough, or do not fit the options.
    fn change(self, verb: Verb, context: &mut Context) -> Result<Change, CliError>;

    /// The options that mean something to `show`, beside those of every command that asks the daemon.
    const HONOURS: Honours = Honours::NOTHING;
    /// The options that mean something to commands that change it, beside those.
    const CHANGE_HONOURS: Honours = Honours::NOTHING;

    /// The objects, or more than those that the filter wants.
    ///
    /// # Errors
    /// The daemon does not answer, or refuses.
    fn all(context: &mut Context, filter: &Self::Filter) -> Result<Vec<Self::Info>, CliError>;

    /// The one object that the filter names, as its list shows it; `None` where it names none.
    fn named(filter: &Self::Filter, style: &Style) -> Option<String>;

    /// What an object is named by.
    fn name(info: &Self::Info, style: &Style) -> String;

    /// Whether the filter wants this one.
    fn wants(filter: &Self::Filter, style: &Style, info: &Self::Info) -> bool;

    /// Shows the objects that the filter wants.
    ///
    /// # Errors
    /// The daemon does not answer, or refuses.
    fn show(filter: &Self::Filter, context: &mut Context) -> Result<(), CliError> {
        let style = context.style();
        let mut all = Self::all(context, filter)?;
        if let Some(name) = Self::named(filter, &style) {
            find::<Self>(&name, &all, &style)?;
            all.retain(|info| Self::name(info, &style) == name);
        }
        all.retain(|info| Self::wants(filter, &style, info));
        print(context, &all)
    }
}

/// Refuses where none of the objects has this name.
fn find<T: Subject>(name: &str, all: &[T::Info], style: &Style) -> Result<(), CliError> {
    let names: Vec<String> = all.iter().map(|info| T::name(info, style)).collect();
    if names.iter().any(|other| other == name) {
        return Ok(());
    }
    let object = format!("{} \"{name}\"", T::KIND);
    Err(ClientError::Refused(absent(&object, name, &names, T::KIND)).into())
}

/// The commands of an object that can be changed in place.
pub const fn commands<T: Subject>() -> [Command; 5] {
    [
        add::<T>(),
        set::<T>(),
        replace::<T>(),
        del::<T>(),
        show::<T>(),
    ]
}

/// Where `show` is among [`commands`].
pub const SHOW: usize = 4;

/// `add`.
pub const fn add<T: Subject>() -> Command {
    Command::new(
        &["add"],
        |c, w| change::<T>(c, Verb::Add, T::ADD, w),
        || grammar::words(T::ADD),
    )
    .changing()
    .honouring(T::CHANGE_HONOURS)
}

/// `set`, which `ip route` calls `change`.
pub const fn set<T: Subject>() -> Command {
    Command::new(
        &["set", "change"],
        |c, w| change::<T>(c, Verb::Set, T::SET, w),
        || grammar::words(T::SET),
    )
    .changing()
    .honouring(T::CHANGE_HONOURS)
}

/// `replace`: `add`, or in place of what is there.
pub const fn replace<T: Subject>() -> Command {
    Command::new(
        &["replace"],
        |c, w| change::<T>(c, Verb::Replace, T::ADD, w),
        || grammar::words(T::ADD),
    )
    .changing()
    .honouring(T::CHANGE_HONOURS)
}

/// `del`.
pub const fn del<T: Subject>() -> Command {
    Command::new(
        &["del", "delete"],
        |c, w| change::<T>(c, Verb::Del, T::DEL, w),
        || grammar::words(T::DEL),
    )
    .changing()
    .honouring(T::CHANGE_HONOURS)
}

/// What `show` is called, which `ip` also calls `list` and `lst`.
pub const SHOWN: &[&str] = &["show", "list", "lst", "ls"];

/// `show`.
pub const fn show<T: Subject>() -> Command {
    Command::new(
        SHOWN,
        |c, w| {
            let mut filter = T::Filter::default();
            grammar::parse(T::SHOW, w, &mut filter)?;
            T::show(&filter, c)
        },
        || grammar::words(T::SHOW),
    )
    .honouring(T::HONOURS)
}

fn change<T: Subject>(
    context: &mut Context,
    verb: Verb,
    keys: &[Keyword<T>],
    words: &[String],
) -> Result<(), CliError> {
    let mut subject = T::default();
    let none = grammar::parse_change(keys, words, &mut subject)?;
    let change = subject.change(verb, context)?;
    context.apply(change.without(none))
}

/// Prints what a reply has, one record each.
///
/// # Errors
/// Standard output takes no more.
pub fn print<R: Record>(context: &Context, all: &[R]) -> Result<(), CliError> {
    let records: Vec<&dyn Record> = all.iter().map(|one| one as &dyn Record).collect();
    context.print(&records)
}

/// Which ones are shown of objects that have a name.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Those of this name.
    pub name: Option<Name>,
    /// Those of this link.
    pub dev: Option<IfName>,
    /// Those of this side of the link.
    pub direction: Option<Direction>,
}

type Key = Keyword<Wanted>;
/// The name of what is shown.
pub const BY_NAME: Key = key!("name", "NAME", name).bare();
/// The link of what is shown.
pub const BY_LINK: Key = key!("dev", "LINK", dev);

impl Wanted {
    /// The name that was given.
    #[must_use]
    pub fn named(&self) -> Option<String> {
        self.name.as_ref().map(Name::to_string)
    }
}

/// Declares `NAME` and `DEV`, which name an object of a link, for the type `Key`.
macro_rules! named {
    () => {
        const NAME: Key = $crate::cli::field::key!("name", "NAME", name)
            .bare()
            .times(Times::Once);
        const DEV: Key = $crate::cli::field::key!("dev", "LINK", dev).times(Times::Once);
    };
}
pub(super) use named;
