use super::PutKind;
use crate::error::Result;
use crate::model::codec::row::{CONTENT_AT, HEADER_LEN, ORDER_LEN, Prefix, Row, is_tombstone};

/// Whether `new` may replace `stored`, both encoded rows of one key. Every store applies this rule
/// (Redis in its script):
/// - what is shorter than any row is none: it is replaced like a key that is absent;
/// - nothing new is known: `stored.asof >= new.asof` → no;
/// - a state replaces whatever there is, a tombstone included;
/// - an offer replaces a tombstone, or a row that it wins over by (event_ts, created_ts, seq); where
///   these are equal the greater bytes from the schema id on win.
///
/// Of what is stored no more is read than every version of the codec has at the same place: it may
/// be damaged, or of another program.
pub fn supersedes(kind: PutKind, new: &[u8], stored: Option<&[u8]>) -> Result<bool> {
    let Some(stored) = stored.filter(|s| s.len() >= HEADER_LEN) else { return Ok(true) };
    Row::parse(new)?;
    if Prefix::read(stored)?.asof >= Prefix::read(new)?.asof {
        return Ok(false);
    }
    Ok(kind != PutKind::Offer
        || is_tombstone(stored)
        || (&new[..ORDER_LEN], &new[CONTENT_AT..]) > (&stored[..ORDER_LEN], &stored[CONTENT_AT..]))
}
