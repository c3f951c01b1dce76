//! The body of a request. HTTP libraries take some resets for an end (hyper: NO_ERROR, tonic: CANCEL); here only the
//! client's own end of stream is one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Body as HttpBody, Frame};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;
use tonic::body::Body;

use super::frames::{Frames, Piece};
use super::{CUT_OFF, Held, Limits, Most};
use crate::clock::{self, Sleep};

/// What a message may take longer per byte: a second per MiB.
const SLOWEST: usize = 1 << 20;

/// Messages up to this size, where they have come whole, take no room of their own: HTTP/2 gives every stream a window
/// of four times as much, which is there already.
const SMALL: usize = 16 << 10;

type Item = Option<Result<Frame<Bytes>, Status>>;

pub(super) struct RequestBody {
    inner: Body,
    most: Most,
    limits: Arc<Limits>,
    held: Held,
    frames: Frames,
    /// What has come and was not handed on.
    chunk: Bytes,
    /// A message that has begun waits for room.
    waiting: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
    /// Runs while the client is waited for.
    patience: Option<Pin<Box<Sleep>>>,
    done: bool,
}

impl RequestBody {
    pub fn new(inner: Body, most: Most, limits: Arc<Limits>, held: Held) -> Self {
        RequestBody {
            inner,
            most,
            limits,
            held,
            frames: Frames::default(),
            chunk: Bytes::new(),
            waiting: None,
            patience: None,
            done: false,
        }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Item> {
        loop {
            if let Some(room) = &mut self.waiting {
                let room = ready!(room.as_mut().poll(cx));
                self.waiting = None;
                *self.held.lock() = room;
                return Poll::Ready(Some(Ok(Frame::data(self.frames.header()))));
            }
            if !self.chunk.is_empty() {
                if let Some(whole) = self.frames.whole(&mut self.chunk, SMALL.min(self.most.bytes)) {
                    self.let_go();
                    return Poll::Ready(Some(Ok(Frame::data(whole))));
                }
                match self.frames.cut(&mut self.chunk) {
                    Piece::Begin(bytes) => self.begin(bytes)?,
                    Piece::Part(part) => {
                        if !self.frames.in_the_middle() {
                            self.patience = None;
                        }
                        return Poll::Ready(Some(Ok(Frame::data(part))));
                    }
                    Piece::More => {}
                }
                continue;
            }
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Pending => {
                    ready!(self.out_of_patience(cx));
                    return Poll::Ready(Some(Err(self.too_slow())));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.chunk = data,
                    Err(trailers) => return Poll::Ready(self.end().or(Some(Ok(trailers)))),
                },
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Some(Err(cut_off(e.message())))),
                Poll::Ready(None) => return Poll::Ready(self.end()),
            }
        }
    }

    /// A message begins, which needs room.
    fn begin(&mut self, bytes: usize) -> Result<(), Status> {
        let Most { bytes: most, setting, .. } = self.most;
        if bytes > most {
            return Err(Status::resource_exhausted(format!(
                "a message of {bytes} bytes is larger than the limit of {most}; send less at once, or raise {setting}"
            )));
        }
        self.let_go();
        self.waiting = Some(self.limits.budget.take(bytes));
        Ok(())
    }

    /// Whoever reads asks for more: the message before has been used, and the client is not waited for.
    fn let_go(&mut self) {
        drop(self.held.lock().take());
        self.patience = None;
    }

    /// `None` where the client has ended its stream, behind a whole message.
    fn end(&self) -> Item {
        if !self.inner.is_end_stream() {
            return Some(Err(cut_off("")));
        }
        if self.most.stream {
            drop(self.held.lock().take());
        }
        self.frames.in_the_middle().then(|| Err(Status::invalid_argument("the client's stream ends in the middle of a message")))
    }

    fn out_of_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (limits, left) = (&self.limits, self.frames.left());
        let whole = limits.whole.saturating_add(Duration::from_secs((left / SLOWEST) as u64));
        let longest = if self.frames.in_the_middle() { whole } else { limits.next };
        let patience = self.patience.get_or_insert_with(|| Box::pin(clock::sleep(longest)));
        patience.as_mut().poll(cx)
    }

    fn too_slow(&self) -> Status {
        let (what, longest, setting) = match self.frames.in_the_middle() {
            true => ("the rest of a message", self.limits.whole, "server.message_timeout"),
            false => ("more", self.limits.next, "server.sender_timeout"),
        };
        let seconds = longest.as_secs_f64();
        Status::deadline_exceeded(format!("the client did not send {what} within {seconds} s; {setting} says how long it may take"))
    }
}

/// With a code that tonic does not take for an end.
fn cut_off(why: &str) -> Status {
    let colon = if why.is_empty() { "" } else { ": " };
    Status::aborted(format!("{CUT_OFF}{colon}{why}"))
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Item> {
        let this = self.get_mut();
        if this.done {
            return Poll::Ready(None);
        }
        let item = ready!(this.next(cx));
        this.done = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}
