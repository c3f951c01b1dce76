//! Handshake: no credentials are configured yet, so that any are taken; the answer is a session token.

use arrow_flight::{HandshakeRequest, HandshakeResponse};
use futures::{StreamExt, stream};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::Shared;
use super::flight_sql::BoxStream;
use super::messages::readable;
use super::sessions::{Caller, strip_scheme};

impl Shared {
    pub(super) async fn handshake(
        &self,
        mut request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<BoxStream<HandshakeResponse>>, Status> {
        let caller = Caller::of(&request);
        let header = request.metadata().get("authorization").and_then(|v| v.to_str().ok());
        let bearer = header.and_then(|v| strip_scheme(v, "bearer")).map(str::to_string);
        if let Some(header) = header
            && bearer.is_none()
            && strip_scheme(header, "basic").is_none()
        {
            return Err(Status::unauthenticated("authorization must be Basic or Bearer"));
        }
        // A caller that brings a token of ours goes on with its session.
        let token = match bearer {
            Some(token) if caller.id.is_some() => token,
            _ => self.sessions.token(),
        };
        // The first message belongs to the protocol; what it says does not matter.
        if let Some(message) = request.get_mut().next().await {
            message.map_err(readable)?;
        }
        let value: MetadataValue<_> =
            format!("Bearer {token}").parse().map_err(|_| Status::internal("the session token is not a header value"))?;
        let answer = HandshakeResponse { protocol_version: 0, payload: token.into_bytes().into() };
        let output: BoxStream<HandshakeResponse> = stream::iter([Ok(answer)]).boxed();
        let mut response = Response::new(output);
        response.metadata_mut().insert("authorization", value);
        Ok(response)
    }
}
