//! What the operator sees of a running daemon: log and metrics.
