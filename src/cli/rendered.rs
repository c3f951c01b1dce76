//! Errors as servers send them: the text that is shown, read back.

use remige::error::{Error, Kind, Span};

/// Reads the text that `Error::render` makes, as servers send it, back into an error. A text of another form is the message.
pub fn parse_rendered(kind: Kind, text: &str) -> Error {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let Some((message, rest)) = text.split_once("\n  --> ") else {
        return match text.split_once("\n  help: ") {
            Some((message, help)) => Error::new(kind, message).with_hint(help),
            None => Error::new(kind, text),
        };
    };
    let mut lines = rest.lines();
    let place: Vec<u64> = lines.next().unwrap_or_default().rsplitn(3, ':').filter_map(|n| n.parse().ok()).collect();
    let mut error = Error::new(kind, message);
    if let [column, line] = place[..] {
        let carets = rest.lines().find_map(|l| l.trim_start().strip_prefix("| ").filter(|c| c.trim_start().starts_with('^')));
        let width = carets.map_or(1, |c| c.matches('^').count().max(1)) as u64;
        error = error.with_span(Span::new(line, column, line, column + width));
    }
    match rest.split_once("\n  help: ") {
        Some((_, help)) => error.with_hint(help),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_rendered_is_read_back() {
        let sql = "SELECT *\nFROM usrs";
        let original =
            Error::not_found("table \"usrs\" does not exist").with_span(Span::new(2, 6, 2, 10)).with_hint("did you mean \"users\"?");
        let sent = original.render(sql, None);
        let back = parse_rendered(Kind::NotFound, sent.strip_prefix("error: ").unwrap());
        assert_eq!(back.render(sql, None), sent);
        assert_eq!(parse_rendered(Kind::Internal, "odd\ntext").render("", None), "error: odd\ntext");
        let plain = Error::invalid("m").with_hint("h");
        assert_eq!(parse_rendered(Kind::Invalid, &plain.render("", None)).render("", None), plain.render("", None));
    }
}
