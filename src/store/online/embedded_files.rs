//! Files of the embedded store: generations, the CURRENT pointer, the write lock.
//!
//! ```text
//! <warehouse>/_online/<view>/CURRENT          the pointer, JSON, replaced by rename
//!                            NEXT             number of the next generation
//!                            <generation>.redb
//!                            writer.lock      flock of the writing process, holds its process id
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{Builder, ConcurrencyMode, Database, DatabaseError, ReadOnlyDatabase, StorageError};

use super::Pointer;
use crate::clock::stopwatch;
use crate::error::{Error, Result};

const PAUSE: Duration = Duration::from_millis(5);

/// An error that names the file it happened to.
pub(super) fn at(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |e| Error::from(e).context(format!("online store file {}", path.display()))
}

/// The write lock of one view across processes; released when dropped or when the process ends.
#[derive(Debug)]
pub(super) struct FileLock(#[allow(dead_code)] File);

impl FileLock {
    pub fn acquire(dir: &Path, wait: Duration) -> Result<FileLock> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        let path = dir.join("writer.lock");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(at(&path))?;
        let watch = stopwatch();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if watch.elapsed() < wait => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => return Err(held_elsewhere(dir)),
                Err(TryLockError::Error(e)) => return Err(at(&path)(e)),
            }
        }
        file.set_len(0).map_err(at(&path))?;
        file.rewind().and_then(|()| write!(file, "{}", std::process::id())).map_err(at(&path))?;
        Ok(FileLock(file))
    }
}

fn held_elsewhere(dir: &Path) -> Error {
    let mut pid = String::new();
    let _ = File::open(dir.join("writer.lock")).and_then(|f| f.take(20).read_to_string(&mut pid));
    let who = if pid.is_empty() { "another process".to_string() } else { format!("process {pid}") };
    Error::conflict(format!("{who} is writing the embedded online store {}", dir.display()))
        .with_hint("run the statement in that process (remige sql --connect <its address>), or when it has ended")
}

pub(super) fn generation_path(dir: &Path, generation: u32) -> PathBuf {
    dir.join(format!("{generation}.redb"))
}

pub(super) fn read_current(dir: &Path) -> Result<Option<Pointer>> {
    let path = dir.join("CURRENT");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(at(&path)(e)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| {
        Error::internal(format!("the online pointer {} is damaged: {e}", path.display()))
            .with_hint("remove the file and MATERIALIZE the feature view again")
    })
}

pub(super) fn write_current(dir: &Path, pointer: &Pointer) -> Result<()> {
    let text = serde_json::to_vec(pointer).map_err(|e| Error::internal(e.to_string()))?;
    replace(dir, "CURRENT", &text)
}

/// Takes the next generation number. The write lock must be held.
pub(super) fn take_number(dir: &Path) -> Result<u32> {
    let path = dir.join("NEXT");
    let next = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| Error::internal(format!("{} does not hold a number", path.display())))?,
        Err(e) if e.kind() == ErrorKind::NotFound => list(dir)?.last().map_or(1, |g| g + 1),
        Err(e) => return Err(at(&path)(e)),
    };
    replace(dir, "NEXT", format!("{}", next + 1).as_bytes())?;
    Ok(next)
}

/// Generations that have a file, ascending.
pub(super) fn list(dir: &Path) -> Result<Vec<u32>> {
    numbers(dir, ".redb")
}

/// Views that have a directory, ascending.
pub(super) fn views(root: &Path) -> Result<Vec<u32>> {
    numbers(root, "")
}

/// The numbers that names in a directory, which may not be there, have before `suffix`; ascending.
fn numbers(dir: &Path, suffix: &str) -> Result<Vec<u32>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(at(dir)(e)),
    };
    let mut found = vec![];
    for entry in entries {
        let name = entry.map_err(at(dir))?.file_name();
        found.extend(name.to_str().and_then(|n| n.strip_suffix(suffix)?.parse::<u32>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// Replaces a small file so that readers, and a crash, see all of it or nothing.
fn replace(dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let (path, temp) = (dir.join(name), dir.join(format!("{name}.tmp")));
    let mut file = File::create(&temp).map_err(at(&temp))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at(&temp))?;
    fs::rename(&temp, &path).map_err(at(&path))?;
    sync_dir(dir)
}

pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(at(dir))
}

fn builder(cache: usize) -> Builder {
    let mut b = Builder::new();
    b.set_cache_size(cache).set_concurrency_mode(ConcurrencyMode::SingleWriter);
    b
}

pub(super) fn create(path: &Path, cache: usize) -> Result<Database> {
    builder(cache).create(path).map_err(|e| redb_error(path, e))
}

/// Opens a generation to write; `None` if it was dropped. The write lock of the view must be held. A
/// file that a killed writer left behind is repaired.
pub(super) fn open_writer(path: &Path, cache: usize) -> Result<Option<Database>> {
    let watch = stopwatch();
    loop {
        match builder(cache).open(path) {
            Ok(db) => return Ok(Some(db)),
            Err(DatabaseError::Storage(StorageError::Io(e))) if e.kind() == ErrorKind::NotFound => return Ok(None),
            // Another handle that is closing just now; we hold the lock, so nobody opens a new one.
            Err(DatabaseError::DatabaseAlreadyOpen) if watch.elapsed() < Duration::from_secs(1) => std::thread::sleep(PAUSE),
            Err(e) => return Err(redb_error(path, e)),
        }
    }
}

pub(super) enum Opened {
    Reader(ReadOnlyDatabase),
    /// The file was removed.
    Gone,
    /// A writer was killed; open it as writer once.
    NeedsRepair,
}

pub(super) fn open_reader(path: &Path, cache: usize) -> Result<Opened> {
    match builder(cache).open_read_only(path) {
        Ok(db) => Ok(Opened::Reader(db)),
        Err(DatabaseError::Storage(StorageError::Io(e))) if e.kind() == ErrorKind::NotFound => Ok(Opened::Gone),
        Err(DatabaseError::RepairAborted) => Ok(Opened::NeedsRepair),
        Err(e) => Err(redb_error(path, e)),
    }
}

pub(super) fn redb_error(path: &Path, e: impl Into<redb::Error>) -> Error {
    let shown = path.display();
    match e.into() {
        redb::Error::DatabaseAlreadyOpen => held_elsewhere(path.parent().unwrap_or(path)),
        redb::Error::Io(e) => at(path)(e),
        redb::Error::Corrupted(why) => Error::internal(format!("online store file {shown} is damaged: {why}"))
            .with_hint("MATERIALIZE FEATURE VIEW … FULL writes a new one"),
        other => Error::unavailable(format!("online store file {shown}: {other}")),
    }
}
