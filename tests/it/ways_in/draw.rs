//! Values of every type, with those at the edges.

use std::sync::Arc;

use datafusion::arrow::array::*;
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, TimeUnit, i256};

use super::value::Value;

/// Numbers from a seed.
pub struct Draw(u64);

/// Rows to bring.
pub struct Drawn {
    pub array: ArrayRef,
    pub values: Vec<Value>,
    /// The same as SQL writes them; empty where it cannot.
    pub literals: Vec<String>,
}

const EDGES: [i128; 22] = [
    0,
    1,
    -1,
    5,
    127,
    128,
    -128,
    -129,
    255,
    32_767,
    32_768,
    65_535,
    2_147_483_647,
    2_147_483_648,
    -2_147_483_649,
    9_007_199_254_740_993,
    i64::MAX as i128,
    i64::MAX as i128 + 1,
    i64::MIN as i128,
    u64::MAX as i128,
    12_345_678_901_234_567_891,
    99_999_999_999_999_999_999_999_999_999_999_999_999,
];

const FIELDS: [&[&str]; 3] = [&["a"], &["a", "b"], &["b", "a"]];

const FLOATS: [f64; 22] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1.5,
    0.1,
    1.26,
    2.7,
    5.7,
    1e15,
    9007199254740993.0,
    1e18,
    9.3e18,
    1e30,
    1e300,
    1e-300,
    123456.789,
    16777217.0,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    12345678901234567.891,
];

const TEXTS: [&str; 22] = [
    "",
    "a",
    "7",
    "7.0",
    "7.5",
    " 8 ",
    "1e3",
    "-1.25",
    "1.255",
    "true",
    "no",
    "2026-01-01",
    "2026-01-01 10:00",
    "2026-01-01 00:00:00",
    "2026-01-01T23:30:00",
    "2026-01-01 10:00:00.123456",
    "2026-01-01 10:00:00.1234567",
    "9999-12-31",
    "12345678901234567.891",
    "99999999999999999999999999999999999999",
    "1e400",
    "ü",
];

impl Draw {
    pub fn new(seed: u64) -> Self {
        Draw(seed | 1)
    }

    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn one<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    fn whole(&mut self) -> i128 {
        match self.below(3) {
            0 => *self.one(&EDGES),
            1 => i128::from(self.next() as i64 >> self.below(63)),
            _ => i128::from(self.next() % 2_000) - 1_000,
        }
    }

    fn each<T>(&mut self, n: usize, mut f: impl FnMut(&mut Self) -> T) -> Vec<Option<T>> {
        (0..n).map(|_| if self.below(6) == 0 { None } else { Some(f(self)) }).collect()
    }

    /// One to three rows for a target; `None`: not to be drawn there.
    pub fn rows(&mut self, target: &str, files: bool, literals: bool) -> Option<Drawn> {
        let n = 1 + self.below(3);
        // literals have a type of their own in each row, as people write them
        if literals {
            let mut columns = vec![];
            for _ in 0..n {
                columns.push(self.column(1, target, true)?);
            }
            let values = columns.iter().map(|c| Value::of(c, 0)).collect();
            let literals = columns.iter().map(literal).collect::<Option<Vec<_>>>()?;
            return Some(Drawn { array: columns.remove(0), values, literals });
        }
        let array = self.column(n, target, files)?;
        let values = (0..n).map(|row| Value::of(&array, row)).collect();
        Some(Drawn { array, values, literals: vec![] })
    }

    fn column(&mut self, n: usize, target: &str, simple: bool) -> Option<ArrayRef> {
        if let Some(element) = target.strip_suffix("[]") {
            if self.below(8) > 0 {
                let of = self.column(2 * n, element, true)?;
                let field = Arc::new(Field::new("item", of.data_type().clone(), true));
                let nulls = (n > 1).then(|| (0..n).map(|_| self.below(5) > 0).collect::<Vec<_>>().into());
                let lengths = datafusion::arrow::buffer::OffsetBuffer::from_lengths(vec![2; n]);
                return Some(Arc::new(ListArray::new(field, lengths, of, nulls)));
            }
        } else if target.starts_with("STRUCT") && self.below(8) > 0 {
            let picked: &&[&str] = self.one(&FIELDS);
            let names: &[&str] = if self.below(8) == 0 { &["a", "z"] } else { picked };
            let columns = names.iter().map(|name| Some((*name, self.scalar(n, true)))).collect::<Option<Vec<_>>>()?;
            let fields = columns.iter().map(|(n, c)| (Arc::new(Field::new(*n, c.data_type().clone(), true)), Arc::clone(c)));
            return Some(Arc::new(StructArray::from(fields.collect::<Vec<_>>())));
        }
        Some(self.scalar(n, simple))
    }

