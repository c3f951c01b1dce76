//! A join condition that looks whether its statement is still wanted each time that it is evaluated.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::BooleanArray;
use datafusion::arrow::datatypes::{FieldRef, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use parking_lot::Mutex;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::cancel::Cancel;
use crate::clock::stopwatch;
use crate::error::Error;

/// So long a condition is evaluated before other tasks of its thread are handed to another one.
const TURN: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Watched {
    condition: Arc<dyn PhysicalExpr>,
    cancel: Cancel,
    /// When the other tasks of the thread had their last turn.
    turn: Mutex<Instant>,
}

impl Watched {
    pub fn new(condition: Arc<dyn PhysicalExpr>, cancel: Cancel) -> Self {
        Watched { condition, cancel, turn: Mutex::new(stopwatch()) }
    }

    /// The tasks that wait for this thread go on elsewhere: the join may not wait for anything for minutes.
    fn let_others_run(&self) {
        let mut turn = self.turn.lock();
        if turn.elapsed() < TURN {
            return;
        }
        *turn = stopwatch();
        drop(turn);
        if Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread) {
            tokio::task::block_in_place(|| {});
        }
    }
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        self.condition.eq(&other.condition)
    }
}

impl Eq for Watched {}

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)
    }
}

impl PhysicalExpr for Watched {
    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.condition.return_field(schema)
    }
    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.cancel.check()?;
        self.let_others_run();
        self.condition.evaluate(batch)
    }
    fn evaluate_selection(&self, batch: &RecordBatch, selection: &BooleanArray) -> Result<ColumnarValue> {
        self.cancel.check()?;
        self.condition.evaluate_selection(batch, selection)
    }
    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.condition]
    }
    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match (children.pop(), children.is_empty()) {
            (Some(condition), true) => Ok(Arc::new(Watched::new(condition, self.cancel.clone()))),
            _ => Err(Error::internal("a watched condition has one child").into()),
        }
    }
    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(f)
    }
}
