//! How large artifacts are.
