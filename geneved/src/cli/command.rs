//! What a command is, and the objects that commands work on.

use super::context::CommandContext;
use super::error::CliError;
use super::supported_options::SupportedOptions;
use super::synopsis::KeywordHelp;

/// One command.
#[derive(Clone, Copy)]
pub struct CommandDef {
    /// Its spellings; the first one is shown.
    pub names: &'static [&'static str],
    /// Runs it with the words behind it.
    pub run: fn(&mut CommandContext, &[String]) -> Result<(), CliError>,
    /// The keywords that it takes.
    pub words: fn() -> Vec<KeywordHelp>,
    /// The options that mean something to it.
    pub honours: SupportedOptions,
    /// Whether all that it does is to ask for a change, which can be gathered with others.
    pub changes: bool,
}

impl CommandDef {
    /// A command that asks the daemon and prints what it answers, and does more than to ask for a change.
    pub const fn new(
        names: &'static [&'static str],
        run: fn(&mut CommandContext, &[String]) -> Result<(), CliError>,
        words: fn() -> Vec<KeywordHelp>,
    ) -> Self {
        CommandDef {
            names,
            run,
            words,
            honours: SupportedOptions::SHAPE.and(SupportedOptions::SOCKET),
            changes: false,
        }
    }

    /// The same, and these options mean something to it, too.
    #[must_use]
    pub const fn honouring(self, more: SupportedOptions) -> Self {
        self.honouring_only(self.honours.and(more))
    }

    /// The same, but only these options mean something to it.
    #[must_use]
    pub const fn honouring_only(self, honours: SupportedOptions) -> Self {
        CommandDef { honours, ..self }
    }

    /// The same, but it only asks for a change.
    #[must_use]
    pub const fn changing(self) -> Self {
        CommandDef {
            changes: true,
            ..self
        }
    }
}

/// A kind of thing that commands work on.
pub struct ObjectDef {
    /// Its name.
    pub name: &'static str,
    /// A few words for `geneved help`.
    pub about: &'static str,
    /// What can be done with it.
    pub commands: &'static [CommandDef],
    /// Which of the commands is meant where none is named, if one is.
    pub usual: Option<usize>,
    /// Below the BNF: what its metavariables are.
    pub notes: &'static str,
}

impl ObjectDef {
    /// The spellings of its commands, and of `help`, which is none.
    pub fn names(&self) -> impl Iterator<Item = (&'static str, Option<usize>)> + Clone {
        let all = self.commands.iter().enumerate();
        all.flat_map(|(at, c)| c.names.iter().map(move |name| (*name, Some(at))))
            .chain([("help", None)])
    }
}

/// A command that works on no object.
pub struct GlobalCommand {
    /// Its name.
    pub name: &'static str,
    /// A few words for `geneved help`.
    pub about: &'static str,
    /// What it does.
    pub command: CommandDef,
    /// Below the BNF: what its metavariables are.
    pub notes: &'static str,
}
