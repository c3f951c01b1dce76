//! Which labels have the same key: an index from key values to dense group numbers.

use std::hash::BuildHasher;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::{DataFusionError, Result};
use hashbrown::{DefaultHashBuilder, HashTable};

use super::byte_keys::ByteKeys;
use super::group::NO_GROUP;
use super::integer_keys::IntegerKeys;

/// A list of keys is made of no more.
const MOST_LISTED_BYTES: usize = 16 << 20;

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
    /// One column whose values are 64-bit integers.
    Integer(IntegerKeys),
    /// One column of text or bytes.
    Bytes(ByteKeys),
    /// One column of any other type.
    Encoded { converter: RowConverter, seen: Rows, table: HashTable<u32> },
    /// Several columns, each with an index of its own. Table `i` maps the group of the columns up to `i`, with the
    /// group in column `i + 1`, to the group of the columns up to `i + 1`.
    Several { columns: Vec<KeyIndex>, tables: Vec<HashTable<(u64, u32)>> },
}

/// Values of one key column, ascending.
#[derive(Debug)]
pub struct KeyValues {
    pub values: ArrayRef,
    /// Else only the least and the greatest.
    pub all: bool,
}

impl KeyIndex {
    /// An index for key columns of these types, the same for labels and features.
    pub fn new(types: &[DataType]) -> Result<Self> {
        let kind = match types {
            [] => Kind::Everything,
            [t] if is_integer(t) => Kind::Integer(IntegerKeys::default()),
            [t] if is_bytes(t) => Kind::Bytes(ByteKeys::default()),
            [t] => {
                let converter = RowConverter::new(vec![SortField::new(t.clone())])?;
                let seen = converter.empty_rows(0, 0);
                Kind::Encoded { converter, seen, table: HashTable::new() }
            }
            types => Kind::Several {
                columns: types.iter().map(|t| KeyIndex::new(std::slice::from_ref(t))).collect::<Result<_>>()?,
                tables: types.iter().skip(1).map(|_| HashTable::new()).collect(),
            },
        };
        Ok(KeyIndex { types: types.to_vec(), kind, groups: 0, hasher: DefaultHashBuilder::default() })
    }

    pub fn groups(&self) -> usize {
        self.groups as usize
    }

    /// The values of every key column: all of them where they are at most `most`, else the least and the greatest.
    /// `None` where there are none, or where their order is not that of other systems.
    pub fn values(&self, most: usize) -> Result<Vec<Option<KeyValues>>> {
        let all = self.groups() <= most;
        let (values, all): (ArrayRef, bool) = match &self.kind {
            Kind::Everything => return Ok(vec![]),
            Kind::Several { columns, .. } => return columns.iter().map(|c| Ok(c.values(most)?.pop().flatten())).collect(),
            _ if self.groups == 0 => return Ok(vec![None]),
            Kind::Integer(keys) => (Arc::new(Int64Array::from(in_order(keys.iter(), all))), all),
            Kind::Bytes(keys) => {
                let all = all && keys.bytes() <= MOST_LISTED_BYTES;
                (Arc::new(BinaryArray::from(in_order(keys.iter(), all))), all)
            }
            Kind::Encoded { converter, seen, .. } if is_ordered(&self.types[0]) => {
                let all = all && seen.size() <= MOST_LISTED_BYTES;
                match converter.convert_rows(in_order(seen.iter(), all))?.pop() {
                    Some(values) => (values, all),
                    None => return Ok(vec![None]),
                }
            }
            Kind::Encoded { .. } => return Ok(vec![None]),
        };
        let values = match &self.kind {
            Kind::Encoded { .. } => values,
            _ => cast(&values, &self.types[0])?,
        };
        Ok(vec![Some(KeyValues { values, all })])
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        match &self.kind {
            Kind::Everything => 0,
            Kind::Integer(keys) => keys.size(),
            Kind::Bytes(keys) => keys.size(),
            Kind::Encoded { converter, seen, table } => converter.size() + seen.size() + table.allocation_size(),
            Kind::Several { columns, tables } => {
                columns.iter().map(KeyIndex::size).sum::<usize>() + tables.iter().map(HashTable::allocation_size).sum::<usize>()
            }
        }
    }

    /// The groups of `rows` label rows; new keys get new groups.
    pub fn insert(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let nulls = nulls(columns);
        let valid = |row: usize| nulls.as_ref().is_none_or(|n| n.is_valid(row));
        let hasher = &self.hasher;
        let groups = &mut self.groups;
        let mut out = vec![NO_GROUP; rows];
        match &mut self.kind {
            Kind::Everything => {
                *groups = 1;
                out.fill(0);
            }
            Kind::Integer(index) => {
                let keys = integers(&columns[0])?;
                let keys = keys.as_primitive::<Int64Type>().values();
                index.expect((0..rows).filter(|r| valid(*r)).map(|r| keys[r]));
                for row in (0..rows).filter(|r| valid(*r)) {
                    out[row] = index.insert(keys[row], || next(groups));
                }
            }
            Kind::Bytes(keys) => each_bytes(&columns[0], &mut |row, key| {
                if valid(row) {
                    out[row] = keys.insert(key, || next(groups));
                }
            })?,
            Kind::Encoded { converter, seen, table } => {
                let keys = converter.convert_columns(columns)?;
                for row in (0..rows).filter(|r| valid(*r)) {
                    let key = keys.row(row);
                    let hash = hasher.hash_one(key.data());
                    out[row] = match table.find(hash, |g| seen.row(*g as usize) == key) {
                        Some(g) => *g,
                        None => {
                            let group = next(groups);
                            seen.push(key);
                            table.insert_unique(hash, group, |g| hasher.hash_one(seen.row(*g as usize).data()));
                            group
                        }
                    };
                }
            }
            Kind::Several { columns: indexes, tables } => {
                let mut parts = indexes.iter_mut().zip(columns).map(|(i, c)| i.insert(std::slice::from_ref(c), rows));
                if let Some(first) = parts.next() {
                    out = first?;
                }
                let last = tables.len();
                for (number, (part, table)) in parts.zip(tables).enumerate() {
                    let part = part?;
                    let mut local = table.len() as u32;
                    // Only the last table's groups are the index's.
                    let count = if number + 1 == last { &mut *groups } else { &mut local };
                    for row in 0..rows {
                        // A key with a NULL part is no key at all: it takes no number.
                        if !valid(row) {
                            out[row] = NO_GROUP;
                            continue;
                        }
                        let pair = pair(out[row], part[row]);
                        let entry = table.entry(hasher.hash_one(pair), |e| e.0 == pair, |e| hasher.hash_one(e.0));
                        out[row] = entry.or_insert_with(|| (pair, next(count))).get().1;
                    }
                }
            }
        }
        Ok(out)
    }

