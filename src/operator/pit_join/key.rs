//! Which labels have the same key: an index from key values to dense group numbers.

use std::hash::BuildHasher;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::{DataFusionError, Result};
use hashbrown::{DefaultHashBuilder, HashTable};

/// A row that belongs to no group: NULL in its key, or a key that no label has.
pub const NO_GROUP: u32 = u32::MAX;

/// Maps keys to groups 0, 1, 2, … in the order in which they are first seen.
#[derive(Debug)]
pub struct KeyIndex {
    types: Vec<DataType>,
    kind: Kind,
    groups: u32,
    hasher: DefaultHashBuilder,
}

#[derive(Debug)]
enum Kind {
    /// No key columns: all rows are one group.
    Everything,
    /// One integer column.
    Integer(HashTable<(i64, u32)>),
    /// Any columns; the table holds group numbers, `seen` their encoded keys.
    Encoded { converter: RowConverter, seen: Rows, table: HashTable<u32> },
}

impl KeyIndex {
    /// An index for key columns of these types, the same for labels and features.
    pub fn new(types: &[DataType]) -> Result<Self> {
        let kind = match types {
            [] => Kind::Everything,
            [t] if t.is_signed_integer() => Kind::Integer(HashTable::new()),
            _ => {
                let converter = RowConverter::new(types.iter().cloned().map(SortField::new).collect())?;
                let seen = converter.empty_rows(0, 0);
                Kind::Encoded { converter, seen, table: HashTable::new() }
            }
        };
        Ok(KeyIndex { types: types.to_vec(), kind, groups: 0, hasher: DefaultHashBuilder::default() })
    }

    pub fn groups(&self) -> usize {
        self.groups as usize
    }

    /// Least and greatest value of every key column, as arrays of one; `None` where that is not known.
    pub fn bounds(&self) -> Result<Vec<Option<(ArrayRef, ArrayRef)>>> {
        let Kind::Integer(table) = &self.kind else { return Ok(vec![]) };
        let range = table.iter().fold(None, |b: Option<(i64, i64)>, (k, _)| Some(b.map_or((*k, *k), |b| (b.0.min(*k), b.1.max(*k)))));
        let one = |v: i64| Ok::<_, DataFusionError>(cast(&Int64Array::from(vec![v]), &self.types[0])?);
        Ok(vec![range.map(|(lo, hi)| Ok::<_, DataFusionError>((one(lo)?, one(hi)?))).transpose()?])
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        match &self.kind {
            Kind::Everything => 0,
            Kind::Integer(t) => t.allocation_size(),
            Kind::Encoded { converter, seen, table } => converter.size() + seen.size() + table.allocation_size(),
        }
    }

    /// The groups of `rows` label rows; new keys get new groups.
    pub fn insert(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let nulls = nulls(columns);
        let valid = |row: usize| nulls.as_ref().is_none_or(|n| n.is_valid(row));
        let hasher = &self.hasher;
        let mut out = vec![NO_GROUP; rows];
        match &mut self.kind {
            Kind::Everything => {
                self.groups = 1;
                out.fill(0);
            }
            Kind::Integer(table) => {
                let keys = integers(&columns[0])?;
                let keys = keys.as_primitive::<Int64Type>().values();
                for row in (0..rows).filter(|r| valid(*r)) {
                    let key = keys[row];
                    let entry = table.entry(hasher.hash_one(key), |e| e.0 == key, |e| hasher.hash_one(e.0));
                    out[row] = entry.or_insert_with(|| next(&mut self.groups, key)).get().1;
                }
            }
            Kind::Encoded { converter, seen, table } => {
                let keys = converter.convert_columns(columns)?;
                for row in (0..rows).filter(|r| valid(*r)) {
                    let key = keys.row(row);
                    let hash = hasher.hash_one(key.data());
                    out[row] = match table.find(hash, |g| seen.row(*g as usize) == key) {
                        Some(g) => *g,
                        None => {
                            let (_, group) = next(&mut self.groups, 0);
                            seen.push(key);
                            table.insert_unique(hash, group, |g| hasher.hash_one(seen.row(*g as usize).data()));
                            group
                        }
                    };
                }
            }
        }
        Ok(out)
    }

