//! Rows on their way into a feature table: conformed and numbered while they stream.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use super::conform::{Conform, Counts};
use super::write::{Sequence, stream_of, with_seq};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Conforms a stream, numbers it where asked to, and keeps the counts where the caller finds them.
pub fn prepare(
    mut input: SendableRecordBatchStream,
    mut conform: Conform,
    mut number: Option<Sequence>,
    counted: Arc<parking_lot::Mutex<Counts>>,
    progress: crate::progress::Task,
) -> SendableRecordBatchStream {
    let visible = conform.schema();
    let schema = if number.is_some() { with_seq(&visible) } else { visible };
    let out = Arc::clone(&schema);
    async_stream(out, async move |emit: Emit| {
        while let Some(batch) = input.next().await {
            let batch = conform.batch(&batch?)?;
            *counted.lock() = conform.counts.clone();
            progress.advance(batch.num_rows() as u64);
            if batch.num_rows() > 0 {
                let batch = match &mut number {
                    Some(n) => n.add(&batch, &schema)?,
                    None => batch,
                };
                if emit.send(Ok(batch)).await.is_err() {
                    break;
                }
            }
        }
        progress.finish();
        Ok(())
    })
}

/// Adds `_seq` in the order of the stream.
pub fn number(mut input: SendableRecordBatchStream, mut seq: Sequence) -> SendableRecordBatchStream {
    let schema = with_seq(&input.schema());
    let out = Arc::clone(&schema);
    async_stream(out, async move |emit: Emit| {
        while let Some(batch) = input.next().await {
            if emit.send(seq.add(&batch?, &schema)).await.is_err() {
                break;
            }
        }
        Ok(())
    })
}

type Emit = tokio::sync::mpsc::Sender<Result<RecordBatch>>;

/// A stream made by a task that is ended with it.
fn async_stream<F, Fut>(schema: datafusion::arrow::datatypes::SchemaRef, body: F) -> SendableRecordBatchStream
where
    F: FnOnce(Emit) -> Fut + Send + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let (tx, rx) = tokio::sync::mpsc::channel::<Result<RecordBatch>>(2);
    let failed = tx.clone();
    let mut task = tokio::task::JoinSet::new();
    let work = async move {
        if let Err(e) = body(tx).await {
            let _ = failed.send(Err(e)).await;
        }
    };
    match Cancel::current() {
        Some(cancel) => task.spawn(cancel.scope(work)),
        None => task.spawn(work),
    };
    // a task that broke off has not come to its end: what it gave is a part, and must not be stored as the whole
    let s = futures::stream::unfold((rx, task), |(mut rx, mut task)| async move {
        if let Some(batch) = rx.recv().await {
            return Some((batch, (rx, task)));
        }
        let ended = task.join_next().await?;
        ended.err().map(|e| (Err(Error::internal(format!("the rows of a statement broke off: {e}"))), (rx, task)))
    });
    stream_of(schema, s)
}
