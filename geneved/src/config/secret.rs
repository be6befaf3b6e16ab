//! The secret shared by the fabric: read from its file, never displayed.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use libgeneve::label::LabelKey;
use nix::unistd::{Group, User, getegid, geteuid};

use super::file_trust::{self, UntrustedStep, is_ours};
use super::regular_file;
use crate::refusal::Refusal;

/// Minimum length of a secret in bytes, without trailing white space.
pub const MIN_SECRET: usize = 16;
/// Maximum size of the secret file in bytes.
pub const MAX_SECRET: u64 = 4096;

/// Key material for label hashes; the same on every host of a fabric.
#[derive(Clone, PartialEq, Eq)]
pub struct LabelSecret(Vec<u8>);

impl fmt::Debug for LabelSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Group of the service that the packages install.
const SERVICE_GROUP: &str = "geneved";

/// Group that needs read access to the secret: that of the daemon, or of the packaged service when root asks. `None`
/// if only root reads it.
fn readers() -> Option<String> {
    let group = match geteuid().is_root() {
        true => Group::from_name(SERVICE_GROUP),
        false => Group::from_gid(getegid()),
    };
    Some(group.ok()??.name)
}

/// The command that makes a secret as [`LabelSecret::read`] takes it.
fn recipe(path: &dyn fmt::Display) -> String {
    let access = match readers() {
        Some(group) => format!("-m 0640 -g {group}"),
        None => "-m 0600".into(),
    };
    format!("openssl rand -hex 32 | install {access} /dev/stdin {path}")
}

/// The command that gives an existing secret the owner and the mode that [`LabelSecret::read`] takes.
fn repair(path: &dyn fmt::Display) -> String {
    match readers() {
        Some(group) => format!("chown root:{group} {path}; chmod 0640 {path}"),
        None => format!("chown root {path}; chmod 0600 {path}"),
    }
}

impl LabelSecret {
    /// Reads the secret. Trailing white space is ignored, so that the final newline of an editor does no harm.
    ///
    /// # Errors
    /// If the file does not exist, cannot be read, is not a regular file, belongs to another user, is accessible to
    /// others or in a place where they can write, or is too short or too long.
    pub fn read(path: &Path) -> Result<Self, Refusal> {
        let shown = path.display();
        let refuse = |what: &dyn fmt::Display, hint: String| {
            Refusal::new(format!("label-secret-file \"{shown}\": {what}"), hint)
        };
        if !path.is_absolute() {
            let hint = "write it from the root, such as \"/etc/geneved/label-secret\"";
            return Err(refuse(&"not an absolute path", hint.into()));
        }
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => refuse(
                &e,
                format!(
                    "make one with \"{}\" and copy it to every host",
                    recipe(&shown)
                ),
            ),
            io::ErrorKind::PermissionDenied => {
                let uid = geteuid();
                let user = User::from_uid(uid).ok().flatten();
                let user = user.map_or_else(|| uid.to_string(), |user| user.name);
                refuse(
                    &format_args!("user {user} may not read it: {e}"),
                    format!("\"{}\"", repair(&shown)),
                )
            }
            _ => refuse(&e, String::new()),
        };
        let (file, metadata) = regular_file::open(path).map_err(failed)?;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o037 != 0 {
            return Err(refuse(
                &format_args!("mode {mode:04o} opens it to others"),
                format!("\"{}\"", repair(&shown)),
            ));
        }
        if !is_ours(metadata.uid()) {
            return Err(refuse(
                &format_args!(
                    "user {} owns it, who could put another one in its place",
                    metadata.uid()
                ),
                format!("\"{}\"", repair(&shown)),
            ));
        }
        let hole = file_trust::follow(path).map_err(failed)?.err();
        let exchanged = match hole {
            None => None,
            Some(UntrustedStep::Directory { path, mode, uid }) => {
                let directory = path.display();
                Some((
                    format!("others can write to {directory} (mode {mode:04o}, user {uid})"),
                    format!(
                        "\"chown root {directory}; chmod go-w {directory}\", or another place for the secret"
                    ),
                ))
            }
            Some(UntrustedStep::Link { path, uid }) => Some((
                format!(
                    "user {uid} owns the symbolic link {}, and could let it lead elsewhere",
                    path.display()
                ),
                "name the file that it leads to".to_owned(),
            )),
        };
        if let Some((what, hint)) = exchanged {
            return Err(refuse(&what, hint));
        }
        let mut bytes = Vec::new();
        file.take(MAX_SECRET + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        let len = bytes.trim_ascii_end().len();
        bytes.truncate(len);
        if len < MIN_SECRET {
            let hint = format!("at least {MIN_SECRET} bytes, better 32 random ones");
            return Err(refuse(&format_args!("{len} bytes are too short"), hint));
        }
        if u64::try_from(len).unwrap_or(u64::MAX) > MAX_SECRET {
            return Err(refuse(
                &format_args!("more than {MAX_SECRET} bytes"),
                String::new(),
            ));
        }
        Ok(LabelSecret(bytes))
    }

    /// Derives the key for hashing labels.
    #[must_use]
    pub fn label_key(&self) -> LabelKey {
        LabelKey::from_secret(&self.0)
    }
}
