//! What scenarios and benchmarks share: network namespaces, a daemon to start, its command line.
