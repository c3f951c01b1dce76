//! Feature rows: a prefix that decides which of two rows wins, then the values.
//!
//! ```text
//!  0  8  event_ts     microseconds UTC, big endian, sign flipped
//!  8  8  created_ts   likewise; NULL: all zero
//! 16  8  _seq         likewise
//! 24  8  asof         Delta version up to which this row is the state of its key, big endian
//! 32  1  kind of row: 1, the features of one event (`RowKind`)
//! 33  1  flags: 1 tombstone, 4 full key follows (2 is kept for compression)
//! 34  4  schema id, big endian
//! 38     [u32 length and bytes of the full key]  body
//! ```
//! Body: null bitmap (bit set: NULL; low bit first), fixed-width values in column order (zero where
//! NULL), one u32 end offset per variable-width column, their bytes. A struct is a body over its
//! fields; a list is a u32 count and then null bitmap, fixed-width elements or end offsets and bytes.
//! All numbers are big endian.

use datafusion::arrow::array::types::{Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, ListArray, PrimitiveArray, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{ArrowPrimitiveType, DataType, Decimal128Type, TimeUnit, TimestampMicrosecondType};

use super::key::{EncodedKey, flip, unflip};
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::model::Column;
use crate::model::live::RowOrder;

pub const PREFIX_LEN: usize = 32;
/// Bytes at the front of a row that compare like [`RowOrder`].
pub const ORDER_LEN: usize = 24;
/// Where schema id, full key and values begin; equal rows have equal bytes from here.
pub const CONTENT_AT: usize = 34;
/// The shortest row.
pub const HEADER_LEN: usize = 38;
const TOMBSTONE: u8 = 1;
const FULL_KEY: u8 = 4;

/// What the bytes behind a row's header are. A store may hold rows of kinds that only a newer program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// The features of the event that wins: a body, as above. The kind of every row until windows came.
    Latest = 1,
    /// The record of a windowed view: states of its aggregates (`model/window/record.rs`).
    Windows = 2,
}

impl RowKind {
    fn read(byte: u8) -> Result<Self> {
        match byte {
            b if b == RowKind::Latest as u8 => Ok(RowKind::Latest),
            b if b == RowKind::Windows as u8 => Ok(RowKind::Windows),
            other => Err(Error::invalid(format!("an online row is of kind {other}, which this version of Remige cannot read"))
                .with_hint("a newer version wrote it: use that one here, too; nothing was changed")),
        }
    }
}

/// The part of a row that decides whether another may replace it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    pub event_ts: Micros,
    pub created_ts: Option<Micros>,
    pub seq: i64,
    /// Delta version up to which the row is the state of its key.
    pub asof: u64,
}

impl Prefix {
    /// Reads the first 32 bytes of a row.
    pub fn read(row: &[u8]) -> Result<Prefix> {
        let word = |at: usize| {
            let chunk = row.get(at..at + 8).and_then(|b| b.first_chunk());
            chunk.map(|b| u64::from_be_bytes(*b)).ok_or_else(|| corrupt("it is shorter than its prefix"))
        };
        let created = word(8)?;
        Ok(Prefix {
            event_ts: unflip(word(0)?),
            created_ts: (created != 0).then(|| unflip(created)),
            seq: unflip(word(16)?),
            asof: word(24)?,
        })
    }

    pub fn order(&self) -> RowOrder {
        RowOrder { event_ts: self.event_ts, created_ts: self.created_ts, seq: self.seq }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&flip(self.event_ts).to_be_bytes());
        // The least instant would read as NULL; its successor orders alike against all others.
        let created = self.created_ts.map_or(0, |c| flip(c).max(1));
        out.extend_from_slice(&created.to_be_bytes());
        out.extend_from_slice(&flip(self.seq).to_be_bytes());
        out.extend_from_slice(&self.asof.to_be_bytes());
    }
}

/// A stored row taken apart, values still encoded.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    pub prefix: Prefix,
    pub kind: RowKind,
    pub tombstone: bool,
    pub schema_id: u32,
    /// The whole key, where the stored key is a hash.
    pub full_key: Option<&'a [u8]>,
    pub(super) body: &'a [u8],
}

