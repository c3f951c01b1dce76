//! The one error type. Every error names its object, says what to do, and, where the user's text is
//! at fault, knows the place in that text.

mod words;
pub use words::INSTANTS;

use std::fmt;

use datafusion::common::{DataFusionError, Span as DfSpan};
use parquet::errors::ParquetError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in classes a client can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The text is not a statement.
    Syntax,
    /// A named object does not exist.
    NotFound,
    /// A named object exists already.
    AlreadyExists,
    /// The statement is well formed but cannot be done: wrong types, wrong values, wrong state.
    Invalid,
    /// Somebody else changed the same thing first; trying again may work.
    Conflict,
    /// A store or server cannot be reached now; trying again may work.
    Unavailable,
    /// A limit (memory, time, rows) was reached.
    Exhausted,
    /// Not allowed.
    Denied,
    /// Recognised, but not built yet.
    NotBuilt,
    /// It took longer than it may.
    Late,
    /// The user cancelled it.
    Cancelled,
    /// A fault of ours.
    Internal,
}

/// A place in the user's text: 1-based lines and columns (characters), end exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub line: u64,
    pub column: u64,
    pub end_line: u64,
    pub end_column: u64,
}

impl Span {
    pub fn new(line: u64, column: u64, end_line: u64, end_column: u64) -> Self {
        Span { line, column, end_line, end_column }
    }
}

impl From<DfSpan> for Span {
    fn from(s: DfSpan) -> Self {
        Span::new(s.start.line, s.start.column, s.end.line, s.end.column)
    }
}

