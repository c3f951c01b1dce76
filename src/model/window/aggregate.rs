//! The aggregates that windows know.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use serde::{Deserialize, Serialize};

use super::spec::Window;
use super::value::is_plain;
use crate::error::{Error, Result};

/// The greatest n of first_n and last_n, and the greatest k of top_k.
const MOST_N: u32 = 100;
const MOST_K: u32 = 50;

/// What is computed of the events in a window.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    CountAll,
    Count,
    CountDistinct,
    Sum,
    Avg,
    Min,
    Max,
    VarPop,
    VarSamp,
    StddevPop,
    StddevSamp,
    BoolAnd,
    BoolOr,
    FirstValue { ignore_nulls: bool },
    LastValue { ignore_nulls: bool },
    FirstN(u32),
    LastN(u32),
    MinBy,
    MaxBy,
    TopK(u32),
}

/// A function over columns of the stored events, in a window.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Aggregate {
    pub function: Function,
    /// Names of columns of the events.
    pub args: Vec<String>,
    /// A BOOLEAN column of the events: where it is true an event counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    pub window: Window,
}

impl Aggregate {
    /// `sum(amount) filter big over last 1 hour`: how plans show it.
    pub fn describe(&self) -> String {
        let args = match self.function {
            Function::CountAll => "*".to_string(),
            Function::CountDistinct => format!("distinct {}", self.args.join(", ")),
            _ => self.args.join(", "),
        };
        let filter = self.filter.as_ref().map_or(String::new(), |f| format!(" filter {f}"));
        format!("{}({args}){filter} over {}", self.function.name(), self.window.name())
    }
}

/// Everything that may stand before OVER LAST, as users write it.
const KNOWN: &[&str] = &[
    "count(*)",
    "count(x)",
    "count(DISTINCT x)",
    "sum",
    "avg",
    "min",
    "max",
    "var_pop",
    "var_samp",
    "stddev_pop",
    "stddev_samp",
    "bool_and",
    "bool_or",
    "first_value",
    "last_value",
    "first_n(x, n)",
    "last_n(x, n)",
    "min_by(x, y)",
    "max_by(x, y)",
    "top_k(x, k)",
];

/// A call as it is written.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// In lower case.
    pub name: &'a str,
    pub distinct: bool,
    pub ignore_nulls: bool,
    pub star: bool,
    /// Arguments that are no numbers.
    pub columns: usize,
    /// The numbers behind them.
    pub constants: &'a [String],
}

impl Function {
    /// The function of a call. The error of an unknown one lists all.
    pub fn find(call: &Call<'_>) -> Result<Function> {
        let Call { name, distinct, ignore_nulls, star, columns, constants } = *call;
        let wants = |n: usize| match columns == n && !star {
            true => Ok(()),
            false => Err(Error::invalid(format!("{name}() over a window wants {n} argument(s)"))),
        };
        let plain = |f: Function| {
            wants(1)?;
            match constants.is_empty() {
                true => Ok(f),
                false => Err(Error::invalid(format!("{name}() over a window takes no number"))),
            }
        };
        let number = |most: u32, what: &str| {
            wants(1)?;
            let n = constants.first().and_then(|n| n.parse::<u32>().ok()).filter(|n| (1..=most).contains(n) && constants.len() == 1);
            n.ok_or_else(|| {
                Error::invalid(format!("{name}() wants a whole number from 1 to {most} as {what}"))
                    .with_hint(format!("write {name}(column, 10)"))
            })
        };
        let f = match name {
            "count" if star && columns == 0 => Function::CountAll,
            "count" if distinct => plain(Function::CountDistinct)?,
            "count" => plain(Function::Count)?,
            "sum" => plain(Function::Sum)?,
            "avg" | "mean" => plain(Function::Avg)?,
            "min" => plain(Function::Min)?,
            "max" => plain(Function::Max)?,
            "var_pop" | "var_population" => plain(Function::VarPop)?,
            "var" | "var_samp" | "var_sample" | "variance" => plain(Function::VarSamp)?,
            "stddev_pop" => plain(Function::StddevPop)?,
            "stddev" | "stddev_samp" => plain(Function::StddevSamp)?,
            "bool_and" | "every" => plain(Function::BoolAnd)?,
            "bool_or" | "some" => plain(Function::BoolOr)?,
            "first_value" | "first" => plain(Function::FirstValue { ignore_nulls })?,
            "last_value" | "last" => plain(Function::LastValue { ignore_nulls })?,
            "first_n" => Function::FirstN(number(MOST_N, "the number of values")?),
            "last_n" => Function::LastN(number(MOST_N, "the number of values")?),
            "min_by" | "arg_min" => wants(2).map(|()| Function::MinBy)?,
            "max_by" | "arg_max" => wants(2).map(|()| Function::MaxBy)?,
            "top_k" => Function::TopK(number(MOST_K, "the number of values")?),
            _ => {
                return Err(Error::invalid(format!("{name}() cannot be computed over a window as of an instant"))
                    .with_hint(format!("these can: {}, each with FILTER (WHERE …)", KNOWN.join(", "))));
            }
        };
        if distinct && f != Function::CountDistinct && !matches!(f, Function::Min | Function::Max) {
            return Err(Error::invalid(format!("{name}(DISTINCT …) cannot be computed over a window")).with_hint("count(DISTINCT x) can"));
        }
        if ignore_nulls && !matches!(f, Function::FirstValue { .. } | Function::LastValue { .. }) {
            return Err(Error::invalid(format!("IGNORE NULLS has no meaning for {name}()")).with_hint("write FILTER (WHERE x IS NOT NULL)"));
        }
        Ok(f)
    }

