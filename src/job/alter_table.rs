//! ALTER TABLE: one commit. ADD COLUMN writes no file, and old ones read as NULL. For RENAME and DROP COLUMN all files are
//! written again, one after another: Delta has other names for columns than their files only with column mapping, which
//! our scans do not read.

use std::sync::Arc;

use datafusion::execution::TaskContext;
use futures::StreamExt;

use crate::catalog::{CatalogChange, CatalogSnapshot, PutMode};
use crate::clock::new_id;
use crate::error::{Error, Kind, Result};
use crate::model::types::ColumnType;
use crate::model::{Column, Table};
use crate::plan::alteration::{Alteration, ColumnChange};
use crate::resolve::resolver::Resolver;
use crate::services::{Services, boxed};
use crate::store::offline::{Commit, Operation, Snapshot};
use crate::table::write::stream_of;
use crate::table::{managed, replace, swap};

const MAX_ATTEMPTS: u32 = 10;

pub async fn run(resolver: &Arc<Resolver>, alteration: &Alteration, cx: &Arc<TaskContext>) -> Result<()> {
    let services = &resolver.services;
    let then = found(&resolver.catalog, alteration)?;
    let done = boxed(commit(services, alteration, cx)).await;
    swap::still_there(services, &then).await.map_err(|e| match e.kind() {
        Kind::Conflict => gone(alteration),
        _ => e,
    })?;
    let columns = columns(&done.map_err(|e| e.context(format!("table {}", alteration.table)))?)?;
    // the definition follows the table, whose columns are the ones that count
    let follow = |c: &CatalogSnapshot| {
        let table = Table { columns: columns.clone(), ..found(c, alteration)?.as_ref().clone() };
        Ok((vec![CatalogChange::PutTable(table, PutMode::Replace)], ()))
    };
    services.registry.commit(None, follow).await
}

fn found(c: &CatalogSnapshot, alteration: &Alteration) -> Result<Arc<Table>> {
    c.tables.get(&alteration.table).filter(|t| t.location == alteration.location).cloned().ok_or_else(|| gone(alteration))
}

fn gone(alteration: &Alteration) -> Error {
    Error::conflict(format!(
        "ALTER TABLE {}: the table was dropped or replaced meanwhile; the one of this name was not changed",
        alteration.table
    ))
    .with_hint("run it again")
}

fn columns(snapshot: &Snapshot) -> Result<Vec<Column>> {
    let column =
        |f: &Arc<datafusion::arrow::datatypes::Field>| Ok(Column { name: f.name().clone(), data_type: ColumnType::stored(f.data_type())? });
    snapshot.schema().fields().iter().map(column).collect()
}

/// Changes the newest version; where another writer was faster, the one that it made.
async fn commit(services: &Services, alteration: &Alteration, cx: &Arc<TaskContext>) -> Result<Snapshot> {
    for _ in 0..MAX_ATTEMPTS {
        let catalog = services.registry.snapshot().await?;
        found(&catalog, alteration)?;
        alteration.check_readers(&catalog)?;
        let base = services.store.snapshot(&alteration.location, None).await?;
        let new_schema = alteration.applied(base.schema())?;
        let mut commit = Commit { new_schema: Some(new_schema), run_id: Some(new_id()), exposed: true, ..Default::default() };
        commit.operation = match alteration.change {
            ColumnChange::Add(_) => Operation::AddColumn,
            ColumnChange::Rename { .. } | ColumnChange::Drop(_) => Operation::Overwrite,
        };
        if let Some(kept) = alteration.kept(base.schema())? {
            commit.removes = base.files().iter().map(|f| f.path.clone()).collect();
            if let Err(e) = boxed(rewrite(services, &base, &kept, &mut commit, cx)).await {
                services.store.discard(&alteration.location, &commit.adds).await;
                return Err(e);
            }
        }
        match services.store.commit_or_take_back(&base, commit).await {
            Err(e) if e.kind() == Kind::Conflict => {}
            done => return done,
        }
    }
    Err(Error::conflict(format!("the table changed {MAX_ATTEMPTS} times meanwhile; its columns are what they were")).with_hint("try again"))
}

/// Writes the kept columns of each file again, under their new names; rows and files stay in their order.
async fn rewrite(services: &Services, base: &Snapshot, kept: &[usize], commit: &mut Commit, cx: &Arc<TaskContext>) -> Result<()> {
    let Some(schema) = commit.new_schema.clone() else { return Err(Error::internal("a table is written again with no columns")) };
    for file in base.files() {
        let rows = replace::whole(services, base, file, cx).await?;
        let (places, projected) = (kept.to_vec(), Arc::new(rows.schema().project(kept)?));
        let rows = rows.map(move |batch| Ok(batch?.project(&places)?));
        let (_, adds) = managed::write(services, base.location(), Arc::clone(&schema), stream_of(projected, rows)).await?;
        commit.adds.extend(adds);
    }
    Ok(())
}
