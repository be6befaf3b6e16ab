//! Cooperative scheduling of long work on the control thread.
//!
//! One thread serves the control socket, netlink, timers and the service manager's watchdog. Long work yields
//! regularly; work that cannot be split runs on a thread of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::oneshot;

/// Time that long work may run without yielding. Including the work between two checks, nothing else waits longer
/// than 10 ms.
const YIELD_INTERVAL: Duration = Duration::from_millis(4);

/// Timer for long work that yields regularly.
#[derive(Debug)]
pub struct Yielder {
    since: Instant,
}

impl Default for Yielder {
    fn default() -> Self {
        Yielder {
            since: Instant::now(),
        }
    }
}

impl Yielder {
    /// Yields to other tasks if the time slice is used up.
    pub async fn yield_if_due(&mut self) {
        if self.since.elapsed() >= YIELD_INTERVAL {
            tokio::task::yield_now().await;
            self.since = Instant::now();
        }
    }
}

/// Serializes a JSON object with one list, yielding in between.
pub async fn list<T: Serialize>(name: &str, items: &[T]) -> Vec<u8> {
    let mut steps = Yielder::default();
    let mut text = format!("{{\"{name}\":[").into_bytes();
    for (number, item) in items.iter().enumerate() {
        if number > 0 {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, item).expect("replies have a form in JSON");
        steps.yield_if_due().await;
    }
    text.extend_from_slice(b"]}");
    text
}

/// Runs work that cannot yield on a thread of its own. If no thread can be started, it runs here and other tasks
/// wait.
pub async fn spawn_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = oneshot::channel();
    let work = Arc::new(Mutex::new(Some(work)));
    let take = |work: &Mutex<Option<_>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let there = Arc::clone(&work);
    let thread = thread::Builder::new().name("apart".into()).spawn(move || {
        if let Some(work) = take(&there) {
            let _ = send.send(work());
        }
    });
    if thread.is_err()
        && let Some(work) = take(&work)
    {
        return work();
    }
    match receive.await {
        Ok(done) => done,
        // The panic itself was already reported on that thread.
        Err(_) => panic!("what was done on a thread of its own panicked"),
    }
}

/// Runs work on a thread of its own if it is `long`, otherwise inline.
pub async fn spawn_blocking_if<T: Send + 'static>(
    long: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    match long {
        true => spawn_blocking(work).await,
        false => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_made_in_steps_is_what_it_is_at_once() {
        let items: Vec<_> = (0..1000).map(|n| serde_json::json!({ "n": n })).collect();
        let whole = serde_json::json!({ "items": items });
        assert_eq!(
            list("items", &items).await,
            serde_json::to_vec(&whole).unwrap()
        );
        assert_eq!(list::<u8>("items", &[]).await, b"{\"items\":[]}");
        assert_eq!(spawn_blocking(|| 7).await, 7);
    }
}
