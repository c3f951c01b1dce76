//! An error as data, beside the text that a terminal shows: a `google.rpc.Status` with one `google.rpc.ErrorInfo`, which
//! gRPC libraries read from the trailer `grpc-status-details-bin`.

use std::collections::BTreeMap;

use arrow_flight::sql::Any;
use prost::Message;

use crate::error::{Error, Kind, Span};

const DOMAIN: &str = "remige";
const TYPE_URL: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// Kinds by the reason that stands for them on the wire.
const REASONS: [(Kind, &str); 12] = [
    (Kind::Syntax, "SYNTAX"),
    (Kind::NotFound, "NOT_FOUND"),
    (Kind::AlreadyExists, "ALREADY_EXISTS"),
    (Kind::Invalid, "INVALID"),
    (Kind::Conflict, "CONFLICT"),
    (Kind::Unavailable, "UNAVAILABLE"),
    (Kind::Exhausted, "EXHAUSTED"),
    (Kind::Denied, "DENIED"),
    (Kind::NotBuilt, "NOT_BUILT"),
    (Kind::Late, "LATE"),
    (Kind::Cancelled, "CANCELLED"),
    (Kind::Internal, "INTERNAL"),
];

/// `google.rpc.Status`. Some libraries take code and text from here, not from their headers.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// The details of a status with this code and text.
pub(super) fn write(e: &Error, code: tonic::Code, text: &str) -> Vec<u8> {
    let reason = REASONS.iter().find(|(kind, _)| *kind == e.kind()).map_or("INTERNAL", |(_, reason)| reason);
    let mut metadata = BTreeMap::from([("message".to_string(), e.message().to_string())]);
    metadata.extend(e.hint().map(|hint| ("hint".to_string(), hint.to_string())));
    if let Some(s) = e.span() {
        let place = [("line", s.line), ("column", s.column), ("end_line", s.end_line), ("end_column", s.end_column)];
        metadata.extend(place.map(|(name, number)| (name.to_string(), number.to_string())));
    }
    let info = ErrorInfo { reason: reason.into(), domain: DOMAIN.into(), metadata };
    let any = Any { type_url: TYPE_URL.into(), value: info.encode_to_vec().into() };
    RpcStatus { code: code.into(), message: text.into(), details: vec![any] }.encode_to_vec()
}

/// The error in the details of a status; `None` where no server of ours wrote them.
pub fn read(details: &[u8]) -> Option<Error> {
    let status = RpcStatus::decode(details).ok()?;
    let any = status.details.iter().find(|any| any.type_url == TYPE_URL)?;
    let info = ErrorInfo::decode(any.value.as_ref()).ok().filter(|info| info.domain == DOMAIN)?;
    // a reason that only a newer server knows
    let kind = REASONS.iter().find(|(_, reason)| *reason == info.reason).map_or(Kind::Internal, |(kind, _)| *kind);
    let error = Error::new(kind, info.metadata.get("message")?);
    let error = match info.metadata.get("hint") {
        Some(hint) => error.with_hint(hint),
        None => error,
    };
    let number = |name: &str| info.metadata.get(name)?.parse().ok();
    let place = || Some(Span::new(number("line")?, number("column")?, number("end_line")?, number("end_column")?));
    Some(error.or_span(place()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (kind, reason) in REASONS {
            for error in [Error::new(kind, "x\n  help: y"), Error::new(kind, "é").with_hint("write \"é\"").with_span(Span::new(2, 8, 3, 1))]
            {
                let back = read(&write(&error, tonic::Code::Unknown, "shown")).expect(reason);
                assert_eq!((back.kind(), back.message(), back.hint()), (kind, error.message(), error.hint()));
                assert_eq!(back.span(), error.span());
            }
        }
    }

    #[test]
    fn details_of_others_are_none_of_ours() {
        assert!(read(b"").is_none() && read(b"\xff\xff").is_none());
        let info = ErrorInfo { reason: "INVALID".into(), domain: "other".into(), metadata: BTreeMap::new() };
        let any = Any { type_url: TYPE_URL.into(), value: info.encode_to_vec().into() };
        assert!(read(&RpcStatus { code: 3, message: "m".into(), details: vec![any] }.encode_to_vec()).is_none());
    }
}
