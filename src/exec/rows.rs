//! From rows as they come to rows as they are stored: columns in order, declared types, UTC microseconds;
//! rows that cannot be a feature row are counted out.

use std::cell::RefCell;
use std::sync::Arc;

use chrono_tz::Tz;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Date64Type, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use parking_lot::Mutex;

use crate::clock::{DAY, Micros};
use crate::error::{Error, Result};
use crate::model::FeatureView;
use crate::model::local_time::{Doubtful, to_instant};

/// What was done to the rows so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub read: u64,
    /// NULL key, NULL event timestamp, or an event timestamp too far in the future.
    pub rejected: u64,
    /// Outside of the range of the run, or not yet true at its instant.
    pub skipped: u64,
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
    /// Greatest event timestamp accepted.
    pub newest: Option<Micros>,
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
        Ok(Conform { view, schema, columns, zone, accept, counts: Counts::default(), doubtful: Arc::default(), newest: None })
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
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for (i, from) in self.columns.iter().enumerate() {
            let field = self.schema.field(i);
            let have = batch.column(*from);
            let created = self.view.created_timestamp.as_deref() == Some(field.name());
            let made = if i == keys || (i == keys + 1 && created) {
                let mut found = Doubtful::default();
                let made = local_instants(have, self.zone, field.name(), &mut found);
                self.doubtful.lock().add(&found);
                made
            } else {
                self.cast(have, field, &columns)
            };
            columns.push(made.map_err(|e| e.context(format!("feature view {}", self.view.name)))?);
        }
        let event = columns[keys].as_primitive::<TimestampMicrosecondType>();
        let limit = self.accept.now.saturating_add(self.accept.tolerance);
        let (mut rejected, mut skipped) = (0, 0);
        let keep: BooleanArray = (0..batch.num_rows())
            .map(|row| {
                if columns[..=keys].iter().any(|c| c.is_null(row)) || event.value(row) > limit {
                    rejected += 1;
                    return Some(false);
                }
                let inside = self.accept.range.is_none_or(|(lo, hi)| (lo..=hi).contains(&event.value(row)));
                if inside {
                    self.newest = self.newest.max(Some(event.value(row)));
                } else {
                    skipped += 1;
                }
                Some(inside)
            })
            .collect();
        self.counts.read += batch.num_rows() as u64;
        self.counts.rejected += rejected;
        self.counts.skipped += skipped;
        // rows that go out may have NULL keys, which the strict schema does not allow
        let loose = Arc::new(Schema::new(self.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()));
        let all = RecordBatch::try_new(loose, columns)?;
        let kept = if rejected + skipped == 0 { all } else { filter_record_batch(&all, &keep)? };
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), kept.columns().to_vec())?)
    }

    fn cast(&self, have: &ArrayRef, field: &Field, keys: &[ArrayRef]) -> Result<ArrayRef> {
        let want = field.data_type();
        if have.data_type() == want {
            return Ok(Arc::clone(have));
        }
        let have = match have.data_type() {
            DataType::Timestamp(..) if matches!(want, DataType::Timestamp(..)) => return to_instants(have, field.name()),
            _ => have,
        };
        let strict = CastOptions { safe: false, format_options: FormatOptions::default() };
        cast_with_options(have, want, &strict).map_err(|e| {
            let lenient = CastOptions { safe: true, format_options: FormatOptions::default() };
            let row =
                cast_with_options(have, want, &lenient).ok().and_then(|c| (0..have.len()).find(|i| c.is_null(*i) && have.is_valid(*i)));
            match row {
                Some(row) => {
                    let shown = |a: &ArrayRef| {
                        ArrayFormatter::try_new(a, &FormatOptions::default()).map(|f| f.value(row).to_string()).unwrap_or_default()
                    };
                    let key: Vec<String> = keys
                        .iter()
                        .take(self.view.keys.len())
                        .zip(&self.view.keys)
                        .map(|(a, k)| format!("{} = {}", k.name, shown(a)))
                        .collect();
                    Error::invalid(format!(
                        "column {:?}: value {} does not fit {} (row with {})",
                        field.name(),
                        shown(have),
                        crate::model::types::ColumnType::stored(want).map(|t| t.to_string()).unwrap_or_else(|_| want.to_string()),
                        key.join(", ")
                    ))
                }
                None => Error::from(e).context(format!("column {:?}", field.name())),
            }
        })
    }
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
