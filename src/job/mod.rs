//! One file, or folder, per effect. `command` carries out what a plan asks for; the others are what it calls.

mod alter_table;
pub mod command;
mod ddl;
mod delete;
mod delete_rows;
pub mod garbage_collection;
mod generations;
mod group_commit;
pub mod ingest;
mod maintenance;
pub mod materialize;
mod numbers;
pub mod optimize;
mod pins;
mod push;
mod refresh;
mod training;
mod vacuum;
mod verify;
mod versions;

#[cfg(test)]
mod tests;
