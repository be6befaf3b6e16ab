//! Configuration: file, validated desired state, plan of changes.