impl<'a> Row<'a> {
    pub fn parse(row: &'a [u8]) -> Result<Row<'a>> {
        if row.is_empty() {
            return Err(corrupt("there are no bytes of a row under its key"));
        }
        let prefix = Prefix::read(row)?;
        let header = row.get(PREFIX_LEN..).and_then(|h| h.split_first_chunk::<{ HEADER_LEN - PREFIX_LEN }>());
        let (&[kind, flags, ref id @ ..], rest) = header.ok_or_else(|| corrupt("it is shorter than its header"))?;
        let kind = RowKind::read(kind)?;
        if flags & !(TOMBSTONE | FULL_KEY) != 0 {
            return Err(corrupt(&format!("its flags {flags:#04x} are unknown")));
        }
        let schema_id = u32::from_be_bytes(*id);
        let mut rest = Bytes(rest);
        let full_key = if flags & FULL_KEY != 0 {
            let len = rest.u32()?;
            Some(rest.take(len)?)
        } else {
            None
        };
        Ok(Row { prefix, kind, tombstone: flags & TOMBSTONE != 0, schema_id, full_key, body: rest.0 })
    }

    /// The row, if it is of this kind, or a tombstone. A view has rows of one kind: another one is not its own.
    pub fn of_kind(self, kind: RowKind) -> Result<Self> {
        match self.kind == kind || self.tombstone {
            true => Ok(self),
            false => Err(corrupt("it is of another kind than its view")),
        }
    }

    /// The bytes behind the header, the whole key aside.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Whether the row belongs to `key` and not to another key with the same hash.
    pub fn belongs_to(&self, key: &EncodedKey) -> bool {
        self.full_key == key.full()
    }
}

/// Whether the flags of an encoded row say that its key has none.
pub fn is_tombstone(row: &[u8]) -> bool {
    row.get(PREFIX_LEN + 1).is_some_and(|flags| flags & TOMBSTONE != 0)
}

pub(super) fn corrupt(why: &str) -> Error {
    Error::internal(format!("an online row is damaged: {why}")).with_hint("MATERIALIZE FEATURE VIEW … FULL writes it again")
}

/// A cursor over encoded values whose every read is checked.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n).ok_or_else(|| corrupt("its values end early"))?;
        self.0 = tail;
        Ok(head)
    }

    pub fn u32(&mut self) -> Result<usize> {
        let (number, tail) = self.0.split_first_chunk().ok_or_else(|| corrupt("its values end early"))?;
        self.0 = tail;
        Ok(u32::from_be_bytes(*number) as usize)
    }
}

/// Bytes of a fixed-width value; `None` for a variable-width type.
pub(super) fn width(t: &DataType) -> Option<usize> {
    Some(match t {
        DataType::Boolean | DataType::Int8 => 1,
        DataType::Int16 => 2,
        DataType::Int32 | DataType::Float32 | DataType::Date32 => 4,
        DataType::Int64 | DataType::Float64 | DataType::Timestamp(TimeUnit::Microsecond, _) => 8,
        DataType::Decimal128(_, _) => 16,
        _ => return None,
    })
}

/// Writes the rows of one schema.
#[derive(Debug, Clone)]
pub struct RowEncoder {
    schema_id: u32,
    features: Vec<Column>,
}

impl RowEncoder {
    pub fn new(schema_id: u32, features: &[Column]) -> Self {
        RowEncoder { schema_id, features: features.to_vec() }
    }

    /// One encoded row per input row. `features` come in declared order with their declared types.
    pub fn encode(
        &self,
        keys: &[EncodedKey],
        event_ts: &TimestampMicrosecondArray,
        created: Option<&TimestampMicrosecondArray>,
        seq: &Int64Array,
        asof: u64,
        features: &[ArrayRef],
    ) -> Result<Vec<Vec<u8>>> {
        let rows = keys.len();
        let lengths = [Some(event_ts.len()), created.map(|c| c.len()), Some(seq.len())];
        if lengths.iter().flatten().any(|l| *l != rows) || features.iter().any(|f| f.len() != rows) {
            return Err(Error::internal("the columns of online rows differ in length"));
        }
        if event_ts.null_count() + seq.null_count() > 0 {
            return Err(Error::internal("an online row has no event timestamp or no sequence number"));
        }
        let sources = self.sources(features)?;
        let mut out = Vec::with_capacity(rows);
        for (i, key) in keys.iter().enumerate() {
            let prefix = Prefix {
                event_ts: event_ts.value(i),
                created_ts: created.filter(|c| c.is_valid(i)).map(|c| c.value(i)),
                seq: seq.value(i),
                asof,
            };
            let mut row = Vec::with_capacity(HEADER_LEN + 10 * sources.len() + 8);
            self.header(&prefix, 0, key, &mut row);
            write_body(&sources, i, &mut row)?;
            out.push(row);
        }
        Ok(out)
    }

    /// A row that says: as of `asof`, `key` has no row. It loses to every later offer.
    pub fn tombstone(&self, key: &EncodedKey, asof: u64) -> Vec<u8> {
        let mut row = Vec::with_capacity(HEADER_LEN);
        self.header(&Prefix { event_ts: i64::MIN, created_ts: None, seq: i64::MIN, asof }, TOMBSTONE, key, &mut row);
        row
    }

