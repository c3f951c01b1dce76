//! The watermark of a feature table: the greatest event timestamp that a REFRESH has stored, carried by the log.

use deltalake::logstore::LogStoreRef;
use deltalake::table::state::DeltaTableState;

use super::delta_error;
use crate::clock::Micros;
use crate::error::Result;

/// Application transaction that carries the watermark through checkpoints.
pub(crate) const WATERMARK_APP: &str = "remige.watermark";
/// What the log says where the table has no watermark any more: a number cannot be taken out of it.
pub const NO_WATERMARK: Micros = Micros::MIN;
/// Table property: the table's commits carry a watermark.
pub(crate) const HAS_WATERMARK: &str = "remige.hasWatermark";

pub(crate) async fn read_watermark(state: &DeltaTableState, log: &LogStoreRef, location: &str) -> Result<Option<Micros>> {
    if !state.metadata().configuration().contains_key(HAS_WATERMARK) {
        return Ok(None);
    }
    let found = state.snapshot().transaction_version(log.as_ref(), WATERMARK_APP).await;
    Ok(found.map_err(|e| delta_error(e, &format!("table {location:?}")))?.and_then(known))
}

/// A watermark as the log has it.
pub(crate) fn known(watermark: Micros) -> Option<Micros> {
    (watermark != NO_WATERMARK).then_some(watermark)
}