/// An error of Remige. Cheap to move; build it with the constructors below and refine it with the
/// `with_*` methods.
#[derive(Debug, Clone)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    kind: Kind,
    message: String,
    hint: Option<String>,
    span: Option<Span>,
}

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => { $(
        pub fn $name(message: impl Into<String>) -> Self { Error::new(Kind::$kind, message) }
    )* };
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), hint: None, span: None }))
    }

    constructors! {
        syntax => Syntax, not_found => NotFound, already_exists => AlreadyExists, invalid => Invalid,
        conflict => Conflict, unavailable => Unavailable, exhausted => Exhausted, denied => Denied,
        late => Late, cancelled => Cancelled, internal => Internal,
    }

    /// A statement or clause that the dialect has but this version does not do yet.
    pub fn not_built(what: impl fmt::Display) -> Self {
        Error::new(Kind::NotBuilt, format!("{what} is not built yet"))
    }

    /// What the user should do about it.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    pub fn with_span(mut self, span: Span) -> Self {
        self.0.span = Some(span);
        self
    }

    /// For an error in text that is not the user's.
    pub fn without_span(mut self) -> Self {
        self.0.span = None;
        self
    }

    /// Sets the place only where none is known yet.
    pub fn or_span(mut self, span: Option<Span>) -> Self {
        self.0.span = self.0.span.or(span);
        self
    }

    /// Adds a suggestion when one of `candidates` looks like `wrong`.
    pub fn suggest<'a>(self, wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(wrong, candidates) {
            Some(best) if self.0.hint.is_none() => self.with_hint(format!("did you mean {best:?}?")),
            _ => self,
        }
    }

    /// Puts the object or step in front of the message: `feature view "v": …`.
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        self.0.message = format!("{what}: {}", self.0.message);
        self
    }

    /// Puts something behind the message.
    pub fn suffixed(mut self, what: &str) -> Self {
        self.0.message.push_str(what);
        self
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }
    pub fn message(&self) -> &str {
        &self.0.message
    }
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
    pub fn span(&self) -> Option<Span> {
        self.0.span
    }

    /// True where the same statement may work when tried again.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, Kind::Conflict | Kind::Unavailable)
    }

    /// The error as a compiler would print it: message, place, the user's line with a caret, and help.
    /// `name` is the file the text came from, if any.
    pub fn render(&self, sql: &str, name: Option<&str>) -> String {
        let mut out = format!("error: {}", self.message());
        if let Some(span) = self.span() {
            let at = name.unwrap_or("line");
            out.push_str(&format!("\n  --> {at}:{}:{}", span.line, span.column));
            if let Some(line) = sql.lines().nth(span.line.saturating_sub(1) as usize) {
                let number = span.line.to_string();
                let pad = " ".repeat(number.len());
                let shown = line.replace('\t', " ");
                let width = shown.chars().count() as u64;
                let start = span.column.saturating_sub(1).min(width);
                let end = if span.end_line == span.line { span.end_column.saturating_sub(1) } else { width };
                let carets = end.saturating_sub(start).max(1);
                out.push_str(&format!(
                    "\n {pad} |\n {number} | {shown}\n {pad} | {}{}",
                    " ".repeat(start as usize),
                    "^".repeat(carets as usize)
                ));
            }
        }
        if let Some(hint) = self.hint() {
            out.push_str(&format!("\n  help: {hint}"));
        }
        out
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match &self.0.hint {
            Some(hint) => write!(f, " (help: {hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for DataFusionError {
    fn from(e: Error) -> Self {
        DataFusionError::External(Box::new(e))
    }
}

impl From<DataFusionError> for Error {
    fn from(e: DataFusionError) -> Self {
        from_datafusion(e)
    }
}

impl From<datafusion::arrow::error::ArrowError> for Error {
    fn from(e: datafusion::arrow::error::ArrowError) -> Self {
        use datafusion::arrow::error::ArrowError;
        match e {
            ArrowError::ExternalError(inner) => match inner.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(inner) => match inner.downcast::<DataFusionError>() {
                    Ok(df) => from_datafusion(*df),
                    Err(other) => said(Kind::Internal, &other.to_string()),
                },
            },
            ArrowError::MemoryError(m) => Error::exhausted(m),
            ArrowError::OffsetOverflowError(bytes) => {
                Error::exhausted(format!("one batch of rows would hold {bytes} bytes in one column, more than the 2 GiB that it can"))
                    .with_hint("make less of each row, or lower batch_size")
            }
            ArrowError::IoError(m, _) => Error::unavailable(m),
            other => said(Kind::Invalid, &other.to_string()),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        match e.kind() {
            std::io::ErrorKind::NotFound => Error::not_found(e.to_string()),
            std::io::ErrorKind::PermissionDenied => Error::denied(e.to_string()),
            _ => Error::unavailable(e.to_string()),
        }
    }
}

impl From<object_store::Error> for Error {
    fn from(e: object_store::Error) -> Self {
        use object_store::Error as E;
        match &e {
            E::NotFound { path, .. } => Error::not_found(format!("no object at {path:?}")),
            E::AlreadyExists { path, .. } => Error::already_exists(format!("an object exists at {path:?}")),
            E::Precondition { .. } => Error::conflict(e.to_string()),
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => Error::denied(e.to_string()),
            _ => Error::unavailable(format!("object store: {e}")),
        }
    }
}

impl From<tokio::task::JoinError> for Error {
    fn from(e: tokio::task::JoinError) -> Self {
        if e.is_cancelled() { Error::cancelled("the task was cancelled") } else { Error::internal(e.to_string()) }
    }
}

fn from_datafusion(e: DataFusionError) -> Error {
    let span = e.diagnostic().and_then(|d| d.span).map(Span::from);
    convert(e).or_span(span)
}

fn convert(e: DataFusionError) -> Error {
    use datafusion::common::SchemaError;
    if let Some(path) = missing_file(&e) {
        return Error::not_found(format!("the file {path:?} is gone"))
            .with_hint("VACUUM removes files of old versions; a newer version can be read");
    }
    match e {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(inner) => match inner.downcast::<DataFusionError>() {
                Ok(df) => convert(*df),
                Err(other) => said(Kind::Internal, &other.to_string()),
            },
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => convert(*inner),
        DataFusionError::Shared(inner) => match &*inner {
            DataFusionError::External(b) if b.downcast_ref::<Error>().is_some() => {
                b.downcast_ref::<Error>().cloned().unwrap_or_else(|| Error::internal(inner.to_string()))
            }
            other => said(classify(other), &other.strip_backtrace()),
        },
        DataFusionError::ArrowError(a, _) => Error::from(*a),
        DataFusionError::ResourcesExhausted(m) => Error::exhausted(m).with_hint("raise --memory-limit, or read fewer rows at a time"),
        DataFusionError::SchemaError(inner, _) => match *inner {
            SchemaError::AmbiguousReference { field } => {
                Error::invalid(format!("column {:?} is on both sides of a join, or twice in one SELECT list", field.name)).with_hint(
                    format!(
                        "say which one, with the alias of its side: l.{0}; or give one of them another name with AS, or leave it out of a star: * EXCLUDE ({0})",
                        field.name
                    ),
                )
            }
            SchemaError::FieldNotFound { field, valid_fields } => {
                let hidden = |name: &str| name == "_seq" || name.starts_with("_remige");
                let names: Vec<String> = valid_fields.iter().map(|c| c.name().to_string()).filter(|n| !hidden(n)).collect();
                let shown: Vec<&str> = names.iter().take(30).map(String::as_str).collect();
                let known = if shown.is_empty() {
                    "there are no columns here".to_string()
                } else {
                    format!("the columns are {}", shown.join(", "))
                };
                let err = Error::not_found(format!("column {:?} does not exist", field.flat_name()));
                match nearest(field.name(), names.iter().map(String::as_str)) {
                    Some(best) => err.with_hint(format!("did you mean {best:?}? {known}")),
                    None => err.with_hint(known),
                }
            }
            other => said(Kind::Invalid, &other.to_string()),
        },
        DataFusionError::SQL(e, _) => at_its_place(&e.to_string()),
        DataFusionError::Collection(mut list) if !list.is_empty() => convert(list.remove(0)),
        other => {
            let kind = classify(&other);
            said(kind, &other.strip_backtrace())
        }
    }
}

/// The file that a scan wanted to read and that is not there.
fn missing_file(e: &DataFusionError) -> Option<&str> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(e);
    while let Some(e) = next {
        let found = e.downcast_ref::<object_store::Error>().or_else(|| e.downcast_ref::<Box<object_store::Error>>().map(|b| &**b));
        if let Some(object_store::Error::NotFound { path, .. }) = found {
            return Some(path);
        }
        // DataFusion keeps only the text of an error at the file's footer
        if let Some(ParquetError::General(text)) = e.downcast_ref::<ParquetError>()
            && let Some((path, why)) =
                text.strip_prefix("Failed to fetch metadata for file ").and_then(|t| t.split_once(": Object Store error: "))
            && why.starts_with("Object at location ")
            && why.contains(" not found")
        {
            return Some(path);
        }
        next = e.source();
    }
    None
}

fn classify(e: &DataFusionError) -> Kind {
    match e {
        DataFusionError::SQL(..) => Kind::Syntax,
        DataFusionError::Plan(m) if m.contains("not found") => Kind::NotFound,
        DataFusionError::NotImplemented(_) => Kind::Invalid,
        DataFusionError::Plan(_) | DataFusionError::SchemaError(..) | DataFusionError::Configuration(_) => Kind::Invalid,
        DataFusionError::ResourcesExhausted(_) => Kind::Exhausted,
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => Kind::Unavailable,
        DataFusionError::Execution(_) | DataFusionError::ArrowError(..) => Kind::Invalid,
        _ => Kind::Internal,
    }
}

/// Names of the engine's types and literals, as in `Int64(1)`, as SQL has them.
pub fn in_sql(text: &str) -> String {
    words::names(text)
}

/// An error with the engine's message in our words.
fn said(kind: Kind, message: &str) -> Error {
    let words::Words { message, hint, of_statement } = words::plain(message);
    let kind = if kind == Kind::Internal && of_statement { Kind::Invalid } else { kind };
    let e = Error::new(kind, message);
    match hint {
        Some(hint) => e.with_hint(hint),
        None => e,
    }
}

/// The parser writes the place behind its message.
fn at_its_place(message: &str) -> Error {
    let Some((text, place)) = message.rsplit_once(" at Line: ") else { return said(Kind::Syntax, message) };
    let mut numbers = place.split(", Column: ").map(|n| n.trim().parse::<u64>());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(line)), Some(Ok(column))) if line > 0 => said(Kind::Syntax, text).with_span(Span::new(line, column, line, column + 1)),
        _ => said(Kind::Syntax, message),
    }
}

