//! Keys drawn at random, and made up. The same seed draws and makes up the same.

use std::collections::BinaryHeap;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray, new_null_array,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};

use crate::clock::new_id;
use crate::error::{Error, Result};
use crate::model::Column;

/// Rough memory of one key held, its bytes aside.
const ENTRY: usize = 64;

/// Values made up at random; the same seed makes up the same.
pub struct Dice(fastrand::Rng);

impl Dice {
    pub fn new(seed: i64) -> Self {
        Dice(fastrand::Rng::with_seed(seed as u64))
    }

    /// `n` values of a type, every fourth of them NULL where `nulls`. Types that have no obvious random
    /// values give NULLs only.
    pub fn values(&mut self, of: &DataType, n: usize, nulls: bool) -> Result<ArrayRef> {
        use DataType::*;
        let mut each = |width: u32| -> Vec<Option<i64>> {
            let draw = |i: usize, v: u64| (!nulls || i % 4 != 3).then(|| (v as i64) >> (64 - width));
            (0..n).map(|i| draw(i, self.0.u64(..))).collect()
        };
        let whole = |v: Vec<Option<i64>>| Int64Array::from(v);
        Ok(match of {
            Int8 => cast(&whole(each(8)), of)?,
            Int16 => cast(&whole(each(16)), of)?,
            Int32 => cast(&whole(each(32)), of)?,
            Int64 => Arc::new(whole(each(64))),
            Boolean => Arc::new(each(64).into_iter().map(|v| v.map(|v| v < 0)).collect::<BooleanArray>()),
            // within three centuries around 1970
            Date32 => cast(&cast(&whole(each(17)), &Int32)?, of)?,
            Timestamp(TimeUnit::Microsecond, zone) => {
                Arc::new(each(53).into_iter().collect::<TimestampMicrosecondArray>().with_timezone_opt(zone.clone()))
            }
            Float32 | Float64 => {
                let numbers = each(20).into_iter().map(|v| v.map(|v| v as f64 / 16.0));
                cast(&numbers.collect::<Float64Array>(), of)?
            }
            Decimal128(precision, scale) => {
                let limit = 10i64.pow((*precision).min(18).into());
                let numbers = each(64).into_iter().map(|v| v.map(|v| i128::from(v % limit)));
                Arc::new(numbers.collect::<Decimal128Array>().with_precision_and_scale(*precision, *scale)?)
            }
            Utf8 => Arc::new(each(64).into_iter().map(|v| v.map(|v| format!("verify-{v:016x}"))).collect::<StringArray>()),
            Binary => Arc::new(each(64).into_iter().map(|v| v.map(|v| v.to_be_bytes())).collect::<BinaryArray>()),
            other => new_null_array(other, n),
        })
    }
}

/// Any seed.
pub fn seed() -> i64 {
    let hash = blake3::hash(new_id().as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    // positive, so that it reads well and can be written after SEED
    i64::from_be_bytes(first) & i64::MAX
}

/// Draws keys from a stream: those with the least hashes, whatever the order they come in.
pub struct Draw {
    keys: usize,
    seed: i64,
    rows: RowConverter,
    least: BinaryHeap<(u64, OwnedRow)>,
    memory: MemoryReservation,
}

impl Draw {
    pub fn new(columns: &[Column], keys: usize, seed: i64, pool: &Arc<dyn MemoryPool>) -> Result<Self> {
        let fields = columns.iter().map(|c| SortField::new(c.data_type.arrow().clone())).collect();
        let memory = MemoryConsumer::new("VERIFY: drawn keys").register(pool);
        Ok(Draw { keys, seed, rows: RowConverter::new(fields)?, least: BinaryHeap::new(), memory })
    }

    /// Offers keys, none of them twice.
    pub fn add(&mut self, keys: &[ArrayRef]) -> Result<()> {
        for row in &self.rows.convert_columns(keys)? {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&self.seed.to_be_bytes()).update(row.as_ref());
            let mut first = [0; 8];
            hasher.finalize_xof().fill(&mut first);
            let hash = u64::from_be_bytes(first);
            if self.least.len() >= self.keys {
                if self.least.peek().is_none_or(|(greatest, _)| *greatest <= hash) {
                    continue;
                }
                if let Some((_, gone)) = self.least.pop() {
                    self.memory.shrink((gone.as_ref().len() + ENTRY).min(self.memory.size()));
                }
            }
            self.memory.try_grow(row.as_ref().len() + ENTRY).map_err(|e| Error::from(e).with_hint("draw fewer keys: SAMPLE 1000"))?;
            self.least.push((hash, row.owned()));
        }
        Ok(())
    }

    /// The columns of the keys drawn.
    pub fn finish(self) -> Result<Vec<ArrayRef>> {
        let drawn = self.least.into_sorted_vec();
        Ok(self.rows.convert_rows(drawn.iter().map(|(_, r)| r.row()))?)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Array;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, UnboundedMemoryPool};

    use super::*;

    fn key(data_type: &str) -> Column {
        Column { name: "k".into(), data_type: data_type.parse().unwrap() }
    }

    fn draw(from: &[i64], n: usize, seed: i64) -> Vec<i64> {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let mut draw = Draw::new(&[key("BIGINT")], n, seed, &pool).unwrap();
        for part in from.chunks(7) {
            draw.add(&[Arc::new(Int64Array::from(part.to_vec()))]).unwrap();
        }
        let keys = draw.finish().unwrap().remove(0);
        keys.as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()
    }

    #[test]
    fn a_seed_draws_the_same_keys_in_whatever_order_they_come() {
        let keys: Vec<i64> = (0..100).collect();
        let backwards: Vec<i64> = (0..100).rev().collect();
        let (a, b, other) = (draw(&keys, 10, 7), draw(&backwards, 10, 7), draw(&keys, 10, 8));
        assert_eq!((a.len(), &a), (10, &b));
        assert_ne!(a, other);
        assert!(a.iter().all(|k| keys.contains(k)) && a.iter().collect::<std::collections::BTreeSet<_>>().len() == 10);
        assert_eq!(draw(&keys, 1_000, 7).len(), 100, "there are no more");
        assert!(draw(&[], 10, 7).is_empty());
    }

    #[test]
    fn more_keys_than_memory_holds_are_refused() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1_000));
        let mut draw = Draw::new(&[key("BIGINT")], 1_000, 1, &pool).unwrap();
        let e = draw.add(&[Arc::new((0..1_000).collect::<Int64Array>())]).unwrap_err();
        assert!(e.hint().unwrap().contains("SAMPLE"), "{e}");
    }

    #[test]
    fn values_of_every_type_can_be_made_up() {
        let types =
            ["TINYINT", "SMALLINT", "INT", "BIGINT", "BOOLEAN", "DATE", "TIMESTAMP", "DECIMAL(4, 2)", "DECIMAL(38, 0)", "VARCHAR", "BYTEA"];
        for t in types.into_iter().chain(["FLOAT", "DOUBLE"]) {
            let column = key(t);
            let of = column.data_type.arrow();
            let (whole, holes) = (Dice::new(3).values(of, 16, false).unwrap(), Dice::new(3).values(of, 16, true).unwrap());
            assert_eq!((whole.data_type(), whole.len(), whole.null_count()), (of, 16, 0), "{t}");
            assert_eq!((holes.data_type(), holes.null_count()), (of, 4), "{t}");
        }
        let list = key("BIGINT[]");
        assert_eq!(Dice::new(3).values(list.data_type.arrow(), 4, false).unwrap().null_count(), 4);
        assert_ne!(seed(), seed());
        assert!(seed() >= 0);
    }
}
