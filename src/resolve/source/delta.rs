//! Delta tables of others.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use futures::future::BoxFuture;

use super::kind::Source;
use super::options::Options;
use crate::error::Result;
use crate::model::{Table, Travel};
use crate::services::Services;
use crate::store::offline::{ForeignTable, open_foreign_delta};

pub const SOURCE: &dyn Source = &Delta;

struct Delta;

impl Source for Delta {
    fn open<'a>(&'a self, _services: &'a Services, t: &'a Table) -> BoxFuture<'a, Result<Arc<dyn TableProvider>>> {
        Box::pin(async move {
            Options(t).check()?;
            Ok(self.open_at(t, None, None).await?.provider)
        })
    }

    fn open_at<'a>(&'a self, t: &'a Table, travel: Option<Travel>, pin: Option<u64>) -> BoxFuture<'a, Result<ForeignTable>> {
        let (version, at) = match travel {
            Some(Travel::Version(v)) => (Some(v), None),
            Some(Travel::Instant(i)) => (None, Some(i)),
            None => (pin, None),
        };
        Box::pin(open_foreign_delta(&t.location, version, at))
    }
}
