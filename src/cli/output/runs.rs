//! What REFRESH and MATERIALIZE did, in a line per run: `26,097 rows written, 3 rejected, 1.4 s`. Programs that ask for
//! CSV, JSON or Arrow get the rows themselves, as `system.runs` has them.

use std::io::Write;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use remige::clock::SECOND;
use remige::error::{Error, Result};

use super::Stop;

/// Columns by which the answer of a run is known.
const COLUMNS: [&str; 6] = ["kind", "object", "started_at", "finished_at", "status", "rows_written"];

/// Whether these are runs, and not the rows of a query.
pub fn are_runs(rows: &SendableRecordBatchStream, verb: &str) -> bool {
    let schema = rows.schema();
    matches!(verb, "REFRESH" | "MATERIALIZE") && COLUMNS.iter().all(|c| schema.index_of(c).is_ok())
}

/// Writes a line per run.
pub async fn print(mut rows: SendableRecordBatchStream, out: &mut dyn Write) -> Result<(), Stop> {
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(Error::from)?;
        for row in 0..batch.num_rows() {
            writeln!(out, "{}", line(&batch, row)?)?;
        }
    }
    out.flush()?;
    Ok(())
}

fn line(batch: &RecordBatch, row: usize) -> Result<String> {
    let seconds = match (number(batch, "started_at", row)?, number(batch, "finished_at", row)?) {
        (Some(from), Some(to)) => format!(", {:.1} s", (to - from) as f64 / SECOND as f64),
        _ => String::new(),
    };
    let object = text(batch, "object", row)?;
    let version = number(batch, "version", row)?.map_or(String::new(), |v| format!("@v{v}"));
    let verb = text(batch, "kind", row)?.to_uppercase();
    let mut line = format!("{verb} {object}{version}: {} rows written", grouped(number(batch, "rows_written", row)?));
    for (column, what) in [("rows_skipped", "skipped"), ("rows_rejected", "rejected")] {
        if let Some(n) = number(batch, column, row)?.filter(|n| *n > 0) {
            line += &format!(", {} {what}", grouped(Some(n)));
        }
    }
    line += &seconds;
    let status = text(batch, "status", row)?;
    if status != "succeeded" {
        line += &format!(" ({status}: {})", text(batch, "error", row)?);
    }
    Ok(line)
}

fn text(batch: &RecordBatch, column: &str, row: usize) -> Result<String> {
    let Some(column) = batch.column_by_name(column) else { return Ok(String::new()) };
    let column = cast(column, &DataType::Utf8)?;
    let values = column.as_string::<i32>();
    Ok(if values.is_null(row) { String::new() } else { values.value(row).to_string() })
}

fn number(batch: &RecordBatch, column: &str, row: usize) -> Result<Option<i64>> {
    let Some(column) = batch.column_by_name(column) else { return Ok(None) };
    let column = cast(column, &DataType::Int64)?;
    let values = column.as_primitive::<Int64Type>();
    Ok(values.is_valid(row).then(|| values.value(row)))
}

/// `26,097`
fn grouped(n: Option<i64>) -> String {
    let digits = n.unwrap_or_default().to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        for (n, want) in [(0, "0"), (999, "999"), (1000, "1,000"), (26097, "26,097"), (1234567, "1,234,567")] {
            assert_eq!(grouped(Some(n)), want);
        }
    }
}
