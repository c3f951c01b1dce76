//! Column types as the registry writes them: SQL names, so that a registry stays readable and does
//! not depend on any library's serialisation.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// An Arrow type that Remige stores, with its SQL name as its serialised form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ColumnType(DataType);

/// The one timestamp type of the engine: microseconds, UTC.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl ColumnType {
    /// The stored form of an Arrow type: views, dictionaries and large offsets become plain, unsigned
    /// integers widen, timestamps become UTC microseconds. `Err` holds the cast to write.
    pub fn stored(data_type: &DataType) -> Result<Self> {
        use DataType::*;
        let plain = match data_type {
            Boolean | Int8 | Int16 | Int32 | Int64 | Float32 | Float64 | Date32 | Decimal128(_, _) | Utf8 | Binary => data_type.clone(),
            UInt8 => Int16,
            UInt16 => Int32,
            UInt32 | UInt64 => Int64,
            Float16 => Float32,
            Utf8View | LargeUtf8 => Utf8,
            BinaryView | LargeBinary | FixedSizeBinary(_) => Binary,
            Date64 => Date32,
            Timestamp(_, _) => timestamp_type(),
            Decimal32(p, s) | Decimal64(p, s) => Decimal128(*p, *s),
            Dictionary(_, v) => return Self::stored(v),
            RunEndEncoded(_, v) => return Self::stored(v.data_type()),
            List(f) | LargeList(f) | ListView(f) | LargeListView(f) | FixedSizeList(f, _) => {
                List(Arc::new(Field::new("element", Self::stored(f.data_type())?.0, true)))
            }
            Struct(fields) => {
                Struct(fields.iter().map(|f| Ok(Field::new(f.name(), Self::stored(f.data_type())?.0, true))).collect::<Result<Fields>>()?)
            }
            Decimal256(_, _) => return Err(unsupported(data_type, "CAST(… AS DECIMAL(38, s))")),
            Time32(_) | Time64(_) | Interval(_) | Duration(_) => {
                return Err(unsupported(data_type, "CAST(… AS BIGINT) or CAST(… AS VARCHAR)"));
            }
            Null => return Err(unsupported(data_type, "CAST(NULL AS <type>)")),
            other => return Err(unsupported(other, "CAST(… AS VARCHAR)")),
        };
        Ok(ColumnType(plain))
    }

    pub fn timestamp() -> Self {
        ColumnType(timestamp_type())
    }

    pub fn arrow(&self) -> &DataType {
        &self.0
    }

    /// Whether a column of this type may be a join key. Floats are not: equality of floats is not
    /// what anybody means by "the same entity".
    pub fn check_key(&self, name: &str) -> Result<()> {
        use DataType::*;
        match &self.0 {
            Boolean | Int8 | Int16 | Int32 | Int64 | Date32 | Decimal128(_, _) | Utf8 | Binary | Timestamp(_, _) => Ok(()),
            Float32 | Float64 => Err(Error::invalid(format!(
                "key {name:?} cannot be {self}: two floats that print alike may differ in their last bit, so they never name an entity reliably"
            ))
            .with_hint("use BIGINT, VARCHAR or DECIMAL(p, s) and cast in the query")),
            _ => Err(Error::invalid(format!("key {name:?} cannot be of type {self}"))
                .with_hint("key types are integers, VARCHAR, BYTEA, BOOLEAN, DATE, TIMESTAMP and DECIMAL")),
        }
    }
}

fn unsupported(t: &DataType, cast: &str) -> Error {
    Error::invalid(format!("type {t} cannot be stored")).with_hint(format!("write {cast}"))
}

impl From<ColumnType> for DataType {
    fn from(t: ColumnType) -> Self {
        t.0
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use DataType::*;
        match &self.0 {
            Boolean => f.write_str("BOOLEAN"),
            Int8 => f.write_str("TINYINT"),
            Int16 => f.write_str("SMALLINT"),
            Int32 => f.write_str("INT"),
            Int64 => f.write_str("BIGINT"),
            Float32 => f.write_str("FLOAT"),
            Float64 => f.write_str("DOUBLE"),
            Date32 => f.write_str("DATE"),
            Utf8 => f.write_str("VARCHAR"),
            Binary => f.write_str("BYTEA"),
            Timestamp(_, _) => f.write_str("TIMESTAMP"),
            Decimal128(p, s) => write!(f, "DECIMAL({p}, {s})"),
            List(e) => write!(f, "{}[]", ColumnType(e.data_type().clone())),
            Struct(fields) => {
                f.write_str("STRUCT<")?;
                for (i, field) in fields.iter().enumerate() {
                    let sep = if i == 0 { "" } else { ", " };
                    write!(f, "{sep}{} {}", quote(field.name()), ColumnType(field.data_type().clone()))?;
                }
                f.write_str(">")
            }
            other => write!(f, "{other}"),
        }
    }
}

