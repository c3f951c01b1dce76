//! The read path: rows and the pointer fetched together.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use redis::{Cmd, Value};

use super::fault::is_of_another_type;
use super::keys::Keys;
use super::link::{Repeat, Task};
use super::map::slot;
use super::node::Lane;
use super::{Fault, RedisStore};
use crate::error::{Error, Result};
use crate::store::online::{KeysOf, OnlineView, Pointer, RowsOf, mixed};

/// Commands of one lookup that are on their way at once.
const PARALLEL_READS: usize = 4;
/// Reads of one lookup that may find that a generation was switched meanwhile.
const ATTEMPTS: usize = 16;

// One server answers a command as of one instant, so rows and the pointer that an MGET brings belong
// together. The servers of a cluster answer at different instants: while the pointer still named a
// generation, rows of it may already have been removed elsewhere. A row that is there is right, its
// key names its generation. One that is missing is believed once the pointer, read again after the
// rows, still names the generation: what is current is not removed.

/// Names of a view's keys, and what was last seen as current.
pub(super) struct Known {
    pointer_key: String,
    current: Option<Current>,
}

struct Current {
    /// As Redis has it; the same text is not parsed again.
    text: Vec<u8>,
    pointer: Pointer,
    row_prefix: Vec<u8>,
    watermark_key: String,
}

impl Known {
    fn new(names: &Keys, current: Option<(Vec<u8>, Pointer)>) -> Known {
        let current = current.map(|(text, pointer)| Current {
            text,
            row_prefix: names.generation(pointer.generation).into_bytes(),
            watermark_key: names.watermark(pointer.generation),
            pointer,
        });
        Known { pointer_key: names.pointer(), current }
    }

    fn generation(&self) -> Option<u32> {
        self.current.as_ref().map(|c| c.pointer.generation)
    }
}

/// Some keys of one request, read in one command.
struct Piece {
    request: usize,
    keys: Range<usize>,
}

/// What one read says about one request.
enum Seen {
    Unpublished,
    /// The generation asked for is not current; ask again.
    Stale,
    Rows {
        pointer: Pointer,
        watermark: Option<u64>,
        rows: Vec<Option<Bytes>>,
    },
}

/// Names of keys in one buffer.
struct KeyList {
    buffer: Vec<u8>,
    ends: Vec<usize>,
    /// Places of what is no row.
    beside: Vec<usize>,
}

impl KeyList {
    fn with_capacity(keys: usize) -> Self {
        KeyList { buffer: Vec::with_capacity(keys * 64), ends: Vec::with_capacity(keys), beside: vec![] }
    }

    fn push_row(&mut self, prefix: &[u8], key: &[u8]) {
        self.buffer.extend_from_slice(prefix);
        self.buffer.extend_from_slice(key);
        self.ends.push(self.buffer.len());
    }

    /// A pointer or a watermark.
    fn push(&mut self, name: &str) {
        self.beside.push(self.ends.len());
        self.push_row(name.as_bytes(), b"");
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(from, to)| &self.buffer[from..*to])
    }
}

pub(super) fn get(key: &[u8]) -> Cmd {
    let mut command = Cmd::with_capacity(2, key.len() + 3);
    command.arg("GET").arg(key);
    command
}

