//! Rows of a statement that cannot be feature rows: how many, which columns are at fault, and what some of them look like.

use crate::error::Error;
use crate::model::FeatureView;

/// So many are shown.
const EXAMPLES: usize = 3;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejected {
    pub rows: u64,
    /// A row may have several.
    reasons: Vec<(String, u64)>,
    /// The reasons and the columns of the first rows.
    examples: Vec<(String, String)>,
}

impl Rejected {
    pub fn add(&mut self, reasons: Vec<String>, row: impl FnOnce() -> String) {
        self.rows += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push((reasons.join(" and "), row()));
        }
        for reason in reasons {
            match self.reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, count)) => *count += 1,
                None => self.reasons.push((reason, 1)),
            }
        }
    }

    /// What is said to whoever brought the rows; `None`: all were taken.
    pub fn notice(&self, view: &FeatureView) -> Option<String> {
        if self.rows == 0 {
            return None;
        }
        let counts: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{reason} ({count})")).collect();
        let rows: Vec<String> = self.examples.iter().map(|(_, row)| format!("({row})")).collect();
        Some(format!("feature view {}: {} row(s) rejected: {}; such as {}", view.name, self.rows, counts.join(", "), rows.join(", ")))
    }

    /// The error of a statement whose rows are all rejected.
    pub fn all(&self, view: &FeatureView) -> Error {
        let what = if self.rows == 1 { "the row is rejected".to_string() } else { format!("all {} rows are rejected", self.rows) };
        let first: Vec<String> = self.examples.iter().map(|(reasons, row)| format!("{reasons} in ({row})")).collect();
        Error::invalid(format!("feature view {}: {what}: {}", view.name, first.join("; ")))
            .with_hint("nothing was stored: a row has its whole key and an event timestamp that is not in the future")
    }
}
