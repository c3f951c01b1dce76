//! From a statement to a logical plan: names become tables, the only IO of planning, and the stock planner is given our
//! relations. What carries out effects is handed in (`effects`).

pub mod effects;
pub mod insert;
mod named_files;
pub mod planner;
pub mod resolver;
pub mod source;
pub mod system;
