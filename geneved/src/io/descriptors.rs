//! File descriptors: the process limit, how many are left, and the reserve.
//!
//! Links may open sockets and queues only while the reserve stays untouched. The reserve is for connections of the
//! control socket, netlink, health checks, and repairs of existing objects.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that are kept free for everything but links, if the limit is high enough.
const RESERVE: u64 = 640;

/// Raises the soft limit to the hard one. The usual low default exists for select(2), which nothing here uses.
pub fn raise_limit() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, hard, "the limit of open files stays {soft}, though {hard} are allowed: {error}");
    }
}

/// How many more descriptors links may open, and the limit that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorBudget {
    /// Limit of the process.
    pub limit: u64,
    /// Descriptors that are neither open nor in the reserve.
    pub left: u64,
}

impl DescriptorBudget {
    /// Reads the current state.
    #[must_use]
    pub fn now() -> Self {
        Self::with(open())
    }

    /// State of a process with this one's limit after [`raise_limit`] and `open` descriptors open.
    #[must_use]
    pub fn with(open: u64) -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard);
        DescriptorBudget {
            limit,
            left: limit.saturating_sub(open + reserve(limit)),
        }
    }

    /// Explains why `needed` more descriptors are not available; `None` if they are.
    #[must_use]
    pub fn refuse(self, needed: usize) -> Option<String> {
        let DescriptorBudget { limit, left } = self;
        (needed as u64 > left).then(|| {
            format!(
                "needs {needed} more file descriptors; of the {limit} that the daemon may have {left} are left for links (LimitNOFILE= in the unit, \"ulimit -Hn\" elsewhere)"
            )
        })
    }
}

/// Size of the reserve: no more than a quarter of the limit.
fn reserve(limit: u64) -> u64 {
    RESERVE.min(limit / 4)
}

/// Maximum number of connections on one of the daemon's sockets, so that the reserve suffices for them.
#[must_use]
pub fn connections(most: usize) -> usize {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX));
    usize::try_from(soft / 8).map_or(most, |share| share.min(most))
}

/// Number of open descriptors.
fn open() -> u64 {
    const OWN: &str = "/proc/self/fd";
    // Since Linux 6.2 it is the size of the directory.
    match fs::metadata(OWN).map(|found| found.size()) {
        Ok(size) if size > 0 => size,
        _ => fs::read_dir(OWN).map_or(0, |entries| entries.count() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_the_numbers() {
        let left = DescriptorBudget {
            limit: 1024,
            left: 12,
        };
        assert_eq!(left.refuse(12), None);
        let told = left.refuse(256).unwrap();
        assert!(
            told.starts_with("needs 256 more file descriptors; of the 1024 "),
            "{told}"
        );
        assert!(told.contains(" 12 are left"), "{told}");
    }

    #[test]
    fn open_descriptors_are_counted_and_a_reserve_stays() {
        let before = open();
        let files: Vec<_> = (0..20)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        // Other tests open and close descriptors meanwhile.
        assert!(open() + 10 > before + 20, "{before} {}", open());
        drop(files);
        assert_eq!((reserve(400), reserve(1 << 20)), (100, RESERVE));
    }
}
