//! Execution: the resolve step, the planners of our nodes, and the jobs behind commands.

pub mod command;
pub mod external;
pub mod ingest;
pub mod materialize;
pub mod planner;
pub mod push;
pub mod refresh;
pub mod replace;
pub mod resolve;
pub mod rows;
pub mod services;
pub mod system;
pub mod table;
pub mod training;
pub mod write;

pub use planner::StatementPlanner;
pub use services::Services;
