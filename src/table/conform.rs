//! From rows as they come to rows as they are stored: columns in order, declared types, UTC microseconds;
//! rows that cannot be a feature row are counted out.

use std::cell::RefCell;
use std::sync::Arc;

use chrono_tz::Tz;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Date64Type, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use datafusion::arrow::util::display::FormatOptions;
use parking_lot::Mutex;

use super::rejected::Rejected;
use crate::clock::{DAY, Micros, format_micros};
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::model::exact::{Misfit, exact, exact_key, shown};
use crate::model::instant::written;
use crate::model::local_time::{Doubtful, to_instant};
use crate::model::types::quote;
use crate::sql::cursor::format_interval;

/// What was done to the rows so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    pub read: u64,
    /// NULL key, NULL event timestamp, or an event timestamp too far in the future.
    pub rejected: Rejected,
    /// Outside of the range of the run, or not yet true at its instant.
    pub skipped: u64,
    /// Greatest event timestamp accepted.
    pub newest: Option<Micros>,
}

/// Which rows of a statement are stored.
#[derive(Debug, Clone, Copy)]
pub struct Accept {
    pub now: Micros,
    /// Rows later than `now + tolerance` are rejected.
    pub tolerance: Micros,
    /// Only these event timestamps, both ends inclusive; others are skipped.
    pub range: Option<(Micros, Micros)>,
}

/// Brings batches into the visible columns of a feature view.
#[derive(Debug)]
pub struct Conform {
    view: Arc<FeatureView>,
    schema: SchemaRef,
    /// Input column per visible column.
    columns: Vec<usize>,
    zone: Option<Tz>,
    accept: Accept,
    pub counts: Counts,
    doubtful: Arc<Mutex<Doubtful>>,
}

/// The visible columns as an Arrow schema; `strict`: keys and event timestamp are not NULL.
pub fn visible_schema(view: &FeatureView, strict: bool) -> SchemaRef {
    let required = view.keys.len() + 1;
    let field = |(i, c): (usize, crate::model::Column)| Field::new(c.name, c.data_type.into(), !strict || i >= required);
    Arc::new(Schema::new(view.stored_columns().into_iter().enumerate().map(field).collect::<Vec<_>>()))
}

impl Conform {
    /// `input` must have all visible columns by name, in any order.
    pub fn new(view: Arc<FeatureView>, input: &Schema, accept: Accept) -> Result<Self> {
        let columns = view
            .stored_columns()
            .iter()
            .map(|c| {
                input.fields().iter().position(|f| f.name() == &c.name).ok_or_else(|| {
                    let names: Vec<&str> = input.fields().iter().map(|f| f.name().as_str()).collect();
                    Error::invalid(format!("feature view {}: column {:?} is missing", view.name, c.name))
                        .with_hint(format!("the rows have {}", names.join(", ")))
                })
            })
            .collect::<Result<_>>()?;
        let zone = match &view.event_zone {
            Some(z) => Some(z.parse::<Tz>().map_err(|_| Error::invalid(format!("time zone {z:?} is not known")))?),
            None => None,
        };
        let schema = visible_schema(&view, true);
        Ok(Conform { view, schema, columns, zone, accept, counts: Counts::default(), doubtful: Arc::default() })
    }

    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The local event times so far that a switch of the clocks made doubtful.
    pub fn doubtful(&self) -> Arc<Mutex<Doubtful>> {
        Arc::clone(&self.doubtful)
    }

