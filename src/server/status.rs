//! `Error` to gRPC status. The message carries what a terminal would show: place, caret and help; the details carry the
//! same as data.

use tonic::{Code, Status};

use super::error_detail;
use crate::error::{Error, Kind};

/// gRPC sends messages as percent-encoded headers; Java clients refuse headers above 8 KiB.
const MAX_MESSAGE: usize = 6 << 10;
/// Message and details together. What leaves no room for details goes without.
const MAX_HEADERS: usize = 7 << 10;

pub(super) fn code(kind: Kind) -> Code {
    match kind {
        Kind::Syntax | Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::Conflict => Code::Aborted,
        Kind::Unavailable => Code::Unavailable,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Denied => Code::PermissionDenied,
        Kind::NotBuilt => Code::Unimplemented,
        Kind::Late => Code::DeadlineExceeded,
        Kind::Cancelled => Code::Cancelled,
        Kind::Internal => Code::Internal,
    }
}

/// The status of an error in statement `sql`, with a caret under the place at fault.
pub(super) fn in_statement(e: &Error, sql: &str) -> Status {
    let rendered = e.render(sql, None);
    let text = rendered.strip_prefix("error: ").unwrap_or(&rendered);
    if encoded_len(text) <= MAX_MESSAGE {
        return status(e, text);
    }
    let place = e.span().map(|s| format!(" (line {}, column {})", s.line, s.column)).unwrap_or_default();
    status(e, &shorten(&format!("{e}{place}")))
}

fn status(e: &Error, text: &str) -> Status {
    let code = code(e.kind());
    let details = error_detail::write(e, code, text);
    // they travel in base64
    if encoded_len(text) + details.len().div_ceil(3) * 4 <= MAX_HEADERS {
        Status::with_details(code, text, details.into())
    } else {
        Status::new(code, text)
    }
}

impl From<Error> for Status {
    fn from(e: Error) -> Self {
        status(&e, &shorten(&e.to_string()))
    }
}

fn encoded_len(text: &str) -> usize {
    text.bytes().map(|b| if (b' '..=b'~').contains(&b) && b != b'%' { 1 } else { 3 }).sum()
}

fn shorten(text: &str) -> String {
    let mut used = 0;
    let mut out = String::new();
    for c in text.chars() {
        used += encoded_len(c.encode_utf8(&mut [0; 4]));
        if used > MAX_MESSAGE {
            out.push_str(" …");
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Span;

    #[test]
    fn every_kind_has_the_code_that_clients_act_on() {
        for (kind, want) in [
            (Kind::Syntax, Code::InvalidArgument),
            (Kind::Invalid, Code::InvalidArgument),
            (Kind::NotFound, Code::NotFound),
            (Kind::AlreadyExists, Code::AlreadyExists),
            (Kind::Conflict, Code::Aborted),
            (Kind::Unavailable, Code::Unavailable),
            (Kind::Exhausted, Code::ResourceExhausted),
            (Kind::Denied, Code::PermissionDenied),
            (Kind::NotBuilt, Code::Unimplemented),
            (Kind::Late, Code::DeadlineExceeded),
            (Kind::Cancelled, Code::Cancelled),
            (Kind::Internal, Code::Internal),
        ] {
            assert_eq!(Status::from(Error::new(kind, "x")).code(), want, "{kind:?}");
        }
    }

    #[test]
    fn the_message_shows_place_and_caret() {
        let e = Error::not_found("table \"usrs\" does not exist").with_span(Span::new(1, 15, 1, 19)).with_hint("did you mean \"users\"?");
        let s = in_statement(&e, "SELECT * FROM usrs");
        assert_eq!(s.code(), Code::NotFound);
        assert!(s.message().contains("line:1:15"), "{}", s.message());
        assert!(s.message().contains("^^^^"), "{}", s.message());
        assert!(s.message().contains("did you mean"), "{}", s.message());
        let told = error_detail::read(s.details()).expect("details");
        assert_eq!(told.render("SELECT * FROM usrs", None), e.render("SELECT * FROM usrs", None));
    }

    #[test]
    fn details_that_leave_no_room_are_left_out() {
        let headers = |length: usize| {
            let s = Status::from(Error::invalid("x".repeat(length)));
            (!s.details().is_empty(), encoded_len(s.message()) + s.details().len().div_ceil(3) * 4)
        };
        assert!(headers(1_500).0);
        assert!((0..MAX_MESSAGE).step_by(97).all(|n| headers(n).1 <= MAX_HEADERS));
        assert!(!headers(4_000).0);
    }

    #[test]
    fn a_long_message_stays_below_the_header_limit() {
        let sql = "é".repeat(100_000);
        let s = in_statement(&Error::syntax("no").with_span(Span::new(1, 90_000, 1, 90_001)), &sql);
        assert!(encoded_len(s.message()) <= MAX_MESSAGE + 16);
        assert!(s.message().contains("column 90000"));
        assert!(encoded_len(Status::from(Error::invalid(sql)).message()) <= MAX_MESSAGE + 16);
    }
}
