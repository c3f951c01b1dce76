//! A value that is none of the wanted type, in words.

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use super::is_text;
use crate::model::types::ColumnType;

/// How much of a value an error shows.
const SHOWN: usize = 80;

/// A value that would be another one as the wanted type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Where it is.
    pub row: usize,
    shown: String,
    text: bool,
    have: DataType,
    /// Of the value: inside of a list or struct the element's, the field's.
    want: DataType,
    /// Of the column.
    whole: DataType,
    why: Why,
}

/// What a cast would do to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// Cut digits off.
    Fraction,
    /// Cut the time of day off.
    Time,
    /// Cut off what is finer than a microsecond.
    Finer,
    /// It is too great or too small.
    Range,
    /// A text that says no such value.
    Text,
    /// The two types have nothing in common.
    Kind,
    /// A field of a struct that the wanted one has not.
    Field,
}

impl Misfit {
    pub(super) fn new(values: &ArrayRef, row: usize, want: &DataType, why: Why) -> Self {
        let have = values.data_type().clone();
        Misfit { row, shown: shown(values, row), text: is_text(&have), have, want: want.clone(), whole: want.clone(), why }
    }

    /// A field that would be lost.
    pub(super) fn field(name: &str, row: usize, have: &DataType, want: &DataType) -> Self {
        let shown = format!("field {name:?}");
        Misfit { row, shown, text: false, have: have.clone(), want: want.clone(), whole: want.clone(), why: Why::Field }
    }

    /// The same, seen from the list or struct that holds it.
    pub(super) fn inside(self, row: usize, whole: &DataType) -> Self {
        Misfit { row, whole: whole.clone(), ..self }
    }

    /// `1.7 is no BIGINT`
    pub fn message(&self) -> String {
        match self.why {
            Why::Field => format!("{} is not in {}", self.shown, name(&self.want)),
            _ if self.text => format!("{:?} is no {}", self.shown, name(&self.want)),
            _ => format!("{} is no {}", self.shown, name(&self.want)),
        }
    }

    /// `1.7 (Float64) is no BIGINT`
    pub(super) fn with_type(&self) -> String {
        match self.why {
            Why::Field => self.message(),
            _ if self.text => self.message(),
            _ => format!("{} ({}) is no {}", self.shown, self.have, name(&self.want)),
        }
    }

    /// What to write, where the change is meant.
    pub fn hint(&self) -> String {
        let whole = name(&self.whole);
        match self.why {
            Why::Fraction => format!("write CAST(… AS {whole}) where the fraction may be lost"),
            Why::Time => format!("write CAST(… AS {whole}) where the time of day may be lost"),
            Why::Finer => "write date_trunc('microsecond', …) where what is finer may be lost".into(),
            Why::Range => format!("{} cannot hold it: leave the row out, or declare a wider type", name(&self.want)),
            Why::Text => format!("write TRY_CAST(… AS {whole}) where such texts may become NULL"),
            Why::Kind => format!("bring values of type {whole}, or write CAST(… AS {whole}) where that is what is meant"),
            Why::Field => format!("bring values of type {whole}"),
        }
    }
}

/// A value as text; a NULL as `NULL`.
pub fn shown(values: &dyn Array, row: usize) -> String {
    if values.is_null(row) {
        return "NULL".into();
    }
    let shown = ArrayFormatter::try_new(values, &FormatOptions::default()).map(|f| f.value(row).to_string());
    let shown = shown.unwrap_or_else(|_| format!("a value of type {}", values.data_type()));
    match shown.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

/// As SQL writes it.
pub(super) fn name(t: &DataType) -> String {
    ColumnType::stored(t).map_or_else(|_| t.to_string(), |t| t.to_string())
}
