//! Physical operators, one folder each.

pub mod bound_rows;
pub mod codec;
pub mod element_functions;
pub mod input_order;
pub mod interruptible;
pub mod online_lookup;
mod ordered_scan;
pub mod pit_join;
pub mod portions;
pub mod repartition;
mod shared_pool;
pub mod window_join;
