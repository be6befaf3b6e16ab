//! Path traversal check: whether anyone but root and the daemon's own user could redirect a path.
//!
//! Checks each directory and symbolic link as it is traversed, because anyone who can write to the directory of a
//! link, or owns a link in a sticky directory, chooses which file is read (compare `StrictModes` of sshd and
//! `fs.protected_symlinks`).

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::unistd::geteuid;

/// In a user namespace, the apparent owner of files whose owner is not mapped, such as the root directory.
const OVERFLOW_UID: u32 = 65_534;
/// Maximum number of symbolic links to follow, as in the kernel.
const MOST_LINKS: usize = 40;

/// Part of a path that others could redirect.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum UntrustedStep {
    /// A directory that others can write to.
    Directory { path: PathBuf, mode: u32, uid: u32 },
    /// Another user's symbolic link in a directory where everybody may create one.
    Link { path: PathBuf, uid: u32 },
}

/// Whether the owner is root or the daemon's own user.
pub(super) fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// Resolves `path`, which must be absolute. Returns the first hole found, or else the real path.
///
/// # Errors
/// If the file does not exist or the path may not be searched.
pub(super) fn follow(path: &Path) -> io::Result<Result<PathBuf, UntrustedStep>> {
    let mut real = PathBuf::from("/");
    let mut ahead = reversed(path);
    let mut links = 0;
    let mut here = real.metadata()?;
    while let Some(name) = ahead.pop() {
        if let Some(hole) = directory_hole(&real, &here) {
            return Ok(Err(hole));
        }
        if name == ".." {
            real.pop();
            here = real.metadata()?;
            continue;
        }
        let next = real.join(&name);
        let found = next.symlink_metadata()?;
        if !found.is_symlink() {
            (real, here) = (next, found);
            continue;
        }
        if writable_by_others(&here) && !is_ours(found.uid()) {
            let uid = found.uid();
            return Ok(Err(UntrustedStep::Link { path: next, uid }));
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(io::Error::from_raw_os_error(nix::libc::ELOOP));
        }
        let target = next.read_link()?;
        if target.is_absolute() {
            real = PathBuf::from("/");
            here = real.metadata()?;
        }
        ahead.extend(reversed(&target));
    }
    Ok(Ok(real))
}

/// Components of a path in reverse order.
fn reversed(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut names: Vec<_> = names.collect();
    names.reverse();
    names
}

fn writable_by_others(directory: &Metadata) -> bool {
    directory.mode() & 0o022 != 0
}

fn directory_hole(path: &Path, found: &Metadata) -> Option<UntrustedStep> {
    let (mode, uid) = (found.mode() & 0o7777, found.uid());
    let ours = is_ours(uid) || uid == OVERFLOW_UID;
    // In a sticky directory only the owner of a file can replace it.
    let exchanged = writable_by_others(found) && mode & 0o1000 == 0;
    (exchanged || !ours).then(|| UntrustedStep::Directory {
        path: path.to_owned(),
        mode,
        uid,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, lchown, symlink};

    use super::*;

    #[test]
    fn the_way_is_followed_through_links_of_our_own_and_ends_at_a_directory_of_others() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, mode) in [("closed", 0o755), ("open", 0o777), ("sticky", 0o1777)] {
            fs::create_dir(at(name)).unwrap();
            fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
        }
        fs::write(at("closed/secret"), "x").unwrap();
        let real = at("closed/secret").canonicalize().unwrap();
        for from in ["closed/link", "open/link", "sticky/link"] {
            symlink("../closed/secret", at(from)).unwrap();
        }
        assert_eq!(follow(&at("closed/secret")).unwrap().unwrap(), real);
        assert_eq!(follow(&at("closed/link")).unwrap().unwrap(), real);
        assert_eq!(follow(&at("sticky/link")).unwrap().unwrap(), real);
        let hole = follow(&at("open/link")).unwrap().unwrap_err();
        assert!(
            matches!(&hole, UntrustedStep::Directory { mode: 0o777, .. }),
            "{hole:?}"
        );
        // A link may also lead through a directory that others can write to.
        symlink(at("open/link"), at("closed/two")).unwrap();
        assert!(follow(&at("closed/two")).unwrap().is_err());
        symlink("loop", at("closed/loop")).unwrap();
        assert!(follow(&at("closed/loop")).is_err());
        if geteuid().is_root() {
            lchown(at("sticky/link"), Some(1000), None).unwrap();
            let hole = follow(&at("sticky/link")).unwrap().unwrap_err();
            assert!(
                matches!(hole, UntrustedStep::Link { uid: 1000, .. }),
                "{hole:?}"
            );
        }
    }
}
