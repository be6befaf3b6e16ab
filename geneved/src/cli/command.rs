//! Descriptions of commands, and of the objects that they work on.

use super::context::CommandContext;
use super::error::CliError;
use super::supported_options::SupportedOptions;
use super::synopsis::KeywordHelp;

/// Description of one command.
#[derive(Clone, Copy)]
pub struct CommandDef {
    /// Its spellings; the first one is displayed.
    pub names: &'static [&'static str],
    /// Runs the command with the words that follow it.
    pub run: fn(&mut CommandContext, &[String]) -> Result<(), CliError>,
    /// Keywords of the command.
    pub words: fn() -> Vec<KeywordHelp>,
    /// Options that the command supports.
    pub honours: SupportedOptions,
    /// Whether the command only requests a change, so that a batch can collect it with others.
    pub changes: bool,
}

impl CommandDef {
    /// Creates a command that talks to the daemon and prints the reply.
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

    /// Adds supported options.
    #[must_use]
    pub const fn honouring(self, more: SupportedOptions) -> Self {
        self.honouring_only(self.honours.and(more))
    }

    /// Sets the supported options.
    #[must_use]
    pub const fn honouring_only(self, honours: SupportedOptions) -> Self {
        CommandDef { honours, ..self }
    }

    /// Marks the command as one that only requests a change.
    #[must_use]
    pub const fn changing(self) -> Self {
        CommandDef {
            changes: true,
            ..self
        }
    }
}

/// A kind of object that commands work on.
pub struct ObjectDef {
    /// Its name.
    pub name: &'static str,
    /// Short description for `geneved help`.
    pub about: &'static str,
    /// Commands of the object.
    pub commands: &'static [CommandDef],
    /// Index of the default command, if there is one.
    pub usual: Option<usize>,
    /// Explanation of metavariables, printed below the BNF.
    pub notes: &'static str,
}

impl ObjectDef {
    /// Spellings of its commands with their indexes, and `help` without one.
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
    /// Short description for `geneved help`.
    pub about: &'static str,
    /// The command.
    pub command: CommandDef,
    /// Explanation of metavariables, printed below the BNF.
    pub notes: &'static str,
}
