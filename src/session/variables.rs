//! What lasts for a session: its schema, and the settings that a user has changed.

use std::sync::Arc;

use datafusion::common::config::ConfigNonZeroUsize;
use datafusion::execution::session_state::SessionState;

use super::Session;
use super::time_limit::{TIMEOUT, TimeLimit, timeout};
use crate::error::{Error, Result};
use crate::operator::pit_join::{PitJoinOptions, PitStrategy};
use crate::plan::command::Command;
use crate::resolve::system;

/// The setting that says how point-in-time joins go about it.
const STRATEGY: &str = "pit_join_strategy";
const PARTS: &str = "pit_join_parts";
/// Each part reads its own row groups and has its own share of memory: more than a machine has processors only cost.
const MAX_PARTS: usize = 256;

impl Session {
    /// What SET or the setting allows a statement that begins now.
    pub(super) fn time_limit(&self) -> TimeLimit {
        let set = self.own.variables.read().get(TIMEOUT).and_then(|v| timeout(v).ok());
        TimeLimit::begin(set.unwrap_or(self.engine.config().statement_timeout))
    }

    pub fn current_schema(&self) -> String {
        self.own.schema.read().clone()
    }

    /// `USE`, for clients that set it as an option.
    pub async fn set_current_schema(&self, schema: &str) -> Result<()> {
        self.services().registry.snapshot().await?.schema(schema)?;
        *self.own.schema.write() = schema.to_string();
        Ok(())
    }

    /// USE, SET, RESET: what lasts for the session.
    pub(super) fn change(&self, command: &Command) -> Result<()> {
        match command {
            Command::Use { schema } => *self.own.schema.write() = schema.clone(),
            Command::Set { variable, value } if variable == "schema" => {
                self.services().registry.cached().schema(value)?;
                *self.own.schema.write() = value.clone();
            }
            Command::Set { variable, value } if variable == STRATEGY => {
                let strategy: PitStrategy = value.parse().map_err(|e| Error::invalid(format!("{variable} {e}, not {value:?}")))?;
                self.own.variables.write().insert(variable.clone(), strategy.to_string());
            }
            Command::Set { variable, value } if variable == TIMEOUT => {
                timeout(value).map_err(|e| Error::invalid(format!("{variable} {e}, not {value:?}")))?;
                self.own.variables.write().insert(variable.clone(), value.clone());
            }
            Command::Set { variable, value } if variable == PARTS && !value.parse().is_ok_and(|n| (1..=MAX_PARTS).contains(&n)) => {
                return Err(Error::invalid(format!("{variable} wants a whole number from 1 to {MAX_PARTS}, not {value:?}")));
            }
            Command::Set { variable, value } => {
                if !value.parse::<usize>().is_ok_and(|n| n > 0) {
                    return Err(Error::invalid(format!("{variable} wants a whole number greater than 0, not {value:?}")));
                }
                self.own.variables.write().insert(variable.clone(), value.clone());
            }
            Command::Reset { variable } if variable == "schema" => *self.own.schema.write() = self.engine.config().schema.clone(),
            Command::Reset { variable } => {
                self.own.variables.write().remove(variable);
            }
            other => return Err(Error::internal(format!("{} is no session command", other.describe()))),
        }
        Ok(())
    }

    pub(super) fn apply_variables(&self, state: &mut SessionState) {
        let variables = self.own.variables.read();
        state.config_mut().set_extension(Arc::new(system::Variables(variables.clone())));
        let strategy = variables.get(STRATEGY).and_then(|v| v.parse().ok()).unwrap_or_default();
        let number = |n: &str| variables.get(n).and_then(|v| v.parse::<usize>().ok());
        let parts = number(PARTS).unwrap_or(1).clamp(1, MAX_PARTS);
        PitJoinOptions { strategy, parts, ..PitJoinOptions::default() }.put_into(state.config_mut());
        let options = state.config_mut().options_mut();
        if let Some(n) = number("batch_size").and_then(|n| ConfigNonZeroUsize::try_new(n).ok()) {
            options.execution.batch_size = n;
        }
        if let Some(n) = number("threads").filter(|n| *n > 0) {
            options.execution.target_partitions = n;
        }
    }
}
