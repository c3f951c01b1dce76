//! Bulk ingest: rows stream into a table or push view, one atomic commit per call.

use arrow_flight::sql::{CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption};
use tonic::Status;

use super::admission::Place;
use super::messages::Messages;
use super::sessions::Caller;
use super::statement::{caught, no_transaction};
use super::{CATALOG, Shared, decode};
use crate::clock;
use crate::error::{Error, Result};
use crate::session::IngestMode;
use crate::telemetry;

impl Shared {
    pub(super) async fn ingest(&self, command: CommandStatementIngest, caller: Caller, messages: Messages) -> Result<i64, Status> {
        no_transaction(command.transaction_id.as_ref())?;
        let mode = mode(command.table_definition_options.as_ref())?;
        check_target(&command)?;
        let session = self.sessions.session(&caller)?;
        let since = clock::stopwatch();
        let place = Place::of(&self.admission);
        let rows = decode::rows(messages, self.room(), place.clone()).await?;
        let schema = command.schema.as_deref().filter(|s| !s.is_empty());
        let done = tokio::select! {
            done = caught(session.ingest(schema, &command.table, mode, rows)) => done,
            () = self.stop.cancelled() => Err(Error::unavailable("the server is shutting down; nothing was stored")),
        };
        place.give_back();
        let outcome = if done.is_ok() { "ok" } else { "error" };
        let seconds = since.elapsed().as_secs_f64();
        metrics::counter!(telemetry::STATEMENTS, "kind" => "ingest", "outcome" => outcome).increment(1);
        metrics::histogram!(telemetry::STATEMENT_SECONDS, "kind" => "ingest").record(seconds);
        tracing::info!(kind = "ingest", outcome, seconds, table = command.table, "statement");
        Ok(i64::try_from(done?).unwrap_or(i64::MAX))
    }
}

fn check_target(command: &CommandStatementIngest) -> Result<()> {
    if command.temporary {
        return Err(Error::invalid(format!("{:?}: temporary tables are not supported", command.table))
            .with_hint("ingest into a table and DROP it afterwards"));
    }
    match command.catalog.as_deref() {
        None | Some("" | CATALOG) => Ok(()),
        Some(other) => {
            Err(Error::not_found(format!("catalog {other:?} does not exist")).with_hint(format!("the only catalog is {CATALOG:?}")))
        }
    }
}

fn mode(options: Option<&TableDefinitionOptions>) -> Result<IngestMode> {
    let (missing, exists) = options.map_or((TableNotExistOption::Unspecified, TableExistsOption::Unspecified), |o| {
        (
            TableNotExistOption::try_from(o.if_not_exist).unwrap_or(TableNotExistOption::Unspecified),
            TableExistsOption::try_from(o.if_exists).unwrap_or(TableExistsOption::Unspecified),
        )
    });
    match (missing, exists) {
        (TableNotExistOption::Create, TableExistsOption::Fail) => Ok(IngestMode::Create),
        (TableNotExistOption::Fail, TableExistsOption::Append) => Ok(IngestMode::Append),
        (TableNotExistOption::Create, TableExistsOption::Replace) => Ok(IngestMode::Replace),
        (TableNotExistOption::Create, TableExistsOption::Append) => Ok(IngestMode::CreateOrAppend),
        _ => Err(Error::invalid(format!("bulk ingest cannot do if_not_exist {missing:?} with if_exists {exists:?}"))
            .with_hint("use mode create, append, replace or create_append")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_modes_and_no_other() {
        let options = |a, b| TableDefinitionOptions { if_not_exist: a, if_exists: b };
        for (a, b, want) in
            [(1, 1, IngestMode::Create), (2, 2, IngestMode::Append), (1, 3, IngestMode::Replace), (1, 2, IngestMode::CreateOrAppend)]
        {
            assert_eq!(mode(Some(&options(a, b))).unwrap(), want);
        }
        for (a, b) in [(0, 0), (2, 1), (2, 3), (0, 2), (9, 9)] {
            assert!(mode(Some(&options(a, b))).is_err(), "{a} {b}");
        }
        assert!(mode(None).unwrap_err().to_string().contains("create_append"));
    }

    #[test]
    fn only_real_tables_of_our_catalog() {
        let target = |catalog: Option<&str>, temporary| CommandStatementIngest {
            table: "t".into(),
            catalog: catalog.map(str::to_string),
            temporary,
            ..Default::default()
        };
        assert!(check_target(&target(None, false)).is_ok() && check_target(&target(Some(CATALOG), false)).is_ok());
        assert!(check_target(&target(Some("other"), false)).is_err() && check_target(&target(None, true)).is_err());
    }
}
