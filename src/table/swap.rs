//! CREATE OR REPLACE TABLE puts another Delta table in the place of one that others put rows into. The registry decides
//! between them: whoever puts rows in commits them first, and then looks whether the table is still the one of its name.
//! A replacement made from the rows of the table says so in the registry before it looks whether they are still all: rows
//! that come before that are found by it, and who comes after it waits for what becomes of it.

use std::time::Duration;

use crate::catalog::ddl::Announcement;
pub use crate::catalog::ddl::overtaken;
use crate::catalog::{CatalogChange, CatalogSnapshot, PutMode};
use crate::clock::{self, new_id};
use crate::error::{Error, Result};
use crate::model::{Name, Table};
use crate::services::Services;
use crate::store::offline::Snapshot;

/// Looks at a table that is being replaced before its replacement is taken to have died: some five seconds.
const MAX_LOOKS: u64 = if cfg!(test) { 3 } else { 45 };

/// What was read of a table that is about to be replaced.
#[derive(Debug)]
pub struct Replacement(Announcement);

pub fn changed(name: &Name) -> Error {
    overtaken().context(format!("table {name}"))
}

impl Replacement {
    /// Announces that the table is replaced by one made from `read`. An error where it is no longer what was read.
    pub async fn announce(services: &Services, name: &Name, read: &Snapshot) -> Result<Replacement> {
        let me = Replacement(Announcement { id: new_id(), location: read.location().to_string() });
        let announce = |c: &CatalogSnapshot| match c.tables.get(name) {
            Some(t) if t.location == me.0.location => {
                let t = Table { replacing: Some(me.0.id.clone()), ..t.as_ref().clone() };
                Ok((vec![CatalogChange::PutTable(t, PutMode::Replace)], ()))
            }
            _ => Err(changed(name)),
        };
        services.registry.commit(None, announce).await?;
        let newest = services.store.snapshot(&me.0.location, None).await;
        if newest.as_ref().is_ok_and(|n| n.version() == read.version()) {
            return Ok(me);
        }
        me.withdraw(services).await;
        newest.and_then(|_| Err(changed(name)))
    }

    /// Whether a table is still the one that was announced.
    pub fn stands(&self, table: &Table) -> bool {
        self.0.stands(table)
    }

    pub fn announcement(&self) -> &Announcement {
        &self.0
    }

    /// Where nothing is replaced after all. What stays is taken away by whoever puts rows in next.
    pub async fn withdraw(&self, services: &Services) {
        let withdraw =
            |c: &CatalogSnapshot| Ok((c.tables.values().find(|t| self.stands(t)).map(|t| unmarked(t)).into_iter().collect(), ()));
        if let Err(error) = services.registry.commit(None, withdraw).await {
            tracing::warn!(location = self.0.location, %error, "a table is still announced to be replaced");
        }
    }
}

fn unmarked(table: &Table) -> CatalogChange {
    CatalogChange::PutTable(Table { replacing: None, ..table.clone() }, PutMode::Replace)
}

/// The table of a location, under whatever name.
fn found<'a>(catalog: &'a CatalogSnapshot, table: &Table) -> Option<&'a Table> {
    let same = |t: &&std::sync::Arc<Table>| t.location == table.location;
    catalog.tables.get(&table.name).filter(same).or_else(|| catalog.tables.values().find(same)).map(AsRef::as_ref)
}

/// After rows were put into a table: an error where they went into one that is no longer there.
pub async fn still_there(services: &Services, table: &Table) -> Result<()> {
    for look in 1..=MAX_LOOKS {
        let catalog = services.registry.snapshot().await?;
        match found(&catalog, table) {
            None => {
                left_over(services, &catalog, &table.location).await;
                return Err(gone(&catalog, table));
            }
            Some(t) if t.replacing.is_none() => return Ok(()),
            Some(_) => clock::sleep(Duration::from_millis(look * 5)).await,
        }
    }
    // a replacement that is still alive finds its announcement gone, and does nothing
    let taken_away = |c: &CatalogSnapshot| match found(c, table) {
        None => Err(gone(c, table)),
        Some(t) if t.replacing.is_none() => Ok((vec![], ())),
        Some(t) => Ok((vec![unmarked(t)], ())),
    };
    services.registry.commit(None, taken_away).await
}

/// Rows that were put into a table after it was removed.
async fn left_over(services: &Services, catalog: &CatalogSnapshot, location: &str) {
    if catalog.uses(location) {
        return;
    }
    if let Err(error) = services.store.delete_table(location).await {
        tracing::warn!(location, %error, "what is left of a table could not be removed");
    }
}

fn gone(catalog: &CatalogSnapshot, table: &Table) -> Error {
    let what = if catalog.tables.contains_key(&table.name) { "replaced" } else { "dropped" };
    Error::conflict(format!("table {}: it was {what} while rows were put into it; they are not stored", table.name))
        .with_hint("run it again")
}
