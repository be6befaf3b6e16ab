//! File descriptors: how many the process may have, how many are left, and the reserve.
//!
//! Sockets and queues of links are opened only as long as the reserve is not touched. From it come connections of the
//! control socket, netlink, health checks, and what is needed to set right what is there.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that are kept free for everything but links, where there are as many as that.
const RESERVE: u64 = 640;

/// Has the soft limit be as high as the hard one. Nothing here uses select(2), for whose sake the usual one is low.
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

/// How many descriptors links may have more, and of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorBudget {
    /// The most that the process may have.
    pub limit: u64,
    /// Those that are not open and not in the reserve.
    pub left: u64,
}

impl DescriptorBudget {
    /// Looks how it is now.
    #[must_use]
    pub fn now() -> Self {
        Self::with(open())
    }

    /// As it would be for a process with the limit of this one after [`raise_limit`], and nothing open but this.
    #[must_use]
    pub fn with(open: u64) -> Self {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard);
        DescriptorBudget {
            limit,
            left: limit.saturating_sub(open + reserve(limit)),
        }
    }

    /// Why so many more cannot be had; `None` if they can be.
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

/// What is kept free: no more than a quarter of what there is.
fn reserve(limit: u64) -> u64 {
    RESERVE.min(limit / 4)
}

/// How many connections one of the daemon's sockets may have, so that the reserve holds them.
#[must_use]
pub fn connections(most: usize) -> usize {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX));
    usize::try_from(soft / 8).map_or(most, |share| share.min(most))
}

/// Descriptors that are open.
fn open() -> u64 {
    const OWN: &str = "/proc/self/fd";
    // Linux tells their number as the size of the directory since 6.2.
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
        // Other tests open and close some meanwhile.
        assert!(open() + 10 > before + 20, "{before} {}", open());
        drop(files);
        assert_eq!((reserve(400), reserve(1 << 20)), (100, RESERVE));
    }
}
