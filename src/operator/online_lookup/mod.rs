//! ONLINE_LOOKUP as an operator: one batched read of the online store per batch of requests.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::{Clock, Micros};
use crate::config::OnlineSettings;
use crate::error::Result;
use crate::model::codec::row_schema;
use crate::model::{Column, FeatureView};
use crate::store::online::{OnlineStore, OnlineView};

mod exec;
mod planner;
mod stream;
#[cfg(test)]
mod tests;
mod windows;

pub use exec::OnlineLookupExec;
pub use planner::OnlineLookupPlanner;
pub use stream::never_online;
pub use windows::arguments_schema;

/// What a lookup needs from the process it runs in; found in the session's extensions as a
/// [`LookupHandle`].
#[async_trait]
pub trait LookupContext: Send + Sync + Debug {
    fn store(&self) -> Arc<dyn OnlineStore>;
    fn clock(&self) -> Clock;
    fn settings(&self) -> OnlineSettings;
    fn online_view(&self, view: &FeatureView) -> OnlineView;

    /// Whether the view's table has no rows: of a push view nothing needed to be materialized then.
    async fn table_is_empty(&self, view: &FeatureView) -> Result<bool>;

    /// Whether the bare name means this version of its view.
    async fn is_current(&self, _view: &FeatureView) -> Result<bool> {
        Ok(true)
    }

    /// Every schema that stored rows of the view may have.
    fn row_schemas(&self, view: &FeatureView) -> Vec<(u32, Vec<Column>)> {
        vec![row_schema(view)]
    }
}

/// The form in which a [`LookupContext`] travels: `SessionConfig::with_extension(Arc::new(LookupHandle(…)))`.
#[derive(Debug, Clone)]
pub struct LookupHandle(pub Arc<dyn LookupContext>);

/// The instant at which a lookup judges its rows where its plan leaves that open; an extension of the task.
#[derive(Debug, Clone, Copy)]
pub struct LookupInstant(pub Micros);