    /// The rows of a batch that are stored, in order.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let keys = self.view.keys.len();
        let in_view = |e: Error| e.context(format!("feature view {}", self.view.name));
        let columns = (0..self.columns.len()).map(|i| self.column(i, batch).map_err(in_view)).collect::<Result<Vec<_>>>()?;
        let event = columns[keys].as_primitive::<TimestampMicrosecondType>().clone();
        let limit = self.accept.now.saturating_add(self.accept.tolerance);
        let (mut rejected, mut skipped) = (0, 0);
        let nulls = columns[..=keys].iter().fold(None, |all, c| NullBuffer::union(all.as_ref(), c.nulls()));
        let mut keep = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            if nulls.as_ref().is_some_and(|n| n.is_null(row)) || event.value(row) > limit {
                rejected += 1;
                self.note(batch, &columns, row, event.value(row) > limit);
                keep.push(false);
                continue;
            }
            let inside = self.accept.range.is_none_or(|(lo, hi)| (lo..=hi).contains(&event.value(row)));
            if inside {
                self.counts.newest = self.counts.newest.max(Some(event.value(row)));
            } else {
                skipped += 1;
            }
            keep.push(inside);
        }
        let keep = BooleanArray::from(keep);
        self.counts.read += batch.num_rows() as u64;
        self.counts.skipped += skipped;
        // rows that go out may have NULL keys, which the strict schema does not allow
        let loose = Arc::new(Schema::new(self.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()));
        let all = RecordBatch::try_new(loose, columns)?;
        let kept = if rejected + skipped == 0 { all } else { filter_record_batch(&all, &keep)? };
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), kept.columns().to_vec())?)
    }

    /// One column in its declared type.
    fn column(&self, i: usize, batch: &RecordBatch) -> Result<ArrayRef> {
        let (field, have) = (self.schema.field(i), batch.column(self.columns[i]));
        let keys = self.view.keys.len();
        let created = self.view.created_timestamp.as_deref() == Some(field.name());
        if i == keys || (i == keys + 1 && created) {
            let mut found = Doubtful::default();
            let made = match from_text(have, self.zone, &mut found)? {
                Some(read) => read.map_err(|m| self.refused(&m, field, batch)),
                None => local_instants(have, self.zone, field.name(), &mut found),
            };
            self.doubtful.lock().add(&found);
            return made;
        }
        let made = if i < keys { exact_key(have, field.data_type()) } else { exact(have, field.data_type()) };
        made.map_err(|m| self.refused(&m, field, batch))
    }

    fn refused(&self, m: &Misfit, field: &Field, batch: &RecordBatch) -> Error {
        let names = self.columns[..=self.view.keys.len()].iter().map(|i| (batch.schema_ref().field(*i).name().as_str(), batch.column(*i)));
        misfit(m, field.name(), &row_text(names, m.row))
    }

    /// Why a row cannot be stored; `None`: it can.
    fn note(&mut self, batch: &RecordBatch, columns: &[ArrayRef], row: usize, late: bool) {
        let required = self.view.keys.len() + 1;
        let null = (0..required).filter(|i| columns[*i].is_null(row)).map(|i| format!("{} is NULL", quote(self.schema.field(i).name())));
        let mut reasons: Vec<String> = null.collect();
        if reasons.is_empty() && late {
            let tolerance = format_interval(self.accept.tolerance).trim_start_matches("INTERVAL ").replace('\'', "");
            reasons.push(format!("{} is more than {tolerance} in the future", quote(&self.view.event_timestamp)));
        }
        let shown = self.columns.iter().take(required + 2).map(|i| (batch.schema_ref().field(*i).name().as_str(), batch.column(*i)));
        self.counts.rejected.add(reasons, || row_text(shown, row));
    }
}

/// What is wrong with a value, where it is, and what to write.
pub fn misfit(m: &Misfit, column: &str, row: &str) -> Error {
    Error::invalid(format!("column {}: {} (row {row})", quote(column), m.message())).with_hint(m.hint())
}

/// Columns of one row: `id = 3, ts = 2026-01-01T00:00:00Z`.
pub fn row_text<'a>(columns: impl Iterator<Item = (&'a str, &'a ArrayRef)>, row: usize) -> String {
    let one = |(name, values): (&str, &ArrayRef)| {
        // instants read alike, whatever type they come as
        let instant = match values.data_type() {
            DataType::Timestamp(..) if values.is_valid(row) => to_instants(&values.slice(row, 1), name).ok(),
            _ => None,
        };
        let value = match instant.as_ref().and_then(|i| i.as_primitive_opt::<TimestampMicrosecondType>()) {
            Some(i) => format_micros(i.value(0)),
            None => shown(values, row),
        };
        format!("{} = {value}", quote(name))
    };
    columns.map(one).collect::<Vec<_>>().join(", ")
}

