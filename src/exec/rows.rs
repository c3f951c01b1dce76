//! From rows as they come to rows as they are stored: columns in order, declared types, UTC microseconds;
//! rows that cannot be a feature row are counted out.

use std::sync::Arc;

use chrono::{NaiveDateTime, TimeZone};
use chrono_tz::Tz;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType};
use datafusion::arrow::util::display::FormatOptions;

use super::rejected::Rejected;
use crate::clock::{DAY, Micros, format_micros};
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::model::exact::{Misfit, exact, exact_key, shown};
use crate::model::instant::written;
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
}

/// The visible columns as an Arrow schema; `strict`: keys and event timestamp are not NULL.
pub fn visible_schema(view: &FeatureView, strict: bool) -> SchemaRef {
    let required = view.keys.len() + 1;
    let field = |(i, c): (usize, crate::model::Column)| Field::new(c.name, c.data_type.into(), !strict || i >= required);
    Arc::new(Schema::new(view.visible_columns().into_iter().enumerate().map(field).collect::<Vec<_>>()))
}

impl Conform {
    /// `input` must have all visible columns by name, in any order.
    pub fn new(view: Arc<FeatureView>, input: &Schema, accept: Accept) -> Result<Self> {
        let columns = view
            .visible_columns()
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
        Ok(Conform { view, schema, columns, zone, accept, counts: Counts::default() })
    }

    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The rows of a batch that are stored, in order.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let keys = self.view.keys.len();
        let in_view = |e: Error| e.context(format!("feature view {}", self.view.name));
        let columns = (0..self.columns.len()).map(|i| self.column(i, batch).map_err(in_view)).collect::<Result<Vec<_>>>()?;
        let event = columns[keys].as_primitive::<TimestampMicrosecondType>().clone();
        let limit = self.accept.now.saturating_add(self.accept.tolerance);
        let (mut rejected, mut skipped) = (0, 0);
        let mut keep = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            if columns[..=keys].iter().any(|c| c.is_null(row)) || event.value(row) > limit {
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
            return match from_text(have, self.zone)? {
                Some(read) => read.map_err(|m| self.refused(&m, field, batch)),
                None => to_instants(have, self.zone, field.name()),
            };
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
            DataType::Timestamp(..) if values.is_valid(row) => to_instants(&values.slice(row, 1), None, name).ok(),
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
fn from_text(have: &ArrayRef, zone: Option<Tz>) -> Result<Option<Result<ArrayRef, Misfit>>> {
    let texts = match have.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => cast_with_options(have, &DataType::Utf8View, &CastOptions::default())?,
        DataType::Dictionary(_, plain) => return from_text(&cast_with_options(have, plain, &CastOptions::default())?, zone),
        _ => return Ok(None),
    };
    let mut micros = Vec::with_capacity(have.len());
    for (row, text) in texts.as_string_view().iter().enumerate() {
        let written = text.and_then(written);
        micros.push(match (text, written, zone) {
            (None, ..) => None,
            (_, Some(w), Some(zone)) if !w.zoned => Some(from_local(w.micros, zone)? + i64::from(w.finer)),
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

/// Any timestamp or date as UTC microseconds: nanoseconds are rounded up (a feature is never known
/// earlier than it was), zone-less values are of `zone` (UTC without one).
pub fn to_instants(have: &ArrayRef, zone: Option<Tz>, column: &str) -> Result<ArrayRef> {
    let target = crate::model::types::timestamp_type();
    let strict = CastOptions { safe: false, format_options: FormatOptions::default() };
    let too_far = |e| Error::from(e).context(format!("column {column:?}: an instant is out of range"));
    let micros: TimestampMicrosecondArray = match have.data_type() {
        DataType::Null => TimestampMicrosecondArray::new_null(have.len()),
        DataType::Dictionary(_, plain) => return to_instants(&cast_with_options(have, plain, &strict).map_err(too_far)?, zone, column),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let ns = have.as_primitive::<TimestampNanosecondType>();
            ns.unary::<_, TimestampMicrosecondType>(|v| v.div_euclid(1000) + i64::from(v.rem_euclid(1000) != 0))
        }
        DataType::Timestamp(_, _) => cast_with_options(have, &DataType::Timestamp(TimeUnit::Microsecond, None), &strict)
            .or_else(|_| cast_with_options(have, &target, &strict))
            .map_err(too_far)?
            .as_primitive::<TimestampMicrosecondType>()
            .clone(),
        DataType::Date32 | DataType::Date64 => {
            let days = cast_with_options(have, &DataType::Date32, &strict).map_err(too_far)?;
            days.as_primitive::<datafusion::arrow::datatypes::Date32Type>().unary(|d| d as Micros * DAY)
        }
        other => {
            return Err(Error::invalid(format!("column {column:?} is {other}, not a timestamp"))
                .with_hint(format!("write CAST({column} AS TIMESTAMP)")));
        }
    };
    let naive = !matches!(have.data_type(), DataType::Timestamp(_, Some(_)));
    let micros = match zone {
        Some(zone) if naive => micros.try_unary::<_, TimestampMicrosecondType, Error>(|v| from_local(v, zone))?,
        // a cast between zones keeps the instant: the zone is only how it is shown
        _ => micros,
    };
    Ok(Arc::new(micros.with_timezone("UTC")))
}

/// The instant of a local time. Where clocks were set back the later instant is meant, so that nothing is
/// known too early; in the gap of clocks set forward, the instant that the old offset gives.
fn from_local(local: Micros, zone: Tz) -> Result<Micros> {
    let out = || Error::invalid(format!("local time {} is out of range", format_micros(local)));
    let t: NaiveDateTime = chrono::DateTime::from_timestamp_micros(local).ok_or_else(out)?.naive_utc();
    Ok(match zone.from_local_datetime(&t) {
        chrono::LocalResult::Single(t) => t.timestamp_micros(),
        chrono::LocalResult::Ambiguous(_, later) => later.timestamp_micros(),
        chrono::LocalResult::None => {
            let before = zone.from_local_datetime(&(t - chrono::TimeDelta::hours(3))).latest().ok_or_else(out)?;
            before.timestamp_micros() + 3 * crate::clock::HOUR
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Date32Array, TimestampNanosecondArray};

    #[test]
    fn nanoseconds_round_up_and_dates_are_midnight() {
        let ns: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1000, 1001, -1, -1000]));
        let out = to_instants(&ns, None, "t").unwrap();
        assert_eq!(out.as_primitive::<TimestampMicrosecondType>().values(), &[1, 2, 0, -1]);
        let days: ArrayRef = Arc::new(Date32Array::from(vec![1]));
        assert_eq!(to_instants(&days, None, "t").unwrap().as_primitive::<TimestampMicrosecondType>().value(0), DAY);
    }

    #[test]
    fn local_times_of_both_switches() {
        let zone: Tz = "America/New_York".parse().unwrap();
        let local = |s: &str| crate::sql::instant::parse_instant(s).unwrap().micros;
        let show = |s: &str| format_micros(from_local(local(s), zone).unwrap());
        assert_eq!(show("2013-01-01 05:00"), "2013-01-01T10:00:00Z");
        assert_eq!(show("2013-03-10 02:30"), "2013-03-10T07:30:00Z");
        assert_eq!(show("2013-11-03 01:30"), "2013-11-03T06:30:00Z");
    }
}
