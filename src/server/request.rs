//! Requests on their way in: a body that was cut off is an error and never an end, messages are measured before
//! anybody buffers them, and a client that stops in the middle of one is not waited for.

mod body;
mod budget;
mod frames;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::{Code, Status};

use self::body::RequestBody;
use self::budget::Budget;
use super::connections::{Call, Calls};
use crate::config::Config;

/// What is said of a stream without an end.
pub(super) const CUT_OFF: &str = "the client stopped sending before its end of stream";

/// The room that the message at hand takes.
type Held = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

/// What requests may take.
#[derive(Debug)]
pub(super) struct Limits {
    request: Most,
    ticket: Most,
    rows: Most,
    /// The next message must begin within this time …
    next: Duration,
    /// … and be whole within this one, and a second more per MiB.
    whole: Duration,
    budget: Budget,
}

/// The most bytes of a message, and the setting that says so.
#[derive(Debug, Clone, Copy)]
struct Most {
    bytes: usize,
    setting: &'static str,
    /// Messages come one after another, and each is used up when the next is asked for.
    stream: bool,
}

impl Limits {
    pub fn of(config: &Config) -> Arc<Self> {
        let server = &config.server;
        // whatever a statement may have
        let request = server.max_request_bytes.max(server.max_statement_bytes.saturating_add(64 << 10));
        Arc::new(Limits {
            request: Most { bytes: request, setting: "server.max_request_bytes", stream: false },
            ticket: Most {
                bytes: request.saturating_add(server.max_parameter_bytes),
                setting: "server.max_parameter_bytes",
                stream: false,
            },
            rows: Most { bytes: server.max_message_bytes, setting: "server.max_message_bytes", stream: true },
            next: duration(server.sender_timeout),
            whole: duration(server.message_timeout),
            budget: Budget::new(config.memory_limit / 4),
        })
    }

    /// Only DoPut carries rows, and only DoGet parameters.
    fn most(&self, path: &str) -> Most {
        match path.rsplit('/').next() {
            Some("DoPut") => self.rows,
            Some("DoGet") => self.ticket,
            _ => self.request,
        }
    }
}

pub(super) fn duration(micros: crate::clock::Micros) -> Duration {
    Duration::from_micros(micros.max(0) as u64)
}

/// Whether a handler has seen a request: what fails before that could not be read.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen(Arc<AtomicBool>);

impl Seen {
    pub fn mark<T>(request: &tonic::Request<T>) {
        if let Some(seen) = request.extensions().get::<Seen>() {
            seen.0.store(true, Ordering::Relaxed);
        }
    }

    /// A message that nobody can read is the client's fault; tonic answers INTERNAL.
    fn judge(&self, mut answer: http::Response<Body>) -> http::Response<Body> {
        let internal = i32::from(Code::Internal).to_string();
        let status = answer.headers().get(Status::GRPC_STATUS);
        if !self.0.load(Ordering::Relaxed) && status.is_some_and(|s| s.as_bytes() == internal.as_bytes()) {
            let invalid = http::HeaderValue::from(i32::from(Code::InvalidArgument));
            answer.headers_mut().insert(Status::GRPC_STATUS, invalid);
        }
        answer
    }
}

/// A service whose requests are looked at.
#[derive(Debug, Clone)]
pub(super) struct Requests<S> {
    inner: S,
    limits: Arc<Limits>,
}

impl<S> Requests<S> {
    pub fn new(inner: S, limits: Arc<Limits>) -> Self {
        Requests { inner, limits }
    }
}

impl<S: NamedService> NamedService for Requests<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Requests<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let (held, seen, call) = (Held::default(), Seen::default(), Calls::begin(&request));
        request.extensions_mut().insert(seen.clone());
        let most = self.limits.most(request.uri().path());
        let body = |inner| Body::new(RequestBody::new(inner, most, Arc::clone(&self.limits), Arc::clone(&held)));
        let answer = self.inner.call(request.map(body));
        Box::pin(async move {
            let answer = answer.await;
            // the message is in use for as long as its handler works
            drop(held.lock().take());
            answer.map(|a| seen.judge(a).map(|rows| Body::new(Answer { rows, _call: call })))
        })
    }
}

/// An answer on its way: its call is open until all of it was taken.
struct Answer {
    rows: Body,
    _call: Option<Call>,
}

impl http_body::Body for Answer {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Status>>> {
        Pin::new(&mut self.get_mut().rows).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.rows.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.rows.size_hint()
    }
}

#[cfg(test)]
mod tests;
