use super::Scan;
use super::declare::system_table;
use super::values::int;
use crate::catalog::Run;
use crate::error::Result;

system_table! {
    /// Runs of REFRESH, MATERIALIZE, OPTIMIZE and VACUUM, the newest first.
    runs {
        /// Its id, which is in the metadata of its commit too.
        run_id: Text not null,
        /// `refresh`, `materialize`, `optimize`, `vacuum`.
        kind: Text not null,
        /// What it worked on: `schema.name`.
        object: Text not null,
        /// Version of the feature view.
        version: Short,
        /// When it began.
        started_at: Time not null,
        /// When it ended; NULL while it runs.
        finished_at: Time,
        /// `running`, `succeeded`, `failed` or `cancelled`.
        status: Text not null,
        /// Rows that were read.
        rows_read: Int not null,
        /// Rows that were written.
        rows_written: Int not null,
        /// Rows that were there already.
        rows_skipped: Int not null,
        /// Rows that could not be stored.
        rows_rejected: Int not null,
        /// Bytes that were written.
        bytes_written: Int not null,
        /// Version of the Delta table afterwards.
        delta_version: Int,
        /// Why it failed.
        error: Text,
    }
}

async fn rows(scan: &Scan, _: Wanted) -> Result<Vec<Row>> {
    let found = scan.services.runs.matching(scan.filter.as_ref()).await?;
    Ok(found.runs.into_iter().map(row).collect())
}

fn row(r: Run) -> Row {
    Row {
        run_id: Some(r.run_id),
        kind: Some(r.kind),
        object: Some(r.object),
        version: r.version.and_then(|v| i32::try_from(v).ok()),
        started_at: Some(r.started_at),
        finished_at: r.finished_at,
        status: Some(r.status.as_str().to_string()),
        rows_read: int(r.rows_read),
        rows_written: int(r.rows_written),
        rows_skipped: int(r.rows_skipped),
        rows_rejected: int(r.rows_rejected),
        bytes_written: int(r.bytes_written),
        delta_version: r.delta_version.and_then(int),
        error: r.error,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_columns_are_those_that_runs_answer() {
        assert_eq!(super::TABLE.schema(), crate::catalog::Runs::schema());
    }
}