/// Texts as instants: those without a zone are of `zone`. `None`: the values are no texts.
fn from_text(have: &ArrayRef, zone: Option<Tz>, doubtful: &mut Doubtful) -> Result<Option<Result<ArrayRef, Misfit>>> {
    let texts = match have.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => cast_with_options(have, &DataType::Utf8View, &CastOptions::default())?,
        DataType::Dictionary(_, plain) => return from_text(&cast_with_options(have, plain, &CastOptions::default())?, zone, doubtful),
        _ => return Ok(None),
    };
    let mut micros = Vec::with_capacity(have.len());
    for (row, text) in texts.as_string_view().iter().enumerate() {
        let written = text.and_then(written);
        micros.push(match (text, written, zone) {
            (None, ..) => None,
            (_, Some(w), Some(zone)) if !w.zoned => Some(to_instant(w.micros, &zone, doubtful)? + i64::from(w.finer)),
            (_, Some(w), _) => Some(w.micros + i64::from(w.finer)),
            // a form that only the engine below knows
            (_, None, _) => match exact(&have.slice(row, 1), &crate::model::types::timestamp_type()) {
                Ok(one) => Some(one.as_primitive::<TimestampMicrosecondType>().value(0)),
                Err(mut m) => {
                    m.row = row;
                    return Ok(Some(Err(m)));
                }
            },
        });
    }
    Ok(Some(Ok(Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC")))))
}

/// Tells of local event times that a switch of the clocks made doubtful.
pub fn doubtful_notice(view: &FeatureView, doubtful: &Doubtful, tell: impl FnOnce(String)) {
    let what = format!("feature view {}, event timestamp {:?}", view.name, view.event_timestamp);
    if let Some(told) = view.event_zone.as_ref().and_then(|zone| doubtful.notice(&what, zone)) {
        tell(told);
    }
}

/// Any timestamp or date as UTC microseconds, zone-less values as UTC.
pub fn to_instants(have: &ArrayRef, column: &str) -> Result<ArrayRef> {
    local_instants(have, None, column, &mut Doubtful::default())
}

/// Any timestamp or date as UTC microseconds: nanoseconds are rounded up (a feature is never known
/// earlier than it was), zone-less values are of `zone` (UTC without one).
pub fn local_instants(have: &ArrayRef, zone: Option<Tz>, column: &str, doubtful: &mut Doubtful) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, format_options: FormatOptions::default() };
    let too_far = |e: &dyn std::fmt::Display| {
        Error::invalid(format!("column {column:?}: an instant is out of range ({e})"))
            .with_hint("an instant of microseconds lies between the years -290307 and 294246")
    };
    let micros: TimestampMicrosecondArray = match have.data_type() {
        DataType::Null => TimestampMicrosecondArray::new_null(have.len()),
        DataType::Dictionary(_, plain) => {
            return local_instants(&cast_with_options(have, plain, &strict).map_err(|e| too_far(&e))?, zone, column, doubtful);
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let ns = have.as_primitive::<TimestampNanosecondType>();
            ns.unary::<_, TimestampMicrosecondType>(|v| v.div_euclid(1000) + i64::from(v.rem_euclid(1000) != 0))
        }
        // without a zone on either side the count of ticks is only multiplied
        DataType::Timestamp(_, _) => cast_with_options(have, &DataType::Timestamp(TimeUnit::Microsecond, None), &strict)
            .map_err(|e| too_far(&e))?
            .as_primitive::<TimestampMicrosecondType>()
            .clone(),
        DataType::Date32 => {
            let of_day = |d: i32| Micros::from(d).checked_mul(DAY).ok_or_else(|| too_far(&format!("day {d}")));
            have.as_primitive::<Date32Type>().try_unary::<_, TimestampMicrosecondType, Error>(of_day)?
        }
        DataType::Date64 => {
            let of_day = |ms: i64| (ms.div_euclid(DAY / 1000)).checked_mul(DAY).ok_or_else(|| too_far(&format!("{ms} ms")));
            have.as_primitive::<Date64Type>().try_unary::<_, TimestampMicrosecondType, Error>(of_day)?
        }
        other => {
            return Err(Error::invalid(format!("column {column:?} is {other}, not a timestamp"))
                .with_hint(format!("write CAST({column} AS TIMESTAMP)")));
        }
    };
    let naive = !matches!(have.data_type(), DataType::Timestamp(_, Some(_)));
    let micros = match zone {
        Some(zone) if naive => {
            let found = RefCell::new(doubtful);
            micros.try_unary::<_, TimestampMicrosecondType, Error>(|v| to_instant(v, &zone, &mut found.borrow_mut()))?
        }
        // a cast between zones keeps the instant: the zone is only how it is shown
        _ => micros,
    };
    Ok(Arc::new(micros.with_timezone("UTC")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Date32Array, Date64Array, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray};

    #[test]
    fn nanoseconds_round_up_and_dates_are_midnight() {
        let ns: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1000, 1001, -1, -1000]));
        let out = to_instants(&ns, "t").unwrap();
        assert_eq!(out.as_primitive::<TimestampMicrosecondType>().values(), &[1, 2, 0, -1]);
        let days: ArrayRef = Arc::new(Date32Array::from(vec![1]));
        assert_eq!(to_instants(&days, "t").unwrap().as_primitive::<TimestampMicrosecondType>().value(0), DAY);
    }

    #[test]
    fn what_micros_cannot_hold_is_refused() {
        let days: ArrayRef = Arc::new(Date32Array::from(vec![i32::MAX]));
        let seconds: ArrayRef = Arc::new(TimestampSecondArray::from(vec![i64::MAX / 1_000_000 + 1]));
        let millis: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![i64::MIN / 1_000 - 1]));
        for far in [days, seconds, millis] {
            assert!(to_instants(&far, "t").unwrap_err().message().contains("out of range"), "{far:?}");
        }
        let millis: ArrayRef = Arc::new(Date64Array::from(vec![-1]));
        assert_eq!(to_instants(&millis, "t").unwrap().as_primitive::<TimestampMicrosecondType>().value(0), -DAY);
    }
}
