use std::cmp::Ordering;

use super::PutKind;
use crate::error::Result;
use crate::model::codec::row::{CONTENT_AT, ORDER_LEN, Prefix, Row};

/// Whether `new` may replace `stored`, both encoded rows of one key. Every store applies this rule
/// (Redis in its script):
/// - nothing new is known: `stored.asof >= new.asof` → no;
/// - a state replaces whatever there is, a tombstone included;
/// - an offer replaces a tombstone, or a row that it wins over by (event_ts, created_ts, seq); where
///   these are equal the greater bytes from the schema id on win;
/// - a repair is a state, and reads no more of what is stored than its version.
pub fn supersedes(kind: PutKind, new: &[u8], stored: Option<&[u8]>) -> Result<bool> {
    let Some(stored) = stored else { return Ok(true) };
    if kind == PutKind::Repair {
        let new = Prefix::read(new)?;
        return Ok(Prefix::read(stored).map_or(true, |s| s.asof < new.asof));
    }
    let (n, s) = (Row::parse(new)?, Row::parse(stored)?);
    if s.prefix.asof >= n.prefix.asof {
        return Ok(false);
    }
    Ok(kind == PutKind::State
        || s.tombstone
        || match new[..ORDER_LEN].cmp(&stored[..ORDER_LEN]) {
            Ordering::Equal => new[CONTENT_AT..] > stored[CONTENT_AT..],
            unequal => unequal == Ordering::Greater,
        })
}
