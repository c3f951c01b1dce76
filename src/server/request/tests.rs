use std::collections::VecDeque;
use std::pin::Pin;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};

use super::*;

/// Gives these chunks; then ends, breaks off, or says nothing more.
struct Sent {
    chunks: VecDeque<Bytes>,
    then: Then,
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    End,
    /// What hyper makes of a reset with NO_ERROR.
    Nothing,
    /// What tonic makes of a reset with CANCEL.
    Cancelled,
    Silence,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match (self.chunks.pop_front(), self.then) {
            (Some(chunk), _) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            (None, Then::End | Then::Nothing) => Poll::Ready(None),
            (None, Then::Cancelled) => Poll::Ready(Some(Err(Status::cancelled("reset")))),
            (None, Then::Silence) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty() && self.then == Then::End
    }
}

fn limits(path: &str) -> (Arc<Limits>, Most) {
    let mut config = Config::default();
    (config.server.max_request_bytes, config.server.max_statement_bytes) = (100_000, 1000);
    config.server.max_parameter_bytes = 10_000;
    (config.server.message_timeout, config.server.sender_timeout) = (1000, 1000);
    let limits = Limits::of(&config);
    let most = limits.most(path);
    (limits, most)
}

/// What comes through of `bytes`, cut into chunks, and how it ends.
async fn read(bytes: &[u8], size: usize, then: Then, path: &str) -> (Vec<u8>, Option<Code>) {
    let (limits, most) = limits(path);
    let chunks = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
    let mut body = RequestBody::new(Body::new(Sent { chunks, then }), most, limits, Held::default());
    let mut out = vec![];
    loop {
        match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(frame)) => out.extend_from_slice(&frame.into_data().unwrap()),
            Some(Err(e)) => return (out, Some(e.code())),
            None => return (out, None),
        }
    }
}

fn message(length: usize) -> Vec<u8> {
    [&[0][..], &u32::try_from(length).unwrap().to_be_bytes(), &vec![7; length]].concat()
}

#[tokio::test]
async fn only_the_clients_own_end_is_one() {
    let whole = [message(3), message(0), message(40)].concat();
    for cut in 0..=whole.len() {
        let sent = &whole[..cut];
        let boundary = [0, 8, 13, whole.len()].contains(&cut);
        for size in [1, 7, 1000] {
            let ended = read(sent, size, Then::End, "/x/DoPut").await;
            assert_eq!(ended.1, (!boundary).then_some(Code::InvalidArgument), "{cut}");
            assert!(!boundary || ended.0 == sent);
            for then in [Then::Nothing, Then::Cancelled] {
                assert_eq!(read(sent, size, then, "/x/DoPut").await.1, Some(Code::Aborted), "{cut}");
            }
            assert_eq!(read(sent, size, Then::Silence, "/x/DoPut").await.1, Some(Code::DeadlineExceeded), "{cut}");
        }
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_before_it_is_read() {
    for (path, limit) in [("/f/GetFlightInfo", 100_000), ("/f/DoAction", 100_000), ("/f/DoGet", 110_000)] {
        assert_eq!(read(&message(limit), 5000, Then::End, path).await.1, None, "{path}");
        let (read, refused) = read(&message(limit + 1), 5000, Then::End, path).await;
        assert_eq!((read.len(), refused), (0, Some(Code::ResourceExhausted)), "{path}");
    }
    assert_eq!(read(&message(1 << 20), 5000, Then::End, "/f/DoPut").await.1, None);
}
