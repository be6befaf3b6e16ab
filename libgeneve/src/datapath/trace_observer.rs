//! The account that a decision gives of itself: nothing for packets, every stage for `trace`.

/// Who listens to the stages of a decision.
pub(super) trait TraceObserver {
    /// Nothing may be changed: no port is leased and no hit is counted.
    const DRY: bool;

    /// A stage came to a result.
    fn record(&mut self, stage: &'static str, result: impl FnOnce() -> String);
}

/// Nobody.
pub(super) struct NoTrace;

impl TraceObserver for NoTrace {
    const DRY: bool = false;

    #[inline]
    fn record(&mut self, _: &'static str, _: impl FnOnce() -> String) {}
}

/// One stage of a packet's journey, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceStage {
    /// Its name: `source`, `service`, `nat`, `route`, `rule`, `policy`, `class`, `options`, `exit`, `mtu`.
    pub stage: &'static str,
    /// What came of it, for a person.
    pub result: String,
}

/// Writes the stages down.
#[derive(Debug, Default)]
pub(super) struct TraceRecorder(pub(super) Vec<TraceStage>);

impl TraceObserver for TraceRecorder {
    const DRY: bool = true;

    fn record(&mut self, stage: &'static str, result: impl FnOnce() -> String) {
        self.0.push(TraceStage {
            stage,
            result: result(),
        });
    }
}
