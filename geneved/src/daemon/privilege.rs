//! Privilege dropping: the daemon keeps only what changes at run time need.
//!
//! If root starts the daemon, it drops the rest before it creates its first thread, so that every thread starts
//! without it. Workers go further and keep nothing (see [`crate::io`]). If a service manager starts it as a user with
//! few capabilities, there is nothing to drop.

use std::collections::HashSet;
use std::path::Path;

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, User, chown, geteuid, initgroups, setgid, setuid};

use crate::config::file::DaemonSettings;
use crate::refusal::Refusal;

/// For interfaces and addresses; ports below 1024; links in other network namespaces; ICMP checks of backends.
const CAPABILITIES: [Capability; 4] = [
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_NET_RAW,
];
/// Without it root could not open other users' files: the directory of the control socket, the configuration.
const OF_ROOT: Capability = Capability::CAP_DAC_OVERRIDE;

/// Switches to the configured user, and drops all capabilities that are not needed.
///
/// # Errors
/// If there is no such user, or the caller is not root and cannot become one.
pub(super) fn drop_privileges(settings: &DaemonSettings) -> Result<(), Refusal> {
    let user = settings.user.as_deref().map(find).transpose()?;
    if !geteuid().is_root() {
        return match user {
            Some(user) if user.uid != geteuid() => Err(Refusal::new(
                format!("user \"{}\": only root can become another user", user.name),
                "start the daemon as root, or leave \"user\" out of [daemon]",
            )),
            _ => Ok(()),
        };
    }
    let mut keep: HashSet<Capability> = CAPABILITIES.into();
    match user.filter(|user| !user.uid.is_root()) {
        Some(user) => become_user(&user, &settings.socket)?,
        None => drop(keep.insert(OF_ROOT)),
    }
    // A container may have dropped some already, or may not allow dropping any: having less is never an error.
    let have = caps::read(None, CapSet::Permitted).unwrap_or_default();
    keep.retain(|capability| have.contains(capability));
    // Executed programs cannot regain privileges, even if the bounding set cannot be shrunk.
    if let Err(error) = prctl::set_no_new_privs() {
        tracing::warn!(%error, "programs could get new privileges: {error}");
    }
    let _ = bound(&keep);
    let kept = caps::clear(None, CapSet::Inheritable)
        .and_then(|()| caps::set(None, CapSet::Effective, &keep))
        .and_then(|()| caps::set(None, CapSet::Permitted, &keep));
    if let Err(error) = kept {
        tracing::warn!(%error, "capabilities that are not needed cannot be given away: {error}");
    }
    Ok(())
}

/// Checks that links can be created at all: a daemon does not get capabilities that it was started without.
///
/// # Errors
/// If the capability is missing.
pub(super) fn ensure_net_admin() -> Result<(), Refusal> {
    match caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN) {
        Ok(false) => Err(Refusal::new(
            "no link can be made: CAP_NET_ADMIN is missing",
            "run it as root, or give the service AmbientCapabilities=CAP_NET_ADMIN",
        )),
        _ => Ok(()),
    }
}

fn find(name: &str) -> Result<User, Refusal> {
    let missing = |why: &str| {
        Refusal::new(
            format!("user \"{name}\": {why}"),
            "make it with \"systemd-sysusers\" or \"useradd --system\", or name another in [daemon] user",
        )
    };
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(missing("there is no such user")),
        Err(error) => Err(missing(error.desc())),
    }
}

/// Switches to the user and keeps the capabilities; the control socket's directory becomes the user's.
fn become_user(user: &User, socket: &Path) -> Result<(), Refusal> {
    let failed = |what: &str, error: Errno| {
        let text = format!("cannot become user \"{}\": {what}: {error}", user.name);
        Refusal::new(text, "")
    };
    if let Some(directory) = socket.parent().filter(|d| !d.exists()) {
        std::fs::create_dir_all(directory)
            .map_err(|e| Refusal::new(format!("{}: {e}", directory.display()), ""))?;
        chown(directory, Some(user.uid), Some(user.gid)).map_err(|e| failed("chown", e))?;
    }
    let name = std::ffi::CString::new(user.name.as_str()).unwrap_or_default();
    prctl::set_keepcaps(true).map_err(|e| failed("prctl", e))?;
    initgroups(&name, user.gid).map_err(|e| failed("initgroups", e))?;
    setgid(Gid::from_raw(user.gid.as_raw())).map_err(|e| failed("setgid", e))?;
    setuid(Uid::from_raw(user.uid.as_raw())).map_err(|e| failed("setuid", e))
}

/// Limits the bounding set, so that no other capability can be regained.
fn bound(keep: &HashSet<Capability>) -> Result<(), caps::errors::CapsError> {
    let bounding = caps::read(None, CapSet::Bounding)?;
    // The capability to shrink the set goes last.
    let (last, first): (Vec<&Capability>, Vec<&Capability>) = bounding
        .difference(keep)
        .partition(|c| **c == Capability::CAP_SETPCAP);
    let mut effective = caps::read(None, CapSet::Permitted)?;
    effective.insert(Capability::CAP_SETPCAP);
    caps::set(None, CapSet::Effective, &effective)?;
    first
        .into_iter()
        .chain(last)
        .try_for_each(|capability| caps::drop(None, CapSet::Bounding, *capability))
}
