//! DataFusion as this warehouse runs it: its functions, the session state that every statement begins from, the physical
//! planner with our nodes, and the threads that plan and run. It knows no catalog entry and no store of an open warehouse.

mod cancelable;
mod capped;
mod columnar;
pub mod functions;
pub mod physical;
mod reckon;
pub mod session_state;
mod time;
pub mod workers;
