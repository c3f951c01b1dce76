//! How a text stands that is still being typed.

use sqlparser::tokenizer::{Location, Token, Tokenizer};

use super::text::{DIALECT, offset};

/// How a text that is being typed stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typed {
    /// Nothing, or SQL whose last statement is closed by `;`.
    Whole,
    /// A statement has begun.
    Statement,
    /// In a quoted text; `$` stands for `$$`.
    Quoted(char),
    Comment,
}

/// Where `text` ends.
pub fn typed(text: &str) -> Typed {
    let mut tokens = vec![];
    let done = Tokenizer::new(&DIALECT, text).tokenize_with_location_into_buf(&mut tokens);
    if done.is_err() {
        // the token that could not be read to its end begins where the last whole one ended
        let start = tokens.last().map_or(Location { line: 1, column: 1 }, |t| t.span.end);
        return opened(&text[offset(text, start)..]);
    }
    let last = tokens.iter().rfind(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF));
    if last.is_none_or(|t| t.token == Token::SemiColon) { Typed::Whole } else { Typed::Statement }
}

/// What a token opened that does not end. One that is no text and no comment is wrong: with a semicolon behind it the
/// statement is whole, so that the user is told.
fn opened(rest: &str) -> Typed {
    // a quoted text may have a prefix: E'…', U&'…'
    let quoted = rest.trim_start_matches(|c: char| c.is_ascii_alphabetic() || c == '&');
    match quoted.chars().next() {
        Some(quote @ ('\'' | '"' | '$')) => Typed::Quoted(quote),
        _ if rest.starts_with("/*") => Typed::Comment,
        _ if rest.trim_end().ends_with(';') => Typed::Whole,
        _ => Typed::Statement,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_with_a_semicolon_outside_of_quotes_and_comments() {
        for whole in [
            "",
            "  ",
            "SELECT 1;",
            "SELECT ';';",
            "SELECT 'it''s; ok';  -- done",
            "SELECT 1; /* ; */",
            "SELECT $1, $2;",
            "SELECT $$;$$;",
            "SELECT $a$ ; $$ $a$;",
            "SELECT \"a;b\";\n",
            "-- only a comment",
            "SELECT 'é';",
        ] {
            assert_eq!(typed(whole), Typed::Whole, "{whole:?}");
        }
        for part in [
            "SELECT 1",
            "SELECT ';",
            "SELECT 1; SELECT 2",
            "SELECT 1 -- ;",
            "SELECT 1 /* ;",
            "/* /* */ ;",
            "SELECT \"a;",
            "SELECT $$;",
            "SELECT 'it''s;",
        ] {
            assert_ne!(typed(part), Typed::Whole, "{part:?}");
        }
    }

    #[test]
    fn the_prompt_can_say_what_is_open() {
        for (text, want) in [
            ("SELECT 1", Typed::Statement),
            ("SELECT 'a", Typed::Quoted('\'')),
            ("SELECT \"a", Typed::Quoted('"')),
            ("SELECT $x$ a", Typed::Quoted('$')),
            ("SELECT /* ", Typed::Comment),
            ("SELECT E'a\\'b;", Typed::Quoted('\'')),
            ("SELECT 'é'; \n\n /* '", Typed::Comment),
            ("'", Typed::Quoted('\'')),
        ] {
            assert_eq!(typed(text), want, "{text:?}");
        }
    }
}
