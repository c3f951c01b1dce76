//! Requests to object stores, noted as waits of the statement that made them: a slow store is no stalled statement
//! (`services::stall`).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::common::Result as DfResult;
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use url::Url;

use super::offline::bucket;
use crate::activity::waiting;

/// The stores that plans read from and write to.
#[derive(Debug, Default)]
pub struct WatchedStores(DefaultObjectStoreRegistry);

impl ObjectStoreRegistry for WatchedStores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.0.register_store(url, store)
    }

    fn deregister_store(&self, url: &Url) -> DfResult<Arc<dyn ObjectStore>> {
        self.0.deregister_store(url)
    }

    /// A bucket that nobody has named yet is opened with the settings of the environment (AWS_…, GOOGLE_…, AZURE_…).
    fn get_store(&self, url: &Url) -> DfResult<Arc<dyn ObjectStore>> {
        let unknown = match self.0.get_store(url) {
            Ok(known) => return Ok(Arc::new(Watched(known))),
            Err(e) => e,
        };
        let mut root = url.clone();
        root.set_path("");
        let Some(store) = bucket(&root)? else { return Err(unknown) };
        self.0.register_store(&root, Arc::clone(&store));
        Ok(Arc::new(Watched(store)))
    }
}

#[derive(Debug)]
struct Watched(Arc<dyn ObjectStore>);

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Every answer of a stream is a wait of its own.
fn watched<T: 'static>(mut stream: BoxStream<'static, T>) -> BoxStream<'static, T> {
    let mut wait = None;
    futures::stream::poll_fn(move |cx| {
        if wait.is_none() {
            wait = waiting();
        }
        let polled = stream.poll_next_unpin(cx);
        if polled.is_ready() {
            wait = None;
        }
        polled
    })
    .boxed()
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let _wait = waiting();
        self.0.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let _wait = waiting();
        Ok(Box::new(WatchedUpload(self.0.put_multipart_opts(location, opts).await?)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let _wait = waiting();
        let mut got = self.0.get_opts(location, options).await?;
        // an open file stays one: readers treat it specially
        if let GetResultPayload::Stream(s) = got.payload {
            got.payload = GetResultPayload::Stream(watched(s));
        }
        Ok(got)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let _wait = waiting();
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        watched(self.0.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        watched(self.0.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        watched(self.0.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let _wait = waiting();
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let _wait = waiting();
        self.0.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let _wait = waiting();
        self.0.rename_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct WatchedUpload(Box<dyn MultipartUpload>);

#[async_trait]
impl MultipartUpload for WatchedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let wait = waiting();
        let part = self.0.put_part(data);
        async move {
            let _wait = wait;
            part.await
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let _wait = waiting();
        self.0.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        let _wait = waiting();
        self.0.abort().await
    }
}
