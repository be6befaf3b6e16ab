//! What the commands of most objects have in common: `add`, `set`, `replace`, `del` and `show`.

use super::command::CommandDef;
use super::context::CommandContext;
use super::error::CliError;
use super::field::key;
use super::grammar::{self, Keyword};
use super::output::Show;
use super::style::OutputStyle;
use super::supported_options::SupportedOptions;
use crate::config::args::{ChangeVerb, ObjectChange};
use crate::config::state::absent;
use crate::config::value::{DirectionValue, IfName, ObjectName};
use crate::control::client::CallError;

/// An object as its commands gather it, word by word.
pub trait CliObject: Default + 'static {
    /// What it is called.
    const KIND: &'static str;
    /// The keywords of `add` and `replace`.
    const ADD: &'static [Keyword<Self>];
    /// The keywords of `set`.
    const SET: &'static [Keyword<Self>] = Self::ADD;
    /// The keywords of `del`: what names the object.
    const DEL: &'static [Keyword<Self>];

    /// The object as it is shown.
    type Info: Show;
    /// Which ones are shown.
    type Filter: Default + 'static;
    /// The keywords of `show`.
    const SHOW: &'static [Keyword<Self::Filter>];

    /// The change that these words ask for.
    ///
    /// # Errors
    /// The words are not enough, or do not fit the options.
    fn change(
        self,
        verb: ChangeVerb,
        context: &mut CommandContext,
    ) -> Result<ObjectChange, CliError>;

    /// The options that mean something to `show`, beside those of every command that asks the daemon.
    const HONOURS: SupportedOptions = SupportedOptions::NOTHING;
    /// The options that mean something to commands that change it, beside those.
    const CHANGE_HONOURS: SupportedOptions = SupportedOptions::NOTHING;

    /// The objects, or more than those that the filter wants.
    ///
    /// # Errors
    /// The daemon does not answer, or refuses.
    fn all(
        context: &mut CommandContext,
        filter: &Self::Filter,
    ) -> Result<Vec<Self::Info>, CliError>;

    /// The one object that the filter names, as its list shows it; `None` where it names none.
    fn named(filter: &Self::Filter, style: &OutputStyle) -> Option<String>;

    /// What an object is named by.
    fn name(info: &Self::Info, style: &OutputStyle) -> String;

    /// Whether the filter wants this one.
    fn wants(filter: &Self::Filter, style: &OutputStyle, info: &Self::Info) -> bool;

    /// Shows the objects that the filter wants.
    ///
    /// # Errors
    /// The daemon does not answer, or refuses.
    fn show(filter: &Self::Filter, context: &mut CommandContext) -> Result<(), CliError> {
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
fn find<T: CliObject>(name: &str, all: &[T::Info], style: &OutputStyle) -> Result<(), CliError> {
    let names: Vec<String> = all.iter().map(|info| T::name(info, style)).collect();
    if names.iter().any(|other| other == name) {
        return Ok(());
    }
    let object = format!("{} \"{name}\"", T::KIND);
    Err(CallError::Refused(absent(&object, name, &names, T::KIND)).into())
}

/// The commands of an object that can be changed in place.
pub const fn commands<T: CliObject>() -> [CommandDef; 5] {
    [
        add::<T>(),
        set::<T>(),
        replace::<T>(),
        del::<T>(),
        show::<T>(),
    ]
}

/// Where `show` is among [`commands`].
pub const SHOW_INDEX: usize = 4;

/// `add`.
pub const fn add<T: CliObject>() -> CommandDef {
    CommandDef::new(
        &["add"],
        |c, w| change::<T>(c, ChangeVerb::Add, T::ADD, w),
        || grammar::words(T::ADD),
    )
    .changing()
    .honouring(T::CHANGE_HONOURS)
}

/// `set`, which `ip route` calls `change`.
pub const fn set<T: CliObject>() -> CommandDef {
    CommandDef::new(
        &["set", "change"],
        |c, w| change::<T>(c, ChangeVerb::Set, T::SET, w),
        || grammar::words(T::SET),
    )
    .changing()
    .honouring(T::CHANGE_HONOURS)
}

/// `replace`: `add`, or in place of what is there.
pub const fn replace<T: CliObject>() -> CommandDef {
    CommandDef::new(
        &["replace"],
        |c, w| change::<T>(c, ChangeVerb::Replace, T::ADD, w),
        || grammar::words(T::ADD),
    )
    .changing()
    .honouring(T::CHANGE_HONOURS)
}

/// `del`.
pub const fn del<T: CliObject>() -> CommandDef {
    CommandDef::new(
        &["del", "delete"],
        |c, w| change::<T>(c, ChangeVerb::Del, T::DEL, w),
        || grammar::words(T::DEL),
    )
    .changing()
    .honouring(T::CHANGE_HONOURS)
}

/// What `show` is called, which `ip` also calls `list` and `lst`.
pub const SHOW_NAMES: &[&str] = &["show", "list", "lst", "ls"];

/// `show`.
pub const fn show<T: CliObject>() -> CommandDef {
    CommandDef::new(
        SHOW_NAMES,
        |c, w| {
            let mut filter = T::Filter::default();
            grammar::parse(T::SHOW, w, &mut filter)?;
            T::show(&filter, c)
        },
        || grammar::words(T::SHOW),
    )
    .honouring(T::HONOURS)
}

fn change<T: CliObject>(
    context: &mut CommandContext,
    verb: ChangeVerb,
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
pub fn print<R: Show>(context: &CommandContext, all: &[R]) -> Result<(), CliError> {
    let records: Vec<&dyn Show> = all.iter().map(|one| one as &dyn Show).collect();
    context.print(&records)
}

/// Which ones are shown of objects that have a name.
#[derive(Debug, Default)]
pub struct NamedFilter {
    /// Those of this name.
    pub name: Option<ObjectName>,
    /// Those of this link.
    pub dev: Option<IfName>,
    /// Those of this side of the link.
    pub direction: Option<DirectionValue>,
}

type NamedKeyword = Keyword<NamedFilter>;
/// The name of what is shown.
pub const BY_NAME: NamedKeyword = key!(NamedFilter; "name", "NAME", name).bare();
/// The link of what is shown.
pub const BY_LINK: NamedKeyword = key!(NamedFilter; "dev", "LINK", dev);

impl NamedFilter {
    /// The name that was given.
    #[must_use]
    pub fn named(&self) -> Option<String> {
        self.name.as_ref().map(ObjectName::to_string)
    }
}

/// Declares `NAME` and `DEV`, which name an object of a link, for the words `$of`.
macro_rules! named {
    ($of:ty) => {
const NAME: Keyword<$of> = $crate::cli::field::key!($of; "name", "NAME", name)
            .bare()
            .times(Repetition::Once);
        const DEV: Keyword<$of> =
    $crate::cli::field::key!($of; "dev", "LINK", dev).times(Repetition::Once);
    };
}
pub(super) use named;