    /// The groups of feature rows.
    pub fn find(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let nulls = nulls(columns);
        let valid = |row: usize| nulls.as_ref().is_none_or(|n| n.is_valid(row));
        let mut out = vec![NO_GROUP; rows];
        match &self.kind {
            Kind::Everything if self.groups == 0 => {}
            Kind::Everything => out.fill(0),
            Kind::Integer(table) => {
                let keys = integers(&columns[0])?;
                let keys = keys.as_primitive::<Int64Type>().values();
                for row in (0..rows).filter(|r| valid(*r)) {
                    let key = keys[row];
                    out[row] = table.find(self.hasher.hash_one(key), |e| e.0 == key).map_or(NO_GROUP, |e| e.1);
                }
            }
            Kind::Encoded { converter, seen, table } => {
                let keys = converter.convert_columns(columns)?;
                for row in (0..rows).filter(|r| valid(*r)) {
                    let key = keys.row(row);
                    let found = table.find(self.hasher.hash_one(key.data()), |g| seen.row(*g as usize) == key);
                    out[row] = found.copied().unwrap_or(NO_GROUP);
                }
            }
        }
        Ok(out)
    }
}

/// Labels are counted before they are indexed, so that group numbers cannot overflow.
fn next<K>(groups: &mut u32, key: K) -> (K, u32) {
    let group = *groups;
    *groups += 1;
    (key, group)
}

fn integers(column: &ArrayRef) -> Result<ArrayRef> {
    Ok(if *column.data_type() == DataType::Int64 { ArrayRef::clone(column) } else { cast(column, &DataType::Int64)? })
}

/// Rows in which any part of the key is NULL; a dictionary may hold its NULLs in its values.
fn nulls(columns: &[ArrayRef]) -> Option<NullBuffer> {
    columns.iter().fold(None, |all, c| NullBuffer::union(all.as_ref(), c.logical_nulls().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::*;
    use std::sync::Arc;

    #[test]
    fn composite_keys_do_not_run_together() {
        let text = |v: Vec<Option<&str>>| Arc::new(StringArray::from(v)) as ArrayRef;
        let mut index = KeyIndex::new(&[DataType::Utf8, DataType::Utf8]).unwrap();
        let labels = [text(vec![Some("1"), Some("11"), Some("1"), None]), text(vec![Some("11"), Some("1"), Some("11"), Some("1")])];
        assert_eq!(index.insert(&labels, 4).unwrap(), [0, 1, 0, NO_GROUP]);
        let rows = [text(vec![Some("11"), Some("111"), Some("1")]), text(vec![Some("1"), Some(""), None])];
        assert_eq!(index.find(&rows, 3).unwrap(), [1, NO_GROUP, NO_GROUP]);
    }

    #[test]
    fn a_null_inside_a_dictionary_is_null() {
        let values: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let d: ArrayRef = Arc::new(DictionaryArray::<datafusion::arrow::datatypes::Int32Type>::new(Int32Array::from(vec![0, 1]), values));
        let mut index = KeyIndex::new(&[d.data_type().clone()]).unwrap();
        assert_eq!(index.insert(&[d], 2).unwrap(), [0, NO_GROUP]);
    }

    #[test]
    fn integers_of_every_width() {
        let mut index = KeyIndex::new(&[DataType::Int8]).unwrap();
        assert_eq!(index.insert(&[Arc::new(Int8Array::from(vec![Some(-1), Some(3), None, Some(-1)]))], 4).unwrap(), [0, 1, NO_GROUP, 0]);
        assert_eq!(index.find(&[Arc::new(Int8Array::from(vec![3, 4]))], 2).unwrap(), [1, NO_GROUP]);
    }
}