    /// `simple`: types that a file keeps and SQL can write.
    fn scalar(&mut self, n: usize, simple: bool) -> ArrayRef {
        macro_rules! integers {
            ($array:ty, $t:ty) => {
                Arc::new(<$array>::from(self.each(n, |d| {
                    loop {
                        if let Ok(v) = <$t>::try_from(d.whole()) {
                            break v;
                        }
                    }
                })))
            };
        }
        let float = |d: &mut Self| if d.below(2) == 0 { *d.one(&FLOATS) } else { d.whole() as f64 / *d.one(&[1.0, 2.0, 10.0, 1000.0]) };
        let micros = |d: &mut Self| {
            let day = *d.one(&[0, 20_454, 2_932_896, -719_162, 19_000]);
            day * 86_400_000_000 + *d.one(&[0, 0, 84_600_000_000, 1, 500_000])
        };
        let kinds = if simple { 15 } else { 22 };
        match self.below(kinds) {
            0 => Arc::new(BooleanArray::from(self.each(n, |d| d.below(2) == 0))),
            1 => integers!(Int8Array, i8),
            2 => integers!(Int32Array, i32),
            3 | 4 => integers!(Int64Array, i64),
            5 => integers!(UInt64Array, u64),
            6 => Arc::new(Float32Array::from(self.each(n, |d| float(d) as f32))),
            7 | 8 => Arc::new(Float64Array::from(self.each(n, float))),
            9 | 10 => {
                let (p, s) = *self.one(&[(10u8, 2i8), (38, 10), (5, 1), (20, 0), (38, 38)]);
                let most = 10i128.pow(p.into());
                let list = self.each(n, |d| d.whole() % most);
                Arc::new(Decimal128Array::from(list).with_precision_and_scale(p, s).unwrap())
            }
            11 | 12 => Arc::new(StringArray::from(self.each(n, |d| *d.one(&TEXTS)))),
            13 => Arc::new(Date32Array::from(self.each(n, |d| *d.one(&[0, 20_454, 2_932_896, -719_162])))),
            14 => Arc::new(TimestampMicrosecondArray::from(self.each(n, micros)).with_timezone("UTC")),
            15 => Arc::new(TimestampMicrosecondArray::from(self.each(n, micros))),
            16 => Arc::new(TimestampNanosecondArray::from(self.each(n, |d| *d.one(&[0, 1_000, 1_001, -1, 1_767_225_600_000_000_000])))),
            17 => Arc::new(TimestampMillisecondArray::from(self.each(n, |d| *d.one(&[0, 1, 253_402_214_400_000, -62_135_596_800_000])))),
            18 => Arc::new(Date64Array::from(self.each(n, |d| *d.one(&[0, 86_400_000, 86_400_001, 3_600_000])))),
            19 => {
                let list: Vec<Option<&str>> = self.each(n, |d| *d.one(&TEXTS));
                Arc::new(list.into_iter().collect::<DictionaryArray<Int32Type>>())
            }
            20 => {
                let list = self.each(n, |d| i256::from_i128(d.whole()));
                Arc::new(Decimal256Array::from(list).with_precision_and_scale(50, 5).unwrap())
            }
            _ => Arc::new(StringViewArray::from(self.each(n, |d| *d.one(&TEXTS)))),
        }
    }
}

/// A value as SQL writes it.
fn literal(a: &ArrayRef) -> Option<String> {
    use DataType::*;
    let v = Value::of(a, 0);
    Some(match (v, a.data_type()) {
        (Value::Null, _) => "NULL".into(),
        (Value::Bool(b), _) => b.to_string(),
        (Value::Number(t), Decimal128(p, s)) => format!("CAST('{t}' AS DECIMAL({p}, {s}))"),
        (Value::Number(t), Int64) => t,
        (Value::Number(t), other) => format!("arrow_cast('{t}', '{other}')"),
        (Value::Float(v), _) => format!("CAST('{v:e}' AS DOUBLE)"),
        (Value::Short(v), _) => format!("CAST('{v:e}' AS FLOAT)"),
        (Value::Text(t), _) => format!("'{t}'"),
        (Value::Instant(_), Date32) => format!("DATE '{}'", datafusion::arrow::util::display::array_value_to_string(a, 0).ok()?),
        (Value::Instant(_), Timestamp(TimeUnit::Microsecond, _)) => {
            format!("arrow_cast('{}', '{}')", datafusion::arrow::util::display::array_value_to_string(a, 0).ok()?, a.data_type())
        }
        _ => return None,
    })
}
