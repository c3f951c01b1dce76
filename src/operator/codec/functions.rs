//! Functions that no session has registered, because only a rule of planning puts them into plans.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::logical_expr::ScalarUDF;

use super::damaged;
use crate::error::Error;
use crate::plan::{checked, interval_times, lengths, whole_micros};

/// Nothing where the name says all.
pub fn write(function: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
    if let Some(operator) = checked::operator(function) {
        serde_json::to_writer(buf, &operator).map_err(|e| damaged(&e))?;
    }
    Ok(())
}

/// The function of this name, or of these bytes. Asked where the session has none of the name.
pub fn read(name: &str, buf: &[u8]) -> Result<Arc<ScalarUDF>> {
    if !buf.is_empty() {
        let operator = serde_json::from_slice(buf).map_err(|e| damaged(&e))?;
        return Ok(Arc::new(checked::function(operator)));
    }
    let mut all = whole_micros::functions().into_iter().chain([lengths::function()]).chain(interval_times::functions());
    let known = all.find(|f| f.name() == name);
    known.ok_or_else(|| {
        let missing = format!("the function {name} of a plan from another machine is not known here");
        Error::invalid(missing).with_hint("run the same version of Remige on every machine").into()
    })
}
