//! Windows over events: which events count at an instant, what aggregates make of them, and the bytes in which an online
//! store keeps them. The same code answers in training and in serving (docs/windows.md).

mod aggregate;
mod cells;
mod exact;
mod frame_sums;
mod kernel;
mod numbers;
mod output;
mod record;
mod spec;
mod state;
mod value;

pub use aggregate::{Aggregate, Call, Function};
pub use kernel::{Aggregators, Run, columns};
pub use output::Output;
pub use record::{Read, RecordCodec};
pub use spec::{Asked, Window, check_family, longest, shown};

#[cfg(test)]
mod tests;