/// A name as it must be written in SQL: quoted where it is not a plain lower-case word.
pub fn quote(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_string() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

impl std::str::FromStr for ColumnType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut p = Reader { rest: text.trim() };
        let t = p.read()?;
        match p.rest.trim() {
            "" => Ok(ColumnType(t)),
            more => Err(Error::invalid(format!("unexpected {more:?} after the type in {text:?}"))),
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn word(&mut self) -> String {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (w, rest) = self.rest.split_at(end);
        self.rest = rest;
        w.to_string()
    }

    fn eat(&mut self, c: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn want(&mut self, c: char) -> Result<()> {
        if self.eat(c) { Ok(()) } else { Err(Error::invalid(format!("expected {c:?} in a type at {:?}", self.rest))) }
    }

    fn name(&mut self) -> Result<String> {
        if !self.eat('"') {
            return Ok(self.word());
        }
        let mut out = String::new();
        let mut chars = self.rest.char_indices().peekable();
        while let Some((i, c)) = chars.next() {
            if c != '"' {
                out.push(c);
            } else if chars.peek().is_some_and(|(_, c)| *c == '"') {
                out.push('"');
                chars.next();
            } else {
                self.rest = &self.rest[i + 1..];
                return Ok(out);
            }
        }
        Err(Error::invalid("a quoted name in a type has no end"))
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T> {
        let w = self.word();
        w.parse().map_err(|_| Error::invalid(format!("expected a number in a type, found {w:?}")))
    }

    fn read(&mut self) -> Result<DataType> {
        use DataType::*;
        let w = self.word().to_uppercase();
        let mut t = match w.as_str() {
            "BOOLEAN" => Boolean,
            "TINYINT" => Int8,
            "SMALLINT" => Int16,
            "INT" => Int32,
            "BIGINT" => Int64,
            "FLOAT" => Float32,
            "DOUBLE" => Float64,
            "DATE" => Date32,
            "VARCHAR" => Utf8,
            "BYTEA" => Binary,
            "TIMESTAMP" => timestamp_type(),
            "DECIMAL" => {
                self.want('(')?;
                let p = self.number()?;
                self.want(',')?;
                let s = self.number()?;
                self.want(')')?;
                Decimal128(p, s)
            }
            "STRUCT" => {
                self.want('<')?;
                let mut fields = vec![];
                while !self.eat('>') {
                    if !fields.is_empty() {
                        self.want(',')?;
                    }
                    let name = self.name()?;
                    fields.push(Field::new(name, self.read()?, true));
                }
                Struct(fields.into())
            }
            other => return Err(Error::invalid(format!("unknown type {other:?}"))),
        };
        while self.eat('[') {
            self.want(']')?;
            t = List(Arc::new(Field::new("element", t, true)));
        }
        Ok(t)
    }
}

impl Serialize for ColumnType {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ColumnType {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for text in
            ["BOOLEAN", "TINYINT", "BIGINT", "DECIMAL(10, 2)", "VARCHAR[][]", "TIMESTAMP", "STRUCT<a BIGINT, \"B \"\"c\" VARCHAR[]>[]"]
        {
            let t: ColumnType = text.parse().unwrap();
            assert_eq!(t.to_string(), text);
        }
        for bad in ["", "BIGINT BIGINT", "DECIMAL(1)", "STRUCT<a", "TEXTY"] {
            assert!(bad.parse::<ColumnType>().is_err(), "{bad}");
        }
    }

    #[test]
    fn floats_are_no_keys() {
        let t: ColumnType = "DOUBLE".parse().unwrap();
        assert!(t.check_key("k").unwrap_err().message().contains("float"));
    }
}
