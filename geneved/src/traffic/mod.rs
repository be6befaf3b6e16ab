//! A small traffic generator: sends, receives and verifies inside named network namespaces.
