//! The point-in-time join, from its syntax to one logical node.

pub mod conditions;
pub mod join;
pub mod keys;
mod node;
pub mod rules;
pub mod syntax;
pub mod types;

pub use node::{MatchOp, PitItem, PitJoinNode};
