//! Groups of equal keys are numbered from 0 on.

/// A row that belongs to no group: NULL in its key, or a key that no label has.
pub const NO_GROUP: u32 = u32::MAX;