/// The candidate nearest to `wrong`, if it is near enough to be what was meant.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let lower = wrong.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&lower, &c.to_lowercase()), c))
        .filter(|(d, c)| *d <= 1 + c.chars().count().min(lower.chars().count()) / 4)
        .min()
        .map(|(_, c)| c.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_a_caret_under_the_text() {
        let e = Error::not_found("table \"usrs\" does not exist").with_span(Span::new(2, 6, 2, 10)).suggest("usrs", ["orders", "users"]);
        assert_eq!(
            e.render("SELECT *\nFROM usrs", Some("a.sql")),
            "error: table \"usrs\" does not exist\n  --> a.sql:2:6\n   |\n 2 | FROM usrs\n   |      ^^^^\n  help: did you mean \"users\"?"
        );
    }

    #[test]
    fn far_words_are_not_suggested() {
        assert_eq!(nearest("entites", ["weather", "entities"]), Some("entities".into()));
        assert_eq!(nearest("zzz", ["weather", "entities"]), None);
    }

    #[test]
    fn survives_the_way_through_datafusion() {
        let e = Error::conflict("x").with_span(Span::new(1, 2, 1, 3));
        let back = Error::from(DataFusionError::from(e));
        assert_eq!((back.kind(), back.span()), (Kind::Conflict, Some(Span::new(1, 2, 1, 3))));
    }
}
