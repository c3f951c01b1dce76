//! Entity keys: per column, in declared order, a type tag and a payload.
//!
//! ```text
//! 1 integer    8 bytes big endian, sign flipped (all widths alike)
//! 2 boolean    1 byte
//! 3 time       date or timestamp: microseconds UTC, 8 bytes big endian, sign flipped
//! 4 decimal    unscaled i128 without trailing zeros, 16 bytes big endian, sign flipped; scale, 1 byte, sign flipped
//! 5 text       UTF-8 with 00 → 00 FF, then 00 00
//! 6 binary     likewise
//! ```
//! A key longer than 256 bytes is stored as its first 241 bytes and 16 bytes of BLAKE3 over the whole
//! (257 bytes, so never equal to a short key); its row then carries the whole key for comparison.

use std::fmt::Write;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options, kernels::cmp};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::clock::{DAY, format_micros};
use crate::error::{Error, Result};
use crate::model::Column;

pub(super) const INTEGER: u8 = 1;
pub(super) const BOOLEAN: u8 = 2;
pub(super) const TIME: u8 = 3;
pub(super) const DECIMAL: u8 = 4;
pub(super) const TEXT: u8 = 5;
pub(super) const BINARY: u8 = 6;

const LONGEST: usize = 256;
const KEPT: usize = 241;

/// What is stored as it is of a key that is too long.
fn kept(key: &[u8]) -> Option<&[u8; KEPT]> {
    key.first_chunk().filter(|_| key.len() > LONGEST)
}

/// An entity key as the stores know it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EncodedKey {
    stored: Vec<u8>,
    full: Option<Vec<u8>>,
}

impl EncodedKey {
    fn new(full: Vec<u8>) -> Self {
        let Some(kept) = kept(&full) else { return EncodedKey { stored: full, full: None } };
        let mut stored = kept.to_vec();
        stored.extend_from_slice(&blake3::hash(&full).as_bytes()[..16]);
        EncodedKey { stored, full: Some(full) }
    }

    /// A key as a store names it. Where that holds only its hash the whole key is not known: good for a
    /// tombstone, not for a row.
    pub fn from_stored(stored: Vec<u8>) -> Self {
        EncodedKey { stored, full: None }
    }

    /// The bytes that name the row in a store; at most 257. Stores load fastest in their order.
    pub fn stored(&self) -> &[u8] {
        &self.stored
    }

    pub fn into_stored(self) -> Vec<u8> {
        self.stored
    }

    /// The whole key where `stored` holds only its hash.
    pub fn full(&self) -> Option<&[u8]> {
        self.full.as_deref()
    }
}

/// One key per row; `None` where any key column is NULL. Columns must have their declared key types
/// (see [`cast_to_key_types`]) and equal lengths.
pub fn encode_keys(columns: &[ArrayRef]) -> Result<Vec<Option<EncodedKey>>> {
    let rows = columns.first().map_or(0, |c| c.len());
    if columns.iter().any(|c| c.len() != rows) {
        return Err(Error::internal("key columns differ in length"));
    }
    let mut buffers: Vec<Option<Vec<u8>>> = (0..rows).map(|_| Some(Vec::with_capacity(columns.len() * 12))).collect();
    for column in columns {
        append(column, &mut buffers)?;
    }
    Ok(buffers.into_iter().map(|b| b.map(EncodedKey::new)).collect())
}

fn append(column: &ArrayRef, out: &mut [Option<Vec<u8>>]) -> Result<()> {
    match column.data_type() {
        DataType::Int8 => each(column.as_primitive::<Int8Type>().iter(), out, |v, b| put_i64(b, INTEGER, v.into())),
        DataType::Int16 => each(column.as_primitive::<Int16Type>().iter(), out, |v, b| put_i64(b, INTEGER, v.into())),
        DataType::Int32 => each(column.as_primitive::<Int32Type>().iter(), out, |v, b| put_i64(b, INTEGER, v.into())),
        DataType::Int64 => each(column.as_primitive::<Int64Type>().iter(), out, |v, b| put_i64(b, INTEGER, v)),
        DataType::Boolean => each(column.as_boolean().iter(), out, |v, b| b.extend([BOOLEAN, v.into()])),
        DataType::Date32 => {
            each(column.as_primitive::<Date32Type>().iter(), out, |v, b| put_i64(b, TIME, i64::from(v).saturating_mul(DAY)))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            each(column.as_primitive::<TimestampMicrosecondType>().iter(), out, |v, b| put_i64(b, TIME, v))
        }
        DataType::Decimal128(_, scale) => each(column.as_primitive::<Decimal128Type>().iter(), out, |v, b| put_decimal(b, v, *scale)),
        DataType::Utf8 => each(column.as_string::<i32>().iter(), out, |v, b| put_bytes(b, TEXT, v.as_bytes())),
        DataType::Binary => each(column.as_binary::<i32>().iter(), out, |v, b| put_bytes(b, BINARY, v)),
        other => return Err(Error::internal(format!("a key column cannot be encoded from {other}"))),
    }
    Ok(())
}

fn each<T>(values: impl Iterator<Item = Option<T>>, out: &mut [Option<Vec<u8>>], put: impl Fn(T, &mut Vec<u8>)) {
    for (value, slot) in values.zip(out) {
        match (value, slot.as_mut()) {
            (Some(v), Some(buffer)) => put(v, buffer),
            _ => *slot = None,
        }
    }
}

