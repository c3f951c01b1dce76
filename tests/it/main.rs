//! Tests of the whole engine: one binary, because linking takes longer than running.

mod slt;
mod tidy;
