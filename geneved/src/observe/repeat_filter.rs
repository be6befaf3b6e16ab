//! Rate limit for repeated log messages.
//!
//! Each place in the code may log ten warnings or errors in half a minute; the number of suppressed ones is logged at
//! the end of that window.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata};
use tracing_subscriber::layer::{Context, Filter};

use crate::plural::counted;

/// Maximum number of messages per place within the window.
const REPEAT_BURST: u64 = 10;
/// Length of the window.
const REPEAT_WINDOW: Duration = Duration::from_secs(30);

/// Log filter that suppresses repeated warnings and errors.
#[derive(Clone, Copy, Debug)]
pub struct RepeatFilter;

/// Messages of one place in the code since its window began.
struct RepeatWindow {
    since: Instant,
    count: u64,
    place: &'static Metadata<'static>,
}

static SAID: Mutex<Option<HashMap<Identifier, RepeatWindow>>> = Mutex::new(None);

fn said() -> MutexGuard<'static, Option<HashMap<Identifier, RepeatWindow>>> {
    SAID.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S> Filter<S> for RepeatFilter {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let place = event.metadata();
        // Smaller levels are more severe.
        if *place.level() > Level::WARN || place.fields().field("repeated").is_some() {
            return true;
        }
        admit(place, Instant::now())
    }
}

fn admit(place: &'static Metadata<'static>, now: Instant) -> bool {
    let mut said = said();
    let said = said
        .get_or_insert_default()
        .entry(place.callsite())
        .or_insert(RepeatWindow {
            since: now,
            count: 0,
            place,
        });
    said.count += 1;
    said.count <= REPEAT_BURST
}

/// Logs how many messages were suppressed in windows that have ended. Called periodically.
pub fn tell_repeats() {
    for (place, count) in over(Instant::now()) {
        tracing::warn!(
            repeated = count,
            at = place,
            "the same as from {place} was not logged again {}",
            counted(count, "time")
        );
    }
}

/// Removes the windows that have ended, and returns their places with the number of suppressed messages.
fn over(now: Instant) -> Vec<(String, u64)> {
    let mut told = Vec::new();
    if let Some(said) = said().as_mut() {
        said.retain(|_, said| {
            let ends = now.duration_since(said.since) >= REPEAT_WINDOW;
            if ends && said.count > REPEAT_BURST {
                let at = format!(
                    "{}:{}",
                    said.place.file().unwrap_or("?"),
                    said.place.line().unwrap_or(0)
                );
                told.push((at, said.count - REPEAT_BURST));
            }
            !ends
        });
    }
    told
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use tracing_subscriber::layer::{Layer, SubscriberExt};

    use super::*;

    #[derive(Clone, Default)]
    struct TestWriter(Arc<Mutex<Vec<u8>>>);

    impl Write for TestWriter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_error_that_repeats_is_told_a_few_times_and_then_counted() {
        let paper = TestWriter::default();
        let writer = paper.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(RepeatFilter));
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..1000 {
                tracing::error!(n, "it broke");
                tracing::info!("all is well");
            }
        });
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("it broke").count() as u64, REPEAT_BURST);
        assert_eq!(text.matches("all is well").count(), 1000);
        let held = over(Instant::now() + REPEAT_WINDOW);
        let here = held
            .iter()
            .filter(|(at, _)| at.contains("repeat_filter.rs"));
        assert_eq!(
            here.map(|(_, count)| *count).sum::<u64>(),
            1000 - REPEAT_BURST
        );
        assert!(over(Instant::now() + REPEAT_WINDOW).is_empty());
    }
}
