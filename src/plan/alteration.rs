//! What ALTER TABLE changes of a plain table's columns, and what forbids it.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::catalog::CatalogSnapshot;
use crate::catalog::ddl::readers_of_columns;
use crate::error::{Error, Result};
use crate::model::layout::check_column_name;
use crate::model::types::quote;
use crate::model::{Column, Name};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ColumnChange {
    /// Behind the others; NULL in the rows that are there.
    Add(Column),
    Rename {
        from: String,
        to: String,
    },
    Drop(String),
}

impl fmt::Display for ColumnChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ColumnChange::Add(c) => write!(f, "ADD COLUMN {} {}", quote(&c.name), c.data_type),
            ColumnChange::Rename { from, to } => write!(f, "RENAME COLUMN {} TO {}", quote(from), quote(to)),
            ColumnChange::Drop(name) => write!(f, "DROP COLUMN {}", quote(name)),
        }
    }
}

/// An ALTER TABLE of one table, which is known by its place: the name may come to mean another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Alteration {
    pub table: Name,
    pub location: String,
    pub change: ColumnChange,
}

impl Alteration {
    /// The columns of the table afterwards; an error where the change does not fit them.
    pub fn applied(&self, schema: &Schema) -> Result<SchemaRef> {
        let table = &self.table;
        let mut fields: Vec<FieldRef> = schema.fields().iter().cloned().collect();
        match &self.change {
            ColumnChange::Add(c) => {
                self.free(schema, &c.name)?;
                fields.push(Arc::new(Field::new(&c.name, c.data_type.arrow().clone(), true)));
            }
            ColumnChange::Rename { from, to } => {
                let at = self.place(schema, from)?;
                // another spelling of the same name takes nobody's place
                if !from.eq_ignore_ascii_case(to) {
                    self.free(schema, to)?;
                }
                fields[at] = Arc::new(fields[at].as_ref().clone().with_name(to));
            }
            ColumnChange::Drop(name) => {
                let at = self.place(schema, name)?;
                if fields.len() == 1 {
                    return Err(Error::invalid(format!("table {table}: {name:?} is its only column"))
                        .with_hint(format!("DROP TABLE {table} removes the table")));
                }
                fields.remove(at);
            }
        }
        Ok(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())))
    }

    /// Places of the old columns in the files that are written anew; `None`: the files stay.
    pub fn kept(&self, schema: &Schema) -> Result<Option<Vec<usize>>> {
        let all = 0..schema.fields().len();
        match &self.change {
            ColumnChange::Add(_) => Ok(None),
            ColumnChange::Rename { .. } => Ok(Some(all.collect())),
            ColumnChange::Drop(name) => {
                let gone = self.place(schema, name)?;
                Ok(Some(all.filter(|i| *i != gone).collect()))
            }
        }
    }

    fn place(&self, schema: &Schema, name: &str) -> Result<usize> {
        let names = || schema.fields().iter().map(|f| f.name().as_str());
        schema.index_of(name).map_err(|_| {
            Error::not_found(format!("table {} has no column {name:?}", self.table))
                .suggest(name, names())
                .or_hint(&format!("its columns are {}", names().collect::<Vec<_>>().join(", ")))
        })
    }

    /// Names that differ in case only are one in a Delta table.
    fn free(&self, schema: &Schema, name: &str) -> Result<()> {
        check_column_name(name).map_err(|e| e.context(format!("table {}", self.table)))?;
        match schema.fields().iter().find(|f| f.name().to_lowercase() == name.to_lowercase()) {
            Some(f) => {
                Err(Error::already_exists(format!("table {} has a column {:?} already", self.table, f.name()))
                    .with_hint("choose another name"))
            }
            None => Ok(()),
        }
    }

    /// Refuses to change columns that stored queries name: they would fail at their next use, or come to mean something else.
    /// A new column counts too, because a query may use its name for a column of its own or give on all columns.
    pub fn check_readers(&self, c: &CatalogSnapshot) -> Result<()> {
        let columns = match &self.change {
            ColumnChange::Add(c) => vec![c.name.clone()],
            ColumnChange::Rename { from, to } => vec![from.clone(), to.clone()],
            ColumnChange::Drop(name) => vec![name.clone()],
        };
        let readers = readers_of_columns(c, &self.table, &columns);
        if readers.is_empty() {
            return Ok(());
        }
        let named = columns.iter().map(|c| format!("{c:?}")).collect::<Vec<_>>().join(" or ");
        let readers = readers.into_iter().collect::<Vec<_>>().join(", ");
        Err(Error::invalid(format!("table {}: {readers} may read column {named}; nothing was changed", self.table)).with_hint(
            "name the columns that they read in their queries, without this one, by CREATE OR REPLACE, or drop them; \
             old versions of a feature view are dropped by DROP FEATURE VIEW view@vN",
        ))
    }
}