    /// The values alone, one per row, as they stand in a row. Where two rows agree in their order,
    /// the greater of these bytes wins, offline and online.
    pub fn bodies(&self, features: &[ArrayRef]) -> Result<Vec<Vec<u8>>> {
        let sources = self.sources(features)?;
        let rows = features.first().map_or(0, |f| f.len());
        (0..rows)
            .map(|i| {
                let mut body = vec![];
                write_body(&sources, i, &mut body)?;
                Ok(body)
            })
            .collect()
    }

    fn sources<'a>(&self, features: &'a [ArrayRef]) -> Result<Vec<Source<'a>>> {
        if features.len() != self.features.len() {
            return Err(Error::internal(format!("{} features are declared, {} are given", self.features.len(), features.len())));
        }
        let mut out = Vec::with_capacity(features.len());
        for (column, values) in self.features.iter().zip(features) {
            if !values.data_type().equals_datatype(column.data_type.arrow()) {
                return Err(Error::internal(format!("feature {:?} is {}, not {}", column.name, column.data_type, values.data_type())));
            }
            out.push(Source::new(values)?);
        }
        Ok(out)
    }

    fn header(&self, prefix: &Prefix, flags: u8, key: &EncodedKey, out: &mut Vec<u8>) {
        write_header(RowKind::Latest, self.schema_id, prefix, flags, key, out);
    }
}

/// What stands in front of a row's body.
fn write_header(kind: RowKind, schema_id: u32, prefix: &Prefix, flags: u8, key: &EncodedKey, out: &mut Vec<u8>) {
    prefix.write(out);
    out.push(kind as u8);
    out.push(flags | if key.full().is_some() { FULL_KEY } else { 0 });
    out.extend_from_slice(&schema_id.to_be_bytes());
    if let Some(full) = key.full() {
        out.extend_from_slice(&(full.len() as u32).to_be_bytes());
        out.extend_from_slice(full);
    }
}

/// A row of a windowed view. `newest`: its newest event that was due, if there was one; it stands where other rows have
/// their event timestamp.
pub fn windows_row(schema_id: u32, key: &EncodedKey, newest: Option<Micros>, asof: u64, record: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(HEADER_LEN + record.len());
    let prefix = Prefix { event_ts: newest.unwrap_or(Micros::MIN), created_ts: None, seq: 0, asof };
    write_header(RowKind::Windows, schema_id, &prefix, 0, key, &mut row);
    row.extend_from_slice(record);
    row
}

