//! Trace observer of a decision: a no-op for packets, a record of each stage for `trace`.

/// Observer of the stages of a decision.
pub(super) trait TraceObserver {
    /// Dry run: no port is leased and no hit is counted.
    const DRY: bool;

    /// Records the result of a stage.
    fn record(&mut self, stage: &'static str, result: impl FnOnce() -> String);
}

/// No-op observer for packets.
pub(super) struct NoTrace;

impl TraceObserver for NoTrace {
    const DRY: bool = false;

    #[inline]
    fn record(&mut self, _: &'static str, _: impl FnOnce() -> String) {}
}

/// Stage of a decision and its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceStage {
    /// Name of the stage: `source`, `service`, `nat`, `route`, `rule`, `policy`, `class`, `options`, `exit`, `mtu`.
    pub stage: &'static str,
    /// Human-readable result.
    pub result: String,
}

/// Observer that records all stages.
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
