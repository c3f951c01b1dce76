//! Results on standard output, batch by batch: nothing is collected.

mod arrow;
mod csv;
mod json;
mod table;

use std::io::{self, Write};
use std::sync::Arc;

use clap::ValueEnum;
use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use remige::error::{Error, Result};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Ruled table with the number of rows
    Table,
    /// Header and RFC 4180 lines; NULL is an empty field, an empty text is ""
    Csv,
    /// One JSON object per row and line
    Json,
    /// Arrow IPC stream, one per result
    Arrow,
}

/// Why a result could not be written.
#[derive(Debug)]
pub enum Stop {
    Statement(Error),
    /// Standard output is gone or full.
    Output(io::Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Stop::Statement(e)
    }
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        Stop::Output(e)
    }
}

/// Writes one result.
trait Printer {
    fn batch(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), Stop>;
    fn end(&mut self, rows: u64, cut: bool, out: &mut dyn Write) -> Result<(), Stop>;
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Printed {
    pub rows: u64,
    /// There were more rows than `limit`.
    pub cut: bool,
}

/// Writes `rows` to `out` as they come, at most `limit` of them.
pub async fn print(mut rows: SendableRecordBatchStream, format: Format, limit: Option<u64>, out: &mut dyn Write) -> Result<Printed, Stop> {
    let schema = rows.schema();
    let mut printer: Box<dyn Printer> = match format {
        Format::Table => Box::new(table::TablePrinter::new(&schema)),
        Format::Csv => Box::new(csv::CsvPrinter::new(&schema)),
        Format::Json => Box::new(json::JsonPrinter::new(&schema)?),
        Format::Arrow => Box::new(arrow::ArrowPrinter::new(&schema)?),
    };
    let mut printed = Printed { rows: 0, cut: false };
    while let Some(batch) = rows.next().await {
        let mut batch = batch.map_err(Error::from)?;
        let left = limit.map_or(u64::MAX, |l| l - printed.rows);
        if batch.num_rows() as u64 > left {
            batch = batch.slice(0, left as usize);
            printed.cut = true;
        }
        if batch.num_rows() > 0 {
            printer.batch(&batch, out)?;
            printed.rows += batch.num_rows() as u64;
        }
        if printed.cut {
            break;
        }
    }
    printer.end(printed.rows, printed.cut, out)?;
    out.flush()?;
    Ok(printed)
}

/// `batch` with every timestamp in UTC. With `zoneless` also those without a zone are read as UTC.
fn in_utc(batch: &RecordBatch, zoneless: bool) -> Result<Vec<ArrayRef>> {
    let columns = batch.columns().iter().map(|column| {
        let wanted = utc_type(column.data_type(), zoneless);
        if wanted == *column.data_type() { Ok(Arc::clone(column)) } else { Ok(cast(column, &wanted)?) }
    });
    columns.collect()
}

fn utc_schema(schema: &SchemaRef, zoneless: bool) -> SchemaRef {
    let field = |f: &Arc<Field>| f.as_ref().clone().with_data_type(utc_type(f.data_type(), zoneless)).with_nullable(true);
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

fn utc_type(data_type: &DataType, zoneless: bool) -> DataType {
    let inner = |f: &Arc<Field>| Arc::new(f.as_ref().clone().with_data_type(utc_type(f.data_type(), zoneless)));
    match data_type {
        DataType::Timestamp(unit, zone) if zoneless || zone.is_some() => DataType::Timestamp(*unit, Some("+00:00".into())),
        DataType::List(f) => DataType::List(inner(f)),
        DataType::LargeList(f) => DataType::LargeList(inner(f)),
        DataType::FixedSizeList(f, n) => DataType::FixedSizeList(inner(f), *n),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        // an object of JSON has texts as keys
        DataType::Map(entries, sorted) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => {
                let key = if pair[0].data_type().is_string() { DataType::clone(pair[0].data_type()) } else { DataType::Utf8 };
                let key = Arc::new(pair[0].as_ref().clone().with_data_type(key));
                let pair = DataType::Struct(vec![key, inner(&pair[1])].into());
                DataType::Map(Arc::new(entries.as_ref().clone().with_data_type(pair)), *sorted)
            }
            _ => data_type.clone(),
        },
        DataType::Dictionary(_, values) if values.is_temporal() => utc_type(values, zoneless),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
