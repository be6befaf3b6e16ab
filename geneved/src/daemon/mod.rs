//! The daemon: start-up, shutdown, reload, and the one owner of the running state.