    /// The groups of feature rows.
    pub fn find(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<u32>> {
        let nulls = nulls(columns);
        let valid = |row: usize| nulls.as_ref().is_none_or(|n| n.is_valid(row));
        let hasher = &self.hasher;
        let mut out = vec![NO_GROUP; rows];
        match &self.kind {
            Kind::Everything if self.groups == 0 => {}
            Kind::Everything => out.fill(0),
            Kind::Integer(index) => {
                let keys = integers(&columns[0])?;
                let keys = keys.as_primitive::<Int64Type>().values();
                for row in (0..rows).filter(|r| valid(*r)) {
                    out[row] = index.find(keys[row]);
                }
            }
            Kind::Bytes(index) => each_bytes(&columns[0], &mut |row, key| {
                if valid(row) {
                    out[row] = index.find(key);
                }
            })?,
            Kind::Encoded { converter, seen, table } => {
                let keys = converter.convert_columns(columns)?;
                for row in (0..rows).filter(|r| valid(*r)) {
                    let key = keys.row(row);
                    let found = table.find(hasher.hash_one(key.data()), |g| seen.row(*g as usize) == key);
                    out[row] = found.copied().unwrap_or(NO_GROUP);
                }
            }
            Kind::Several { columns: indexes, tables } => {
                let mut parts = indexes.iter().zip(columns).map(|(i, c)| i.find(std::slice::from_ref(c), rows));
                if let Some(first) = parts.next() {
                    out = first?;
                }
                for (part, table) in parts.zip(tables) {
                    for (group, part) in out.iter_mut().zip(part?) {
                        if *group != NO_GROUP && part != NO_GROUP {
                            let pair = pair(*group, part);
                            *group = table.find(hasher.hash_one(pair), |e| e.0 == pair).map_or(NO_GROUP, |e| e.1);
                        } else {
                            *group = NO_GROUP;
                        }
                    }
                }
            }
        }
        Ok(out)
    }
}

/// Sorted: all values, or the least and the greatest of them.
fn in_order<V: Ord + Copy>(values: impl Iterator<Item = V>, all: bool) -> Vec<V> {
    if all {
        let mut values: Vec<V> = values.collect();
        values.sort_unstable();
        return values;
    }
    let bounds = values.fold(None, |b, v| Some(b.map_or((v, v), |(least, greatest): (V, V)| (least.min(v), greatest.max(v)))));
    bounds.map(|(least, greatest)| vec![least, greatest]).unwrap_or_default()
}

/// Types whose encoded order is that of all who write their bounds; floats have more than one.
fn is_ordered(t: &DataType) -> bool {
    match t {
        DataType::Dictionary(_, values) => is_integer(values) || is_bytes(values) || is_ordered(values),
        t => matches!(t, DataType::UInt64 | DataType::Boolean) || t.is_decimal(),
    }
}

fn pair(a: u32, b: u32) -> u64 {
    u64::from(a) << 32 | u64::from(b)
}

/// Types whose cast to BIGINT keeps every value apart.
fn is_integer(t: &DataType) -> bool {
    let small = matches!(t, DataType::UInt8 | DataType::UInt16 | DataType::UInt32);
    small || t.is_signed_integer() || matches!(t, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..))
}

fn is_bytes(t: &DataType) -> bool {
    use DataType::*;
    matches!(t, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
}

/// Calls `f` with every row and its bytes; those of a NULL mean nothing.
fn each_bytes(column: &ArrayRef, f: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
    macro_rules! all {
        ($array:expr, $bytes:expr) => {{
            let array = $array;
            (0..array.len()).for_each(|row| f(row, $bytes(array.value(row))))
        }};
    }
    match column.data_type() {
        DataType::Utf8 => all!(column.as_string::<i32>(), str::as_bytes),
        DataType::LargeUtf8 => all!(column.as_string::<i64>(), str::as_bytes),
        DataType::Utf8View => all!(column.as_string_view(), str::as_bytes),
        DataType::Binary => all!(column.as_binary::<i32>(), |b| b),
        DataType::LargeBinary => all!(column.as_binary::<i64>(), |b| b),
        DataType::BinaryView => all!(column.as_binary_view(), |b| b),
        DataType::FixedSizeBinary(_) => all!(column.as_fixed_size_binary(), |b| b),
        other => return Err(DataFusionError::Internal(format!("a key of type {other} is not bytes"))),
    }
    Ok(())
}

/// Labels are counted before they are indexed, so that group numbers cannot overflow.
fn next(groups: &mut u32) -> u32 {
    let group = *groups;
    *groups += 1;
    group
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