    /// The type of its values.
    pub fn result_type(&self, args: &[DataType]) -> Result<DataType> {
        let first = args.first().unwrap_or(&DataType::Null);
        if let Some(t) = args.iter().find(|t| !is_plain(t)) {
            return Err(Error::invalid(format!(
                "{}() over a window cannot take values of type {}",
                self.name(),
                crate::error::in_sql(&t.to_string())
            ))
            .with_hint("take a number, a text, bytes, a BOOLEAN, a DATE or a TIMESTAMP out of it, as with v.field or CAST(… AS VARCHAR)"));
        }
        let numeric = || {
            let is_number = first.is_signed_integer() || first.is_floating() || matches!(first, DataType::Decimal128(..));
            let what = crate::error::in_sql(&first.to_string());
            match is_number {
                true => Ok(()),
                false => Err(Error::invalid(format!("{}() wants numbers, and its argument is {what}", self.name()))
                    .with_hint("write CAST(… AS DOUBLE), or count(DISTINCT …) for texts")),
            }
        };
        let list = || DataType::List(Arc::new(Field::new("element", first.clone(), true)));
        Ok(match self {
            Function::CountAll | Function::Count | Function::CountDistinct => DataType::Int64,
            Function::Sum => {
                numeric()?;
                match first {
                    DataType::Decimal128(p, s) => DataType::Decimal128((*p + 10).min(38), *s),
                    t if t.is_floating() => DataType::Float64,
                    _ => DataType::Int64,
                }
            }
            Function::Avg | Function::VarPop | Function::VarSamp | Function::StddevPop | Function::StddevSamp => {
                numeric()?;
                DataType::Float64
            }
            Function::BoolAnd | Function::BoolOr if *first != DataType::Boolean => {
                return Err(Error::invalid(format!("{}() wants a condition", self.name())).with_hint("write bool_or(amount > 10)"));
            }
            Function::FirstN(_) | Function::LastN(_) | Function::TopK(_) => list(),
            _ => first.clone(),
        })
    }

    /// Its value over no events is 0; of all others it is NULL.
    pub fn counts(&self) -> bool {
        matches!(self, Function::CountAll | Function::Count | Function::CountDistinct)
    }

    /// A number of different values is kept, which may be too large for a record.
    pub fn keeps_values(&self) -> bool {
        matches!(self, Function::CountDistinct | Function::TopK(_))
    }

    pub fn name(&self) -> &'static str {
        match self {
            Function::CountAll | Function::Count | Function::CountDistinct => "count",
            Function::Sum => "sum",
            Function::Avg => "avg",
            Function::Min => "min",
            Function::Max => "max",
            Function::VarPop => "var_pop",
            Function::VarSamp => "var_samp",
            Function::StddevPop => "stddev_pop",
            Function::StddevSamp => "stddev_samp",
            Function::BoolAnd => "bool_and",
            Function::BoolOr => "bool_or",
            Function::FirstValue { .. } => "first_value",
            Function::LastValue { .. } => "last_value",
            Function::FirstN(_) => "first_n",
            Function::LastN(_) => "last_n",
            Function::MinBy => "min_by",
            Function::MaxBy => "max_by",
            Function::TopK(_) => "top_k",
        }
    }
}
