//! Reports packets that were not delivered because their destination is not behind their link: aggregated, once, with
//! the command that would allow them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use libgeneve::time::Now;

use super::core::{Core, CoreState};
use crate::config::file::DEFAULT_SOCKET;
use crate::config::state::LinkSpec;
use crate::config::value::{IfName, PrefixValue};
use crate::control::protocol::{UndeliveredInfo, UndeliveredPrefix};

/// Time for which packets are gathered before the first report about a link.
const FIRST_REPORT: Duration = Duration::from_secs(3);
/// Minimum time between two reports about a link: an address scan must not fill the log.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of prefixes reported per link.
const MAX_REPORTED: usize = 64;
/// How long packets are remembered after the latest one.
const UNDELIVERED_AGE: Duration = Duration::from_secs(3600);

/// Prefixes already reported for each link.
#[derive(Debug, Default)]
pub(super) struct UndeliveredReports(BTreeMap<IfName, LinkReport>);

#[derive(Debug)]
struct LinkReport {
    prefixes: BTreeSet<IpNet>,
    next: Instant,
}

impl UndeliveredReports {
    /// Returns what was not reported yet, if a report is due.
    fn news(&mut self, link: &IfName, all: Option<UndeliveredInfo>) -> Option<UndeliveredInfo> {
        let Some(mut news) = all else {
            // All entries have expired; packets that come again are reported again.
            self.0.remove(link);
            return None;
        };
        let now = Instant::now();
        let of = self.0.entry(link.clone()).or_insert_with(|| LinkReport {
            prefixes: BTreeSet::new(),
            next: now + FIRST_REPORT,
        });
        if now < of.next || of.prefixes.len() >= MAX_REPORTED {
            return None;
        }
        news.prefixes.retain(|one| of.prefixes.insert(one.prefix.0));
        if news.prefixes.is_empty() {
            return None;
        }
        of.next = now + REPORT_INTERVAL;
        Some(news)
    }
}

impl Core {
    /// Recently undelivered packets of this link, without those that would be delivered by now.
    pub(super) fn undelivered(
        &self,
        inner: &CoreState,
        link: &LinkSpec,
    ) -> Option<UndeliveredInfo> {
        let running = inner.running.get(&link.name)?;
        let tables = self.engine().tables();
        let there = tables.link(running.index)?;
        let now = self.engine().now();
        let since = Now(now
            .0
            .saturating_sub(UNDELIVERED_AGE.as_secs() * 1_000_000_000));
        let noted = &there.config.undelivered;
        noted.forget(since, |one| {
            one.at < since || there.delivers(one.last).is_some()
        });
        let (all, others) = noted.all();
        if all.is_empty() {
            return None;
        }
        let remedy = self.allowing(link, all.iter().map(|one| one.prefix));
        let prefixes = all.into_iter().map(|one| UndeliveredPrefix {
            prefix: PrefixValue(one.prefix),
            packets: one.packets,
            last: one.last,
            age: now.since(one.at).as_secs(),
        });
        Some(UndeliveredInfo {
            prefixes: prefixes.collect(),
            others,
            remedy,
        })
    }

    /// Reports what came since the last call; call about once a second.
    pub(super) async fn tell_undelivered(&self) {
        let inner = self.inner().await;
        let mut told = self.told_undelivered.borrow_mut();
        told.0
            .retain(|name, _| inner.state.links.contains_key(name));
        for link in inner.state.links.values() {
            if let Some(news) = told.news(&link.name, self.undelivered(&inner, link)) {
                let name = &link.name;
                let packets: u64 = news.prefixes.iter().map(|one| one.packets).sum();
                let what = news.sentence(name.as_str());
                tracing::warn!(link = %name, packets, "{what}");
            }
        }
    }

    /// The command that allows these prefixes beside the present ones, and the setting for the file.
    pub(super) fn allowing(
        &self,
        link: &LinkSpec,
        prefixes: impl IntoIterator<Item = IpNet>,
    ) -> String {
        remedy(&self.settings().socket, link, prefixes)
    }
}

