//! Event hub: sends events to watching clients.
//!
//! Everybody who watches has a bounded queue. Who does not take events in time loses the later ones,
//! and is told how many. Nothing is made for topics that nobody watches: ask [`EventHub::wants`] first.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::control::protocol::{ChangeKind, Event, EventKind, Topic};

/// Maximum number of events queued for one client.
const SUBSCRIBER_QUEUE: usize = 1024;

/// Event hub.
#[derive(Debug, Default)]
pub struct EventHub {
    watchers: RefCell<Vec<Weak<Subscriber>>>,
}

#[derive(Debug)]
struct Subscriber {
    topics: Vec<Topic>,
    sender: Sender<Rc<Event>>,
    lost: Cell<u64>,
}

/// Subscription of one watcher.
#[derive(Debug)]
pub struct Subscription {
    receiver: Receiver<Rc<Event>>,
    watcher: Rc<Subscriber>,
}

impl EventHub {
    /// Subscribes to these topics; to all, if none is named.
    pub fn subscribe(&self, topics: &[Topic]) -> Subscription {
        let (sender, receiver) = channel(SUBSCRIBER_QUEUE);
        let topics = if topics.is_empty() {
            Topic::ALL
        } else {
            topics
        };
        let watcher = Rc::new(Subscriber {
            topics: topics.to_vec(),
            sender,
            lost: Cell::new(0),
        });
        let mut watchers = self.watchers.borrow_mut();
        watchers.retain(|w| w.strong_count() > 0);
        watchers.push(Rc::downgrade(&watcher));
        Subscription { receiver, watcher }
    }

    /// Whether a topic has watchers.
    pub fn wants(&self, topic: Topic) -> bool {
        let watchers = self.watchers.borrow();
        let mut living = watchers.iter().filter_map(Weak::upgrade);
        living.any(|w| w.topics.contains(&topic))
    }

    /// Whether any configuration topic has watchers.
    pub fn wants_changes(&self) -> bool {
        let mut objects = Topic::ALL.iter().filter(|topic| topic.is_configuration());
        objects.any(|&topic| self.wants(topic))
    }

    /// Publishes an event.
    pub fn announce(&self, what: EventKind) {
        self.publish(None, what);
    }

    /// Publishes a change of an object.
    pub fn changed(&self, change: ChangeKind, what: EventKind) {
        self.publish(Some(change), what);
    }

    fn publish(&self, change: Option<ChangeKind>, what: EventKind) {
        let topic = what.topic();
        let event = Rc::new(event(change, what));
        for watcher in self.watchers.borrow().iter().filter_map(Weak::upgrade) {
            if watcher.topics.contains(&topic) {
                watcher.take(&event);
            }
        }
    }
}

fn event(change: Option<ChangeKind>, what: EventKind) -> Event {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let time_us = since.map_or(0, |t| u64::try_from(t.as_micros()).unwrap_or(u64::MAX));
    Event {
        time_us,
        change,
        what,
    }
}

impl Subscriber {
    fn take(&self, event: &Rc<Event>) {
        let lost = self.lost.get();
        // After a loss the gap is reported first, and both must fit.
        let needed = if lost == 0 { 1 } else { 2 };
        if self.sender.capacity() < needed {
            self.lost.set(lost + 1);
            return;
        }
        if lost > 0 {
            self.lost.set(0);
            let _ = self
                .sender
                .try_send(Rc::new(self::event(None, EventKind::Lost(lost))));
        }
        let _ = self.sender.try_send(Rc::clone(event));
    }
}

impl Subscription {
    /// Returns the next event.
    pub async fn next(&mut self) -> Rc<Event> {
        match self.receiver.try_recv() {
            Ok(event) => return event,
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        let lost = self.watcher.lost.take();
        if lost > 0 {
            return Rc::new(event(None, EventKind::Lost(lost)));
        }
        match self.receiver.recv().await {
            Some(event) => event,
            // Cannot happen: the sender is in `self`.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::HostEvent;

    fn host(detail: usize) -> EventKind {
        EventKind::Host(HostEvent {
            address: None,
            what: "test".into(),
            detail: detail.to_string(),
        })
    }

    fn detail(event: &Event) -> String {
        match &event.what {
            EventKind::Host(host) => host.detail.clone(),
            EventKind::Lost(count) => format!("lost {count}"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn who_is_slow_loses_the_later_events_and_is_told_how_many() {
        let hub = EventHub::default();
        let mut slow = hub.subscribe(&[]);
        for n in 0..SUBSCRIBER_QUEUE + 7 {
            hub.announce(host(n));
        }
        assert_eq!(detail(&*slow.next().await), "0");
        hub.announce(host(5000));
        assert_eq!(detail(&*slow.next().await), "1");
        hub.announce(host(6000));
        let mut seen = Vec::new();
        while seen.last().is_none_or(|s: &String| s != "6000") {
            seen.push(detail(&*slow.next().await));
        }
        assert_eq!(seen[SUBSCRIBER_QUEUE - 2..], ["lost 8", "6000"]);
    }

    #[tokio::test]
    async fn who_has_read_all_is_told_at_once_what_was_lost() {
        let hub = EventHub::default();
        let mut slow = hub.subscribe(&[]);
        (0..SUBSCRIBER_QUEUE + 3).for_each(|n| hub.announce(host(n)));
        for n in 0..SUBSCRIBER_QUEUE {
            assert_eq!(detail(&*slow.next().await), n.to_string());
        }
        assert_eq!(detail(&*slow.next().await), "lost 3");
    }

    #[tokio::test]
    async fn who_asks_for_any_kind_of_object_wants_changes() {
        for &topic in Topic::ALL {
            let hub = EventHub::default();
            let _watch = hub.subscribe(&[topic]);
            assert_eq!(hub.wants_changes(), topic.is_configuration(), "{topic:?}");
        }
        assert_eq!(
            Topic::ALL.iter().filter(|t| t.is_configuration()).count(),
            9
        );
    }

    #[tokio::test]
    async fn only_what_was_asked_for_is_told_and_nothing_is_wanted_when_nobody_watches() {
        let hub = EventHub::default();
        assert!(!hub.wants(Topic::Host));
        let mut watch = hub.subscribe(&[Topic::Drop, Topic::Host]);
        assert!(hub.wants(Topic::Host) && !hub.wants(Topic::Log) && !hub.wants_changes());
        hub.announce(EventKind::Lost(1));
        hub.announce(host(4));
        assert_eq!(detail(&*watch.next().await), "4");
        drop(watch);
        assert!(!hub.wants(Topic::Host));
    }
}
