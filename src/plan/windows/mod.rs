//! Windowed features in plans: aggregates of a view's events in windows as of each label's instant
//! (sql/README.md, "Windows").

mod events;
pub mod join;
mod node;
mod outputs;
pub mod rules;

pub use events::events;
pub use node::{WindowItem, WindowJoinNode, describe};
pub use outputs::{feature, slots_of};
