//! A windowed feature view as the registry stores it: its table holds events, its features are expressions over
//! aggregates of the events in windows (sql/README.md, "Windows").

use serde::{Deserialize, Serialize};

use super::Column;
use super::types::ColumnType;
use super::window::{Aggregate, Window, longest};
use crate::clock::Micros;

/// Names of the columns that hold the aggregates' values begin like this; a number follows.
const SLOT: &str = "_remige_w";

/// `view$events` is the table of a windowed view.
pub const EVENTS: &str = "$events";

/// The column of the aggregate with this number.
pub fn slot_name(number: usize) -> String {
    format!("{SLOT}{number}")
}

/// What a windowed view computes, and from what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Windowed {
    /// What the table holds of each event behind keys and timestamps: the arguments and filters of the aggregates, of a
    /// push view the pushed columns.
    pub columns: Vec<Column>,
    /// Arguments and filters of a push view, computed from the pushed columns when events are read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub computed: Vec<Computed>,
    /// Which pushed rows are events, in SQL over the pushed columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Its events come by INSERT.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pushed: bool,
    pub slots: Vec<Slot>,
    /// Of each feature of the view, in their order: SQL over `slot_name(0)`, …
    pub outputs: Vec<String>,
}

/// One aggregate over a window.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Slot {
    #[serde(flatten)]
    pub aggregate: Aggregate,
    #[serde(rename = "type")]
    pub data_type: ColumnType,
}

/// A value of an event in SQL over what is stored of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Computed {
    pub name: String,
    pub expr: String,
    #[serde(rename = "type")]
    pub data_type: ColumnType,
}

impl Windowed {
    /// The window that reaches back furthest: its newest event is the one whose timestamp an item has.
    pub fn longest(&self) -> Option<&Window> {
        longest(self.slots.iter().map(|s| &s.aggregate.window))
    }

    /// From when on no window holds an event any more, counted from its instant; `None`: one holds it for ever.
    pub fn reach(&self) -> Option<Micros> {
        self.slots.iter().map(|s| s.aggregate.window.reach()).try_fold(0, |most: Micros, r| r.map(|r| most.max(r)))
    }

    /// The aggregates that a feature is made of: indices into `slots`.
    pub fn slots_of(&self, feature: usize) -> Vec<usize> {
        let text = self.outputs.get(feature).map(String::as_str).unwrap_or_default();
        (0..self.slots.len()).filter(|i| text.contains(&format!("\"{}\"", slot_name(*i)))).collect()
    }

    /// The windows of a feature in words.
    pub fn describe(&self, feature: usize) -> String {
        let mut out: Vec<String> = vec![];
        for slot in self.slots_of(feature).into_iter().filter_map(|i| self.slots.get(i)) {
            let w = &slot.aggregate.window;
            let delay = match (w.excludes_current, w.delay) {
                (true, _) => ", events at the instant itself left out".to_string(),
                (_, 0) => String::new(),
                (_, d) => format!(", {} before the instant", super::window::shown(d)),
            };
            let one = format!("{}{delay}", w.exactness());
            if !out.contains(&one) {
                out.push(one);
            }
        }
        out.join("; ")
    }

    /// The columns that aggregates read: computed ones, or those that are stored.
    pub fn argument_columns(&self) -> Vec<Column> {
        match self.pushed {
            false => self.columns.clone(),
            true => self.computed.iter().map(|c| Column { name: c.name.clone(), data_type: c.data_type.clone() }).collect(),
        }
    }

    /// Names of the columns that some aggregates read, each once, in the order of `argument_columns`.
    pub fn arguments_of(&self, slots: &[usize]) -> Vec<Column> {
        let reads = |c: &Column| {
            slots.iter().filter_map(|s| self.slots.get(*s)).any(|s| {
                let a = &s.aggregate;
                a.args.iter().chain(&a.filter).any(|name| *name == c.name)
            })
        };
        self.argument_columns().into_iter().filter(reads).collect()
    }
}
