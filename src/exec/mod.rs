//! Execution: the resolve step, the planners of our nodes, and the jobs behind commands.

mod append;
pub mod by_name;
mod cancelable;
mod capped;
mod columnar;
pub mod command;
pub mod compiled;
pub mod crowds;
mod ddl;
mod delete;
pub mod effects;
pub mod external;
pub mod files;
pub mod freshness;
mod functions;
pub mod gates;
mod generations;
pub mod ingest;
pub mod insert;
pub mod lease;
pub mod maintenance;
pub mod materialize;
mod numbered;
mod numbers;
pub mod optimize;
pub mod physical;
mod pins;
pub mod planner;
pub mod push;
mod push_groups;
pub mod push_queue;
pub mod read;
mod reckon;
pub mod record;
pub mod refresh;
mod rejected;
pub mod replace;
pub mod resolve;
pub mod rows;
pub mod schedule;
pub mod served;
pub mod services;
pub mod session_state;
pub mod stall;
pub mod sweep;
pub mod system;
pub mod table;
mod table_swap;
mod time;
pub mod training;
pub mod vacuum;
pub mod verify;
mod versions;
pub mod workers;
pub mod write;

#[cfg(test)]
mod tests;

pub use planner::StatementPlanner;
pub use services::Services;

/// Hides the type of a large future: the compiler would otherwise look into it again at every caller.
pub fn boxed<'a, T>(f: impl Future<Output = T> + Send + 'a) -> futures::future::BoxFuture<'a, T> {
    Box::pin(f)
}