/// A column downcast once, so that rows are written without looking at types again.
enum Source<'a> {
    Boolean(&'a BooleanArray),
    I8(&'a PrimitiveArray<Int8Type>),
    I16(&'a PrimitiveArray<Int16Type>),
    I32(&'a PrimitiveArray<Int32Type>),
    I64(&'a PrimitiveArray<Int64Type>),
    F32(&'a PrimitiveArray<Float32Type>),
    F64(&'a PrimitiveArray<Float64Type>),
    Date(&'a PrimitiveArray<Date32Type>),
    Time(&'a PrimitiveArray<TimestampMicrosecondType>),
    Decimal(&'a PrimitiveArray<Decimal128Type>),
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
    List(&'a ListArray, Box<Source<'a>>),
    Struct(&'a StructArray, Vec<Source<'a>>),
}

impl<'a> Source<'a> {
    fn new(a: &'a ArrayRef) -> Result<Self> {
        Ok(match a.data_type() {
            DataType::Boolean => Source::Boolean(a.as_boolean()),
            DataType::Int8 => Source::I8(a.as_primitive()),
            DataType::Int16 => Source::I16(a.as_primitive()),
            DataType::Int32 => Source::I32(a.as_primitive()),
            DataType::Int64 => Source::I64(a.as_primitive()),
            DataType::Float32 => Source::F32(a.as_primitive()),
            DataType::Float64 => Source::F64(a.as_primitive()),
            DataType::Date32 => Source::Date(a.as_primitive()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Source::Time(a.as_primitive()),
            DataType::Decimal128(_, _) => Source::Decimal(a.as_primitive()),
            DataType::Utf8 => Source::Text(a.as_string()),
            DataType::Binary => Source::Binary(a.as_binary()),
            DataType::List(_) => {
                let list = a.as_list::<i32>();
                Source::List(list, Box::new(Source::new(list.values())?))
            }
            DataType::Struct(_) => {
                let s = a.as_struct();
                Source::Struct(s, s.columns().iter().map(Source::new).collect::<Result<_>>()?)
            }
            other => return Err(Error::internal(format!("an online row cannot hold {other}"))),
        })
    }

    fn array(&self) -> &dyn Array {
        match self {
            Source::Boolean(a) => *a,
            Source::I8(a) => *a,
            Source::I16(a) => *a,
            Source::I32(a) => *a,
            Source::I64(a) => *a,
            Source::F32(a) => *a,
            Source::F64(a) => *a,
            Source::Date(a) => *a,
            Source::Time(a) => *a,
            Source::Decimal(a) => *a,
            Source::Text(a) => *a,
            Source::Binary(a) => *a,
            Source::List(a, _) => *a,
            Source::Struct(a, _) => *a,
        }
    }

    fn width(&self) -> Option<usize> {
        width(self.array().data_type())
    }

    fn write(&self, i: usize, out: &mut Vec<u8>) -> Result<()> {
        fn fixed<T: ArrowPrimitiveType, const N: usize>(
            a: &PrimitiveArray<T>,
            i: usize,
            out: &mut Vec<u8>,
            bytes: impl Fn(T::Native) -> [u8; N],
        ) {
            out.extend_from_slice(&if a.is_valid(i) { bytes(a.value(i)) } else { [0; N] });
        }
        match self {
            Source::Boolean(a) => out.push((a.is_valid(i) && a.value(i)).into()),
            Source::I8(a) => fixed(a, i, out, i8::to_be_bytes),
            Source::I16(a) => fixed(a, i, out, i16::to_be_bytes),
            Source::I32(a) => fixed(a, i, out, i32::to_be_bytes),
            Source::I64(a) => fixed(a, i, out, i64::to_be_bytes),
            Source::F32(a) => fixed(a, i, out, f32::to_be_bytes),
            Source::F64(a) => fixed(a, i, out, f64::to_be_bytes),
            Source::Date(a) => fixed(a, i, out, i32::to_be_bytes),
            Source::Time(a) => fixed(a, i, out, i64::to_be_bytes),
            Source::Decimal(a) => fixed(a, i, out, i128::to_be_bytes),
            _ if self.array().is_null(i) => (),
            Source::Text(a) => out.extend_from_slice(a.value(i).as_bytes()),
            Source::Binary(a) => out.extend_from_slice(a.value(i)),
            Source::List(a, values) => match a.value_offsets().get(i..) {
                Some([from, to, ..]) => write_list(values, *from as usize..*to as usize, out)?,
                _ => return Err(Error::internal("a list has no offsets")),
            },
            Source::Struct(_, fields) => write_body(fields, i, out)?,
        }
        Ok(())
    }
}

fn write_body(columns: &[Source<'_>], i: usize, out: &mut Vec<u8>) -> Result<()> {
    write_nulls(columns.iter().map(|c| c.array().is_null(i)), out);
    for c in columns.iter().filter(|c| c.width().is_some()) {
        c.write(i, out)?;
    }
    write_var(columns.iter().filter(|c| c.width().is_none()).map(|c| (c, i)), out)
}

fn write_list(values: &Source<'_>, range: std::ops::Range<usize>, out: &mut Vec<u8>) -> Result<()> {
    out.extend_from_slice(&(range.len() as u32).to_be_bytes());
    write_nulls(range.clone().map(|i| values.array().is_null(i)), out);
    if values.width().is_some() {
        return range.into_iter().try_for_each(|i| values.write(i, out));
    }
    write_var(range.map(|i| (values, i)), out)
}

fn write_nulls(nulls: impl Iterator<Item = bool>, out: &mut Vec<u8>) {
    let mut bits = 0;
    let mut free = 8;
    for null in nulls {
        bits |= u8::from(null) << (8 - free);
        free -= 1;
        if free == 0 {
            out.push(bits);
            (bits, free) = (0, 8);
        }
    }
    if free < 8 {
        out.push(bits);
    }
}

fn write_var<'s, 'a: 's>(values: impl Iterator<Item = (&'s Source<'a>, usize)> + Clone, out: &mut Vec<u8>) -> Result<()> {
    let table = out.len();
    out.resize(table + 4 * values.clone().count(), 0);
    let start = out.len();
    for (n, (source, i)) in values.enumerate() {
        source.write(i, out)?;
        let end = u32::try_from(out.len() - start)
            .map_err(|_| Error::invalid("a row is too large for the online store").with_hint("values over 4 GiB cannot be served"))?;
        let place = out.get_mut(table + 4 * n..).and_then(|table| table.first_chunk_mut());
        *place.ok_or_else(|| Error::internal("an offset of a row has no place"))? = end.to_be_bytes();
    }
    Ok(())
}
