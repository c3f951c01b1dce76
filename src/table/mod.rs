//! Delta tables of ours, below SQL: rows conformed, numbered and sorted on their way in, read, appended, replaced. What a
//! table may hold is said by `model`, how its files lie on disk by `store/offline`.

pub mod append;
pub mod conform;
pub mod managed;
pub mod prepare;
pub mod read;
mod rejected;
pub mod replace;
pub mod swap;
pub mod write;