fn remedy(socket: &Path, link: &LinkSpec, prefixes: impl IntoIterator<Item = IpNet>) -> String {
    let all: Vec<_> = link.allowed.iter().copied().chain(prefixes).collect();
    let words: String = all
        .iter()
        .map(|prefix| format!(" allowed {prefix}"))
        .collect();
    let listed: Vec<_> = all.iter().map(|prefix| format!("\"{prefix}\"")).collect();
    let socket = match socket == Path::new(DEFAULT_SOCKET) {
        true => String::new(),
        false => format!(" --socket {}", socket.display()),
    };
    let name = &link.name;
    format!(
        "if such addresses should be reachable behind {name}, run: \"geneved{socket} link set {name}{words}\", which is the whole list \
         from then on; for it to last, the file needs: allowed = [{}]",
        listed.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::args::{ChangeVerb, ObjectChange};
    use crate::config::state::DesiredState;

    fn remedied(prefixes: &[&str]) -> String {
        let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap());
        let words = serde_json::from_str(r#"{"name":"blue","id":1,"allowed":["10.8.0.0/16"]}"#);
        let mut state = DesiredState::default();
        let add = ObjectChange::link(ChangeVerb::Add, words.unwrap());
        state.apply(&add).unwrap();
        let link = state.links.values().next().unwrap();
        remedy(Path::new("/run/x.sock"), link, prefixes)
    }

    fn came(prefixes: &[&str]) -> Option<UndeliveredInfo> {
        let one = |prefix: &&str| {
            let prefix: IpNet = prefix.parse().unwrap();
            UndeliveredPrefix {
                prefix: PrefixValue(prefix),
                packets: 1204,
                last: prefix.addr(),
                age: 3,
            }
        };
        Some(UndeliveredInfo {
            prefixes: prefixes.iter().map(one).collect(),
            others: false,
            remedy: remedied(prefixes),
        })
    }

    #[test]
    fn a_prefix_is_told_once_and_a_link_does_not_fill_the_log() {
        let mut told = UndeliveredReports::default();
        let (blue, red) = ("blue".parse().unwrap(), "red".parse().unwrap());
        let first = || came(&["10.9.0.0/24", "fd09::/64"]);
        assert_eq!(told.news(&blue, first()), None);
        told.0.get_mut(&blue).unwrap().next -= FIRST_REPORT;
        assert_eq!(told.news(&blue, first()), first());
        let more = || came(&["10.9.0.0/24", "10.9.1.0/24"]);
        assert_eq!(told.news(&blue, more()), None);
        assert_eq!(told.news(&red, more()), None);
        told.0.get_mut(&blue).unwrap().next -= REPORT_INTERVAL;
        let news = told.news(&blue, more()).unwrap();
        // The command names all prefixes, because it replaces the list.
        assert_eq!(news.prefixes, came(&["10.9.1.0/24"]).unwrap().prefixes);
        assert_eq!(news.remedy, more().unwrap().remedy);
        // Forgotten prefixes are reported again.
        assert_eq!(told.news(&blue, None), None);
        assert!(!told.0.contains_key(&blue));
    }

    #[test]
    fn the_sentence_has_one_command_that_allows_everything() {
        let mut all = came(&["10.9.0.0/24", "fd09::1/128"]).unwrap();
        all.others = true;
        assert_eq!(
            all.sentence("blue"),
            "dropped what came for link \"blue\" because no such address is behind it: 1204 packets to 10.9.0.0/24 (the last to \
             10.9.0.0 3 s ago), 1204 packets to fd09::1/128 (the last 3 s ago) and others; if such addresses should be reachable behind \
             blue, run: \"geneved --socket /run/x.sock link set blue allowed 10.8.0.0/16 allowed 10.9.0.0/24 allowed \
             fd09::1/128\", which is the whole list from then on; for it to last, the file needs: allowed = \
             [\"10.8.0.0/16\", \"10.9.0.0/24\", \"fd09::1/128\"]"
        );
    }
}