impl RedisStore {
    /// Reads under the generations last seen as current, and again where the pointers say otherwise.
    pub(super) async fn read_batch(&self, requests: &[KeysOf<'_>]) -> Result<Vec<RowsOf>> {
        let mut out: Vec<RowsOf> = requests.iter().map(|r| RowsOf::unpublished(r.keys.len())).collect();
        let mut pending: Vec<usize> = (0..requests.len()).collect();
        // The first read may have to learn the generation; a second switch in between is rare.
        for _ in 0..ATTEMPTS {
            let known: Vec<Arc<Known>> = requests.iter().map(|r| self.known(r.view)).collect();
            let commands = self.pieces(requests, &known, &pending);
            let answers: Vec<Vec<(Piece, Seen)>> =
                stream::iter(commands).map(|pieces| self.read(requests, &known, pieces)).buffered(PARALLEL_READS).try_collect().await?;
            pending.clear();
            let mut unpublished = vec![];
            for (piece, seen) in answers.into_iter().flatten() {
                let slot = &mut out[piece.request];
                match seen {
                    Seen::Unpublished => unpublished.push(piece.request),
                    Seen::Stale => pending.push(piece.request),
                    Seen::Rows { pointer, watermark, rows } => {
                        for (i, row) in piece.keys.zip(rows) {
                            slot.rows[i] = row;
                        }
                        (slot.pointer, slot.watermark) = (Some(pointer), watermark);
                    }
                }
            }
            if self.link.is_cluster() {
                pending.extend(self.moved_on(requests, &known, &out).await?);
            }
            for &request in pending.iter().chain(&unpublished) {
                // Also what other commands of the same request may have read.
                out[request] = RowsOf::unpublished(requests[request].keys.len());
            }
            for &request in &unpublished {
                self.known.write().remove(requests[request].view);
            }
            pending.retain(|r| !unpublished.contains(r));
            if pending.is_empty() {
                pending = mixed(requests, &out);
            }
            pending.sort_unstable();
            pending.dedup();
            if pending.is_empty() {
                return Ok(out);
            }
        }
        Err(Error::conflict(format!("generations in the online store {} change faster than they can be read", self.link.shown())))
    }

    fn known(&self, view: &OnlineView) -> Arc<Known> {
        if let Some(known) = self.known.read().get(view) {
            return Arc::clone(known);
        }
        Arc::new(Known::new(&self.names(view), None))
    }

    /// Parses a pointer unless it is the known one.
    fn current(&self, view: &OnlineView, known: &Known, text: &[u8]) -> Result<Option<Pointer>> {
        if let Some(current) = known.current.as_ref().filter(|c| c.text == text) {
            return Ok(Some(current.pointer.clone()));
        }
        let pointer = self.parse_pointer(view, Some(text))?;
        if let Some(pointer) = &pointer {
            let known = Known::new(&self.names(view), Some((text.to_vec(), pointer.clone())));
            self.known.write().insert(view.clone(), Arc::new(known));
        }
        Ok(pointer)
    }

    /// One command: per piece the pointer and, where a generation is guessed, its watermark and rows.
    async fn read(&self, requests: &[KeysOf<'_>], known: &[Arc<Known>], pieces: Vec<Piece>) -> Result<Vec<(Piece, Seen)>> {
        let mut keys = KeyList::with_capacity(pieces.iter().map(|p| p.keys.len() + 2).sum());
        for p in &pieces {
            let known = &known[p.request];
            keys.push(&known.pointer_key);
            if let Some(current) = &known.current {
                // Before the rows: it may say too little of them, never too much.
                keys.push(&current.watermark_key);
                for key in &requests[p.request].keys[p.keys.clone()] {
                    keys.push_row(&current.row_prefix, key);
                }
            }
        }
        let mut values = self.fetch(&keys).await?.into_iter();
        let mut next = || values.next().ok_or_else(|| self.too_few());
        let mut out = Vec::with_capacity(pieces.len());
        for p in pieces {
            let (view, known) = (requests[p.request].view, &known[p.request]);
            let pointer = match next()? {
                Some(text) => self.current(view, known, &text)?,
                None => None,
            };
            let mut read = None;
            if let Some(current) = &known.current {
                let watermark = next()?.map(|w| self.parse_watermark(&current.watermark_key, &w)).transpose()?;
                read = Some((watermark, (0..p.keys.len()).map(|_| next()).collect::<Result<Vec<_>>>()?));
            }
            let seen = match (pointer, read) {
                (None, _) => Seen::Unpublished,
                (Some(pointer), Some((watermark, rows))) if Some(pointer.generation) == known.generation() => {
                    Seen::Rows { pointer, watermark, rows }
                }
                (Some(_), _) => Seen::Stale,
            };
            out.push((p, seen));
        }
        Ok(out)
    }

    /// Requests with missing rows whose generation is not current any more.
    async fn moved_on(&self, requests: &[KeysOf<'_>], known: &[Arc<Known>], out: &[RowsOf]) -> Result<Vec<usize>> {
        let doubtful: Vec<usize> =
            (0..out.len()).filter(|i| out[*i].pointer.is_some() && out[*i].rows.iter().any(Option::is_none)).collect();
        if doubtful.is_empty() {
            return Ok(doubtful);
        }
        let mut keys = KeyList::with_capacity(doubtful.len());
        for i in &doubtful {
            keys.push(&known[*i].pointer_key);
        }
        let mut moved = vec![];
        for (i, text) in doubtful.into_iter().zip(self.fetch(&keys).await?) {
            let now = match text {
                Some(text) => self.current(requests[i].view, &known[i], &text)?,
                None => None,
            };
            if now.map(|p| p.generation) != out[i].pointer.as_ref().map(|p| p.generation) {
                moved.push(i);
            }
        }
        Ok(moved)
    }

    /// The values of the keys, in their order.
    async fn fetch(&self, keys: &KeyList) -> Result<Vec<Option<Bytes>>> {
        let answers = if self.link.is_cluster() {
            // Per server a pipeline of GETs: MGET takes keys of one slot only.
            let tasks = keys.iter().map(|key| Task { slot: slot(key), command: get(key) });
            self.link.run_each(Lane::Read, tasks.collect(), Repeat::Yes).await.map_err(|f| self.fault(f))?
        } else {
            let mut mget = Cmd::with_capacity(keys.len() + 1, keys.buffer.len() + 4);
            mget.arg("MGET");
            for key in keys.iter() {
                mget.arg(key);
            }
            let answer = self.link.ask(Lane::Read, 0, mget, Repeat::Yes).await.map_err(|f| self.fault(f))?;
            let Value::Array(values) = answer else { return Err(self.too_few()) };
            values
        };
        let mut values = answers.into_iter().map(|value| self.bytes(value)).collect::<Result<Vec<_>>>()?;
        if values.len() != keys.len() {
            return Err(self.too_few());
        }
        if !self.link.is_cluster() {
            self.look_behind_nil(keys, &mut values).await?;
        }
        Ok(values)
    }

    /// MGET says nil also of a key of another type, where GET says what is wrong. What was written since stays unread: it
    /// is of a later instant than the other values. Rows are not asked for again: entities that are not there are common,
    /// and each would cost another round trip; VERIFY finds rows of another type.
    async fn look_behind_nil(&self, keys: &KeyList, values: &mut [Option<Bytes>]) -> Result<()> {
        if keys.beside.iter().all(|i| values[*i].is_some()) {
            return Ok(());
        }
        let nil = keys.iter().enumerate().filter(|(i, _)| values[*i].is_none() && keys.beside.binary_search(i).is_ok());
        let (places, tasks): (Vec<usize>, Vec<Task>) = nil.map(|(i, key)| (i, Task { slot: 0, command: get(key) })).unzip();
        let answers = self.link.run_each(Lane::Read, tasks, Repeat::Yes).await.map_err(|f| self.fault(f))?;
        for (at, answer) in places.into_iter().zip(answers) {
            if matches!(answer, Value::ServerError(_)) {
                values[at] = self.bytes(answer)?;
            }
        }
        Ok(())
    }

    /// The value of a key. One of another type has no bytes, so that whoever reads it says that it is damaged, and which.
    pub(super) fn bytes(&self, value: Value) -> Result<Option<Bytes>> {
        match value {
            Value::BulkString(bytes) => Ok(Some(Bytes::from(bytes))),
            Value::Nil => Ok(None),
            value => match value.extract_error() {
                Err(e) if is_of_another_type(&e) => Ok(Some(Bytes::new())),
                Err(e) => Err(self.fault(Fault::from(e))),
                Ok(_) => Err(Error::internal(format!("the online store {} answers a key with what is no string", self.link.shown()))),
            },
        }
    }

    fn too_few(&self) -> Error {
        Error::internal(format!("the online store {} answers too few values", self.link.shown()))
    }

    /// Cuts the requests at `read_chunk` keys per command.
    fn pieces(&self, requests: &[KeysOf<'_>], known: &[Arc<Known>], pending: &[usize]) -> Vec<Vec<Piece>> {
        let mut commands = vec![vec![]];
        let mut room = self.read_chunk;
        for &request in pending {
            let total = if known[request].current.is_some() { requests[request].keys.len() } else { 0 };
            let mut at = 0;
            loop {
                if room == 0 {
                    commands.push(vec![]);
                    room = self.read_chunk;
                }
                let take = room.min(total - at);
                if let Some(last) = commands.last_mut() {
                    last.push(Piece { request, keys: at..at + take });
                }
                at += take;
                room -= take.max(1);
                if at == total {
                    break;
                }
            }
        }
        commands
    }
}
