//! From text to tokens and syntax trees: cutting scripts into statements, the token pass that lets
//! the stock SQL parser read our join forms, and the cursor with which our own statements are read.

mod arrows;
pub mod as_of;
pub mod asof;
mod balance;
pub mod clauses;
pub mod cursor;
mod depth;
mod distinct;
pub mod marks;
pub mod over;
pub mod parse;
pub mod references;
pub mod rewrite;
mod rows;
pub mod synonyms;
pub mod text;
pub mod titles;
pub mod tokens;
pub mod typed;
pub mod windowed;

pub use crate::model::instant;
pub use cursor::Cursor;
pub use text::{Piece, split};
