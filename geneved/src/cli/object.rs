//! The commands that most objects share: `add`, `set`, `replace`, `del` and `show`.

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

/// An object under construction, filled in keyword by keyword.
pub trait CliObject: Default + 'static {
    /// Name of the kind of object.
    const KIND: &'static str;
    /// Keywords of `add` and `replace`.
    const ADD: &'static [Keyword<Self>];
    /// Keywords of `set`.
    const SET: &'static [Keyword<Self>] = Self::ADD;
    /// Keywords of `del`, which identify the object.
    const DEL: &'static [Keyword<Self>];

    /// The object as `show` displays it.
    type Info: Show;
    /// Filter of `show`.
    type Filter: Default + 'static;
    /// Keywords of `show`.
    const SHOW: &'static [Keyword<Self::Filter>];

    /// Converts the parsed words to a change.
    ///
    /// # Errors
    /// If words are missing, or contradict the options.
    fn change(
        self,
        verb: ChangeVerb,
        context: &mut CommandContext,
    ) -> Result<ObjectChange, CliError>;

    /// Options that `show` supports besides those of every command that talks to the daemon.
    const HONOURS: SupportedOptions = SupportedOptions::NOTHING;
    /// Options that changing commands support besides those.
    const CHANGE_HONOURS: SupportedOptions = SupportedOptions::NOTHING;

    /// Fetches the objects, possibly more than match the filter.
    ///
    /// # Errors
    /// If the daemon does not answer, or refuses.
    fn all(
        context: &mut CommandContext,
        filter: &Self::Filter,
    ) -> Result<Vec<Self::Info>, CliError>;

    /// Name of the single object that the filter asks for; `None` if it asks for none in particular.
    fn named(filter: &Self::Filter, style: &OutputStyle) -> Option<String>;

    /// Name of an object.
    fn name(info: &Self::Info, style: &OutputStyle) -> String;

    /// Whether the object matches the filter.
    fn wants(filter: &Self::Filter, style: &OutputStyle, info: &Self::Info) -> bool;

    /// Shows the objects that match the filter.
    ///
    /// # Errors
    /// If the daemon does not answer, or refuses.
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

/// Refuses if no object has this name.
fn find<T: CliObject>(name: &str, all: &[T::Info], style: &OutputStyle) -> Result<(), CliError> {
    let names: Vec<String> = all.iter().map(|info| T::name(info, style)).collect();
    if names.iter().any(|other| other == name) {
        return Ok(());
    }
    let object = format!("{} \"{name}\"", T::KIND);
    Err(CallError::Refused(absent(&object, name, &names, T::KIND)).into())
}

/// Commands of an object that can be changed in place.
pub const fn commands<T: CliObject>() -> [CommandDef; 5] {
    [
        add::<T>(),
        set::<T>(),
        replace::<T>(),
        del::<T>(),
        show::<T>(),
    ]
}

/// Index of `show` in [`commands`].
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

/// `replace`: adds the object, or replaces an existing one.
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

/// Spellings of `show`, including `ip`'s `list` and `lst`.
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

/// Prints the objects of a reply, one record each.
///
/// # Errors
/// If writing to standard output fails.
pub fn print<R: Show>(context: &CommandContext, all: &[R]) -> Result<(), CliError> {
    let records: Vec<&dyn Show> = all.iter().map(|one| one as &dyn Show).collect();
    context.print(&records)
}

/// Filter of `show` for objects that have a name.
#[derive(Debug, Default)]
pub struct NamedFilter {
    /// Only the object of this name.
    pub name: Option<ObjectName>,
    /// Only objects of this link.
    pub dev: Option<IfName>,
    /// Only this direction.
    pub direction: Option<DirectionValue>,
}

type NamedKeyword = Keyword<NamedFilter>;
/// Keyword for the name to show.
pub const BY_NAME: NamedKeyword = key!(NamedFilter; "name", "NAME", name).bare();
/// Keyword for the link to show.
pub const BY_LINK: NamedKeyword = key!(NamedFilter; "dev", "LINK", dev);

impl NamedFilter {
    /// The given name.
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
