//! Generations of online rows that were switched away from.

use crate::error::Result;
use crate::services::Services;
use crate::store::online::{OnlineStore, OnlineView, Pointer};

/// Drops generations older than the current one once it has been current for the grace time, until then all
/// but the last of them; answers how many.
pub async fn older(services: &Services, online: &dyn OnlineStore, id: &OnlineView, current: &Pointer) -> Result<usize> {
    let grace = services.config.online_settings.generation_grace;
    let over = current.published_at.saturating_add(grace) <= services.clock.now();
    let mut older: Vec<u32> = online.generations(id).await?.into_iter().filter(|g| *g < current.generation).collect();
    if !over {
        // it was current until now
        older.pop();
    }
    for g in &older {
        online.drop_generation(id, *g).await?;
    }
    Ok(older.len())
}