fn put_i64(out: &mut Vec<u8>, tag: u8, v: i64) {
    out.push(tag);
    out.extend_from_slice(&flip(v).to_be_bytes());
}

/// Two's complement to an order-preserving unsigned number.
pub(super) fn flip(v: i64) -> u64 {
    (v as u64) ^ (1 << 63)
}

pub(super) fn unflip(v: u64) -> i64 {
    (v ^ (1 << 63)) as i64
}

fn put_decimal(out: &mut Vec<u8>, mut v: i128, mut scale: i8) {
    if v == 0 {
        scale = 0;
    }
    while v != 0 && v % 10 == 0 && scale > i8::MIN {
        v /= 10;
        scale -= 1;
    }
    out.push(DECIMAL);
    out.extend_from_slice(&((v as u128) ^ (1 << 127)).to_be_bytes());
    out.push((scale as u8) ^ 0x80);
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    for &b in bytes {
        out.push(b);
        if b == 0 {
            out.push(0xFF);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

/// A stored key as a human reads it, for error messages: `(1001, "JFK")`.
pub fn display(stored: &[u8]) -> String {
    let mut parts = vec![];
    let mut rest = kept(stored).map_or(stored, |kept| kept);
    while let Some((value, tail)) = read_one(rest) {
        parts.push(value);
        rest = tail;
    }
    if !rest.is_empty() || stored.len() > LONGEST {
        let hex = stored.iter().fold(String::new(), |mut s, b| {
            let _ = write!(s, "{b:02x}");
            s
        });
        parts.push(format!("… 0x{hex}"));
    }
    format!("({})", parts.join(", "))
}

fn read_one(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    match tag {
        INTEGER => rest.split_first_chunk().map(|(v, tail)| (unflip(u64::from_be_bytes(*v)).to_string(), tail)),
        TIME => rest.split_first_chunk().map(|(v, tail)| (format_micros(unflip(u64::from_be_bytes(*v))), tail)),
        BOOLEAN => rest.split_first().map(|(v, tail)| ((*v != 0).to_string(), tail)),
        DECIMAL => {
            let (v, tail) = rest.split_first_chunk()?;
            let (scale, tail) = tail.split_first()?;
            Some((format!("{}e{}", (u128::from_be_bytes(*v) ^ (1 << 127)) as i128, -i16::from((scale ^ 0x80) as i8)), tail))
        }
        TEXT | BINARY => {
            let mut value = vec![];
            let mut rest = rest;
            let tail = loop {
                let (byte, behind) = match rest {
                    [0, 0, tail @ ..] => break tail,
                    [0, 0xFF, behind @ ..] => (0, behind),
                    [0, ..] | [] => return None,
                    [byte, behind @ ..] => (*byte, behind),
                };
                value.push(byte);
                rest = behind;
            };
            let text = if tag == TEXT { format!("{:?}", String::from_utf8_lossy(&value)) } else { format!("{value:02x?}") };
            Some((text, tail))
        }
        _ => None,
    }
}

/// Request values as the declared key types, or an error that names the column and the value. Only
/// casts that lose nothing are done: 1.0 may become 1, 1.5 may not.
pub fn cast_to_key_types(columns: &[ArrayRef], keys: &[Column]) -> Result<Vec<ArrayRef>> {
    if columns.len() != keys.len() {
        return Err(Error::invalid(format!("{} key columns are needed, {} are given", keys.len(), columns.len())));
    }
    columns.iter().zip(keys).map(|(values, key)| cast_one(values, key)).collect()
}

fn cast_one(values: &ArrayRef, key: &Column) -> Result<ArrayRef> {
    let (from, to) = (values.data_type(), key.data_type.arrow());
    if from == to {
        return Ok(values.clone());
    }
    if !castable(from, to) {
        return Err(Error::invalid(format!("key {:?} is {}, but the values given are {from}", key.name, key.data_type))
            .with_hint(format!("write CAST(… AS {})", key.data_type)));
    }
    let exact = CastOptions { safe: true, format_options: FormatOptions::default() };
    let cast = cast_with_options(values, to, &exact)?;
    let back = match from {
        // A text is what it parses to; everything else must come back as it was.
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => None,
        _ => Some(cast_with_options(&cast, from, &exact)?),
    };
    let same = back.as_ref().map(|b| cmp::not_distinct(values, b)).transpose()?;
    for row in 0..values.len() {
        let lost = values.is_valid(row) && (cast.is_null(row) || same.as_ref().is_some_and(|s| !s.value(row)));
        if lost && !from.is_null() {
            let shown = ArrayFormatter::try_new(values, &FormatOptions::default())?.value(row).to_string();
            return Err(Error::invalid(format!("key {:?} is {}, and {shown:?} ({from}) is no such value", key.name, key.data_type)));
        }
    }
    Ok(cast)
}

fn castable(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    let text = |t: &DataType| matches!(t, Utf8 | LargeUtf8 | Utf8View);
    let bytes = |t: &DataType| matches!(t, Binary | LargeBinary | BinaryView | FixedSizeBinary(_));
    let time = |t: &DataType| matches!(t, Date32 | Date64 | Timestamp(_, _));
    match from {
        Null => true,
        Dictionary(_, value) => castable(value, to),
        Boolean => matches!(to, Boolean),
        _ if text(from) => true,
        _ if bytes(from) => bytes(to) || text(to),
        _ if time(from) => time(to),
        _ if from.is_integer() => to.is_numeric() || text(to),
        _ if from.is_numeric() => to.is_numeric(),
        _ => false,
    }
}
