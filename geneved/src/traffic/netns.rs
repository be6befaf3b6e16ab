//! A handle to a network namespace, and threads that run inside it.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

/// A network namespace: a named one below `/run/netns`, or the caller's.
///
/// A socket stays in the namespace that it was created in, so only its creation has to happen inside [`Netns::run`];
/// it may be used from any thread. The same is true of a child process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Netns(Option<String>);

impl Netns {
    /// The directory where `ip netns` keeps its names.
    pub const DIRECTORY: &'static str = "/run/netns";

    /// The namespace with this `ip netns` name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(Some(name.to_owned()))
    }

    /// The caller's namespace.
    #[must_use]
    pub const fn current() -> Self {
        Self(None)
    }

    /// The name, or `None` for the caller's own namespace.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// The file of the namespace.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match &self.0 {
            Some(name) => Path::new(Self::DIRECTORY).join(name),
            None => PathBuf::from("/proc/thread-self/ns/net"),
        }
    }

    /// Whether the namespace exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// Runs `work` inside the namespace on a dedicated thread, and waits for it.
    ///
    /// # Errors
    /// If the namespace does not exist or must not be entered.
    ///
    /// # Panics
    /// If `work` panics.
    pub fn run<T, F>(&self, work: F) -> io::Result<T>
    where
        T: Send,
        F: FnOnce() -> T + Send,
    {
        if self.0.is_none() {
            return Ok(work());
        }
        let file = self.open()?;
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(&file, CloneFlags::CLONE_NEWNET)
                    .map_err(|errno| self.refused(&errno.into()))?;
                Ok(work())
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn open(&self) -> io::Result<File> {
        File::open(self.path()).map_err(|error| self.refused(&error))
    }

    fn refused(&self, error: &io::Error) -> io::Error {
        let name = self.0.as_deref().unwrap_or("(current)");
        io::Error::new(
            error.kind(),
            format!("cannot enter network namespace {name:?}: {error}"),
        )
    }
}

impl std::fmt::Display for Netns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("(current)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_is_not_there_is_named_in_the_error() {
        let error = Netns::named("geneved-no-such").run(|| ()).unwrap_err();
        assert!(error.to_string().contains("geneved-no-such"), "{error}");
    }

    #[test]
    fn the_current_namespace_runs_in_place() {
        let here = thread::current().id();
        assert_eq!(
            Netns::current().run(|| thread::current().id()).unwrap(),
            here
        );
    }
}
