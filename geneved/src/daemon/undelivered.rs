//! Tells of packets that were not delivered because their destination is not behind their link: put together, once, with
//! the word that allows them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::core::{Core, Inner};
use crate::config::state::Link;
use crate::config::value::{IfName, Prefix};
use crate::control::protocol::UndeliveredInfo;

/// So long packets are put together before the first word is said of a link.
const FIRST: Duration = Duration::from_secs(3);
/// So long nothing more is said of it: whoever tries one address after the other does not fill the log.
const PAUSE: Duration = Duration::from_secs(60);
/// Prefixes of a link of which is known that they were told.
const MOST: usize = 64;

/// What was said of each link.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<IfName, OfLink>);

#[derive(Debug)]
struct OfLink {
    prefixes: BTreeSet<IpNet>,
    next: Instant,
}

impl Told {
    /// Those that nobody was told of yet, if it is time.
    fn news(&mut self, link: &IfName, all: Vec<UndeliveredInfo>) -> Vec<UndeliveredInfo> {
        if all.is_empty() {
            return all;
        }
        let now = Instant::now();
        let of = self.0.entry(link.clone()).or_insert_with(|| OfLink {
            prefixes: BTreeSet::new(),
            next: now + FIRST,
        });
        if now < of.next || of.prefixes.len() >= MOST {
            return Vec::new();
        }
        let mut news = all;
        news.retain(|one| of.prefixes.insert(one.prefix.0));
        if !news.is_empty() {
            of.next = now + PAUSE;
        }
        news
    }
}

impl Core {
    /// What came for this link and was not delivered, but for what would be by now.
    pub(super) fn undelivered(&self, inner: &Inner, link: &Link) -> Vec<UndeliveredInfo> {
        let running = inner.running.get(&link.name);
        let tables = self.engine().tables();
        let Some(there) = running.and_then(|running| tables.link(running.index)) else {
            return Vec::new();
        };
        let all = there.config.undelivered.all().into_iter();
        all.filter(|one| there.delivers(one.last).is_none())
            .map(|one| UndeliveredInfo {
                prefix: Prefix(one.prefix),
                packets: one.packets,
                last: one.last,
                remedy: remedy(link, one.prefix),
            })
            .collect()
    }

    /// Tells what has come since; to be called every second or so.
    pub(super) async fn tell_undelivered(&self) {
        let inner = self.inner().await;
        let mut told = self.told_undelivered.borrow_mut();
        told.0
            .retain(|name, _| inner.state.links.contains_key(name));
        for link in inner.state.links.values() {
            let news = told.news(&link.name, self.undelivered(&inner, link));
            let name = &link.name;
            for one in news {
                let what = one.sentence(name.as_str());
                tracing::warn!(link = %name, prefix = %one.prefix, packets = one.packets, "{what}");
            }
        }
    }
}

/// The command that allows a prefix beside those that are.
fn remedy(link: &Link, prefix: IpNet) -> String {
    let allowed = link.allowed.iter().chain([&prefix]);
    let allowed: String = allowed.map(|prefix| format!(" allowed {prefix}")).collect();
    format!("geneved link set {}{allowed}", link.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(prefix: &str) -> UndeliveredInfo {
        let prefix: IpNet = prefix.parse().unwrap();
        UndeliveredInfo {
            prefix: Prefix(prefix),
            packets: 1204,
            last: prefix.addr(),
            remedy: format!("geneved link set blue allowed {prefix}"),
        }
    }

    #[test]
    fn a_prefix_is_told_once_and_a_link_does_not_fill_the_log() {
        let mut told = Told::default();
        let (blue, red) = ("blue".parse().unwrap(), "red".parse().unwrap());
        let first = vec![one("10.9.0.0/24"), one("fd09::/64")];
        assert_eq!(told.news(&blue, first.clone()), []);
        told.0.get_mut(&blue).unwrap().next -= FIRST;
        assert_eq!(told.news(&blue, first.clone()), first);
        let more = vec![one("10.9.0.0/24"), one("10.9.1.0/24")];
        assert_eq!(told.news(&blue, more.clone()), []);
        assert_eq!(told.news(&red, more.clone()), []);
        told.0.get_mut(&blue).unwrap().next -= PAUSE;
        assert_eq!(told.news(&blue, more), [one("10.9.1.0/24")]);
    }

    #[test]
    fn the_sentence_has_the_word_that_allows_it() {
        assert_eq!(
            one("10.9.0.0/24").sentence("blue"),
            "1204 packets for 10.9.0.0/24 (last 10.9.0.0) came for link \"blue\" and were dropped, because no such address is \
             behind it; if there is: \"geneved link set blue allowed 10.9.0.0/24\""
        );
    }
}
