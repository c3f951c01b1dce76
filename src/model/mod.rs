//! Plain values: what the catalog stores and what the stores encode. No IO.

pub mod codec;
pub mod definition;
pub mod dependencies;
pub mod exact;
pub mod instant;
pub mod layout;
pub mod live;
pub mod local_time;
mod source;
pub mod types;
pub mod window;
pub mod windowed;

pub use definition::*;
pub use dependencies::{Dependency, ObjectKind, Travel};
pub(crate) use source::each_source;
pub use source::{SOURCE_KINDS, SourceKind};
