//! The read path of the Redis store: MGETs that fetch rows and the pointer together.

use std::ops::Range;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use redis::cmd;

use super::redis::RedisStore;
use super::redis_keys::Keys;
use super::{KeysOf, Pointer, RowsOf};
use crate::error::{Error, Result};

/// Commands of one lookup that are on their way at once.
const PARALLEL_READS: usize = 4;

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

impl RedisStore {
    /// Reads under the generations last seen as current, and again where the pointers say otherwise.
    pub(super) async fn read_batch(&self, requests: &[KeysOf<'_>]) -> Result<Vec<RowsOf>> {
        let mut out: Vec<RowsOf> = requests.iter().map(|r| RowsOf::unpublished(r.keys.len())).collect();
        let mut pending: Vec<usize> = (0..requests.len()).collect();
        // The first read may have to learn the generation; a second switch in between is rare.
        for _ in 0..4 {
            let guesses: Vec<Option<u32>> = {
                let known = self.generations.read();
                requests.iter().map(|r| known.get(r.view).copied()).collect()
            };
            let commands = self.pieces(requests, &guesses, &pending);
            let answers: Vec<Vec<(Piece, Seen)>> =
                stream::iter(commands).map(|pieces| self.read(requests, &guesses, pieces)).buffered(PARALLEL_READS).try_collect().await?;
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
            for &request in pending.iter().chain(&unpublished) {
                // Also what other commands of the same request may have read.
                out[request] = RowsOf::unpublished(requests[request].keys.len());
            }
            for &request in &unpublished {
                self.generations.write().remove(requests[request].view);
            }
            pending.retain(|r| !unpublished.contains(r));
            pending.dedup();
            if pending.is_empty() {
                return Ok(out);
            }
        }
        Err(Error::conflict(format!("generations in the online store {} change faster than they can be read", self.url)))
    }

    /// One MGET: per piece the pointer and, where a generation is guessed, its watermark and rows.
    async fn read(&self, requests: &[KeysOf<'_>], guesses: &[Option<u32>], pieces: Vec<Piece>) -> Result<Vec<(Piece, Seen)>> {
        let mut command = cmd("MGET");
        for p in &pieces {
            let request = &requests[p.request];
            let names = Keys::new(request.view);
            command.arg(names.pointer());
            if let Some(generation) = guesses[p.request] {
                command.arg(names.watermark(generation));
                for key in &request.keys[p.keys.clone()] {
                    command.arg(names.row(generation, key));
                }
            }
        }
        let values: Vec<Option<Vec<u8>>> = self.ask(&self.reads, &command).await?;
        let mut values = values.into_iter();
        let mut next = || values.next().ok_or_else(|| Error::internal(format!("the online store {} answers too few values", self.url)));
        let mut out = Vec::with_capacity(pieces.len());
        for p in pieces {
            let view = requests[p.request].view;
            let pointer = self.parse_pointer(view, next()?.as_deref())?;
            let mut read = None;
            if guesses[p.request].is_some() {
                let watermark = next()?.map(|w| self.parse_watermark(&w)).transpose()?;
                let rows = (0..p.keys.len()).map(|_| Ok(next()?.map(Bytes::from))).collect::<Result<Vec<_>>>()?;
                read = Some((watermark, rows));
            }
            let seen = match (pointer, read) {
                (None, _) => Seen::Unpublished,
                (Some(pointer), Some((watermark, rows))) if Some(pointer.generation) == guesses[p.request] => {
                    Seen::Rows { pointer, watermark, rows }
                }
                (Some(pointer), _) => {
                    self.generations.write().insert(view.clone(), pointer.generation);
                    Seen::Stale
                }
            };
            out.push((p, seen));
        }
        Ok(out)
    }

    /// Cuts the requests at `read_chunk` keys per command.
    fn pieces(&self, requests: &[KeysOf<'_>], guesses: &[Option<u32>], pending: &[usize]) -> Vec<Vec<Piece>> {
        let mut commands = vec![vec![]];
        let mut room = self.read_chunk;
        for &request in pending {
            let total = if guesses[request].is_some() { requests[request].keys.len() } else { 0 };
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
