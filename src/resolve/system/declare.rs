//! How a system table is declared: its name, and of every column the name, the kind and what it says.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use futures::future::BoxFuture;

use super::Scan;
use crate::clock::Micros;
use crate::error::Result;
use crate::model::types::timestamp_type;

/// A system table whose rows are made by code.
#[derive(Debug)]
pub struct Declared {
    pub name: &'static str,
    /// For docs/system-tables.md.
    #[cfg_attr(not(test), expect(dead_code))]
    pub doc: &'static str,
    pub columns: &'static [Column],
    /// Rows with the columns that the scan wants, in the order of the declaration.
    pub read: Read,
}

pub type Read = for<'a> fn(&'a Declared, &'a Scan) -> BoxFuture<'a, Result<RecordBatch>>;

#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    pub data_type: fn() -> DataType,
    /// False where the column is never NULL.
    pub nullable: bool,
    /// For docs/system-tables.md.
    #[cfg_attr(not(test), expect(dead_code))]
    pub doc: &'static str,
}

impl Declared {
    pub fn schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|c| Field::new(c.name, (c.data_type)(), c.nullable));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// Joins the arrays of the columns that are wanted.
pub fn batch(table: &Declared, arrays: Vec<Option<ArrayRef>>, rows: usize) -> Result<RecordBatch> {
    let schema = table.schema();
    let wanted: Vec<usize> = (0..arrays.len()).filter(|i| arrays[*i].is_some()).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let schema = Arc::new(schema.project(&wanted)?);
    Ok(RecordBatch::try_new_with_options(schema, arrays.into_iter().flatten().collect(), &options)?)
}

/// A kind of column: the value of a row, and the array of them.
pub trait Kind {
    type Value;
    fn data_type() -> DataType;
    fn array(values: impl Iterator<Item = Option<Self::Value>>) -> ArrayRef;
}

/// Kinds of columns, by the names that declarations use.
pub mod kinds {
    use super::*;

    #[derive(Debug)]
    pub struct Text;
    #[derive(Debug)]
    pub struct Int;
    /// A whole number of 32 bits.
    #[derive(Debug)]
    pub struct Short;
    #[derive(Debug)]
    pub struct Bool;
    /// Microseconds, UTC.
    #[derive(Debug)]
    pub struct Time;

    impl Kind for Text {
        type Value = String;
        fn data_type() -> DataType {
            DataType::Utf8
        }
        fn array(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
            Arc::new(values.collect::<StringArray>())
        }
    }

    impl Kind for Int {
        type Value = i64;
        fn data_type() -> DataType {
            DataType::Int64
        }
        fn array(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
            Arc::new(values.collect::<Int64Array>())
        }
    }

    impl Kind for Short {
        type Value = i32;
        fn data_type() -> DataType {
            DataType::Int32
        }
        fn array(values: impl Iterator<Item = Option<i32>>) -> ArrayRef {
            Arc::new(values.collect::<Int32Array>())
        }
    }

    impl Kind for Bool {
        type Value = bool;
        fn data_type() -> DataType {
            DataType::Boolean
        }
        fn array(values: impl Iterator<Item = Option<bool>>) -> ArrayRef {
            Arc::new(values.collect::<BooleanArray>())
        }
    }

    impl Kind for Time {
        type Value = Micros;
        fn data_type() -> DataType {
            timestamp_type()
        }
        fn array(values: impl Iterator<Item = Option<Micros>>) -> ArrayRef {
            Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
    }
}

/// Declares the table of a file. Makes `TABLE`, `Row` (what is not set is NULL) and `Wanted` (the columns that a scan
/// reads: what is expensive is computed for those alone). The file adds `async fn rows(&Scan, Wanted) -> Result<Vec<Row>>`.
macro_rules! system_table {
    (
        $(#[doc = $doc:literal])+
        $table:ident {
            $( $(#[doc = $about:literal])+ $column:ident: $kind:ident $(not $null:ident)?, )+
        }
    ) => {
        #[derive(Debug, Default)]
        struct Row {
            $( $(#[doc = $about])+ $column: Option<<$crate::resolve::system::declare::kinds::$kind as $crate::resolve::system::declare::Kind>::Value>, )+
        }

        #[derive(Debug, Clone, Copy)]
        struct Wanted { $( $column: bool, )+ }

        $(#[doc = $doc])+
        pub(super) const TABLE: $crate::resolve::system::declare::Declared = $crate::resolve::system::declare::Declared {
            name: stringify!($table),
            doc: concat!($($doc),+),
            columns: &[$( $crate::resolve::system::declare::Column {
                name: stringify!($column),
                data_type: <$crate::resolve::system::declare::kinds::$kind as $crate::resolve::system::declare::Kind>::data_type,
                nullable: true $(&& stringify!($null).is_empty())?,
                doc: concat!($($about),+),
            }, )+],
            read: |table, scan| Box::pin(async move {
                use $crate::resolve::system::declare::{Kind, batch, kinds};
                let wanted = Wanted { $( $column: scan.wants(stringify!($column)), )+ };
                let mut rows = rows(scan, wanted).await?;
                let arrays = vec![
                    $( wanted.$column.then(|| <kinds::$kind as Kind>::array(rows.iter_mut().map(|r| r.$column.take()))), )+
                ];
                batch(table, arrays, rows.len())
            }),
        };
    };
}

pub(super) use system_table;
