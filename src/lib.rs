//! Remige: a SQL-native feature warehouse.
//!
//! ```text
//! text ──sql──▶ Statement ──resolve──▶ LogicalPlan ──engine──▶ ExecutionPlan ──job──▶ catalog · store
//!        no catalog         names only, no IO      nodes only
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod activity;
pub mod background;
pub mod cancel;
pub mod catalog;
pub mod clock;
pub mod config;
pub mod engine;
pub mod error;
pub mod job;
pub mod model;
pub mod operator;
pub mod plan;
pub mod progress;
pub mod resolve;
pub mod server;
pub mod services;
pub mod session;
pub mod sql;
pub mod statement;
pub mod store;
pub mod table;
pub mod telemetry;
