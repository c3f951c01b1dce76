//! Files that are to be committed long after they were written: VACUUM may take them for what a dead writer left.

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use tokio::io::AsyncWriteExt;

use super::commit::Commit;
use super::vacuum::STRAY_AGE;
use super::warehouse::{OfflineStore, table_path};
use super::writer::NewFile;
use crate::clock::Micros;
use crate::error::{Error, Result};

/// No VACUUM takes a younger file for a stray, even where clocks differ by hours, nor one that it began to look
/// at just before it is committed.
const SURE_FOR: Micros = STRAY_AGE / 2;

/// Old files and what took their place in a commit.
#[derive(Debug, Default)]
pub(super) struct Copies {
    pub old: Vec<NewFile>,
    pub new: Vec<NewFile>,
}

impl OfflineStore {
    /// Makes sure that the new files of a commit are there and stay. To look is not enough where no run speaks for
    /// them: a VACUUM may have put them on its list already. Copies under new names are on nobody's list.
    pub(super) async fn renew_late_files(&self, location: &str, commit: &mut Commit) -> Result<Copies> {
        let mut copies = Copies::default();
        let done = self.renew_each(location, commit, &mut copies).await;
        if let Err(e) = done {
            self.discard(location, &copies.new).await;
            return Err(e);
        }
        Ok(copies)
    }

    async fn renew_each(&self, location: &str, commit: &mut Commit, copies: &mut Copies) -> Result<()> {
        let is_old = |f: &NewFile| self.clock().now().saturating_sub(f.written) > SURE_FOR;
        for file in commit.adds.iter_mut().filter(|f| is_old(f)) {
            if !commit.exposed {
                let found = self.files().head(&table_path(&format!("{location}/{}", file.path))?).await;
                found.map_err(|e| gone(location, file, e))?;
                continue;
            }
            let new = self.copied(location, file).await?;
            copies.new.push(new.clone());
            copies.old.push(std::mem::replace(file, new));
        }
        if commit.exposed && commit.adds.iter().any(is_old) {
            return Err(Error::unavailable(format!("table {location:?}: the files of this commit could not be copied in time"))
                .with_hint("nothing was stored; store the rows in several statements"));
        }
        Ok(())
    }

    async fn copied(&self, location: &str, file: &NewFile) -> Result<NewFile> {
        let new = file.renamed(self.clock().now());
        let path = |f: &NewFile| table_path(&format!("{location}/{}", f.path));
        let read = self.files().get(&path(file)?).await.map_err(|e| gone(location, file, e))?;
        let mut sink = BufWriter::new(std::sync::Arc::clone(self.files()), path(&new)?);
        let copy = async {
            let mut bytes = read.into_stream();
            while let Some(part) = bytes.try_next().await.map_err(|e| gone(location, file, e))? {
                sink.put(part).await?;
            }
            sink.shutdown().await.map_err(Error::from)
        };
        if let Err(e) = copy.await {
            let _ = sink.abort().await;
            return Err(e.context(format!("table {location:?}")));
        }
        Ok(new)
    }
}

fn gone(location: &str, file: &NewFile, e: object_store::Error) -> Error {
    match e {
        object_store::Error::NotFound { .. } => Error::unavailable(format!(
            "table {location:?}: {} is gone before it could be committed: the statement took so long that a VACUUM removed its files",
            file.path
        ))
        .with_hint("nothing was stored; run the statement again, in parts if it takes days"),
        e => Error::from(e).context(format!("table {location:?}")),
    }
}
