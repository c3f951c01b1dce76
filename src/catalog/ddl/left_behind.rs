//! Who reads columns of a feature view that its new version does not have.

use std::collections::BTreeSet;

use sqlparser::tokenizer::Token;

use super::super::CatalogSnapshot;
use crate::model::{Dependency, FeatureView, Name, VersionSpec};

/// What to say where a new version takes columns away that others name, or gives them another type.
pub fn left_behind(c: &CatalogSnapshot, old: &FeatureView, new: &FeatureView) -> Option<String> {
    let now = new.visible_columns();
    let (mut columns, mut what) = (vec![], vec![]);
    for was in old.visible_columns() {
        match now.iter().find(|n| n.name == was.name) {
            Some(n) if n.data_type == was.data_type => continue,
            Some(n) => what.push(format!("column {} is {}, not {}", was.name, n.data_type, was.data_type)),
            None => what.push(format!("there is no column {}", was.name)),
        }
        columns.push(was.name);
    }
    let mut found = BTreeSet::new();
    if !columns.is_empty() {
        readers(c, &old.name, &columns, &mut vec![], &mut found);
    }
    (!found.is_empty()).then(|| {
        format!(
            "feature view {}: {}, and {} may fail once {} means v{}: change what they read, or let them read {}",
            new.versioned_name(),
            what.join("; "),
            found.into_iter().collect::<Vec<_>>().join(", "),
            new.name,
            new.version,
            old.quoted_name()
        )
    })
}

/// Views, feature views and services whose stored query may name one of the columns of a table or view.
pub fn readers_of_columns(c: &CatalogSnapshot, of: &Name, columns: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    readers(c, of, columns, &mut vec![], &mut found);
    found
}

/// Whose query names one of the columns. A view that gives on all columns of what it reads is looked through.
fn readers(c: &CatalogSnapshot, of: &Name, columns: &[String], seen: &mut Vec<Name>, found: &mut BTreeSet<String>) {
    seen.push(of.clone());
    let reads = |reads: &[Dependency]| reads.iter().any(|d| d.object == *of && d.version.is_none());
    for v in c.views.values().filter(|v| reads(&v.reads)) {
        let words = words(&v.query);
        if names(&words, columns) {
            found.insert(format!("view {}", v.name));
        } else if gives_all(&words) && !seen.contains(&v.name) {
            readers(c, &v.name, columns, seen, found);
        }
    }
    for v in c.feature_views.values().flat_map(|s| s.versions.values()).filter(|v| v.name != *of) {
        let Some(query) = v.query.as_deref().filter(|_| reads(&v.reads)) else { continue };
        let words = words(query);
        if names(&words, columns) || gives_all(&words) {
            found.insert(format!("feature view {}", v.versioned_name()));
        }
    }
    let latest = |s: &crate::model::Service| s.items.iter().any(|i| i.view == *of && i.pin == VersionSpec::Latest);
    for s in c.services.values().filter(|s| latest(s) && names(&words(&s.query), columns)) {
        found.insert(format!("feature service {}", s.name));
    }
}

fn words(query: &str) -> Vec<Token> {
    crate::sql::text::tokenize(query).map(|t| t.into_iter().map(|t| t.token).collect()).unwrap_or_default()
}

fn names(words: &[Token], columns: &[String]) -> bool {
    let same = |w: &sqlparser::tokenizer::Word, c: &String| match w.quote_style {
        Some(_) => w.value == *c,
        None => w.value.eq_ignore_ascii_case(c),
    };
    words.iter().any(|t| matches!(t, Token::Word(w) if columns.iter().any(|c| same(w, c))))
}

/// Whether there is a `*` that may stand for columns: one between two values is a product.
fn gives_all(words: &[Token]) -> bool {
    let mut words = words.iter().filter(|t| !matches!(t, Token::Whitespace(_)));
    let mut before: Option<&Token> = None;
    words.any(|t| {
        let is_star = matches!(t, Token::Mul)
            && match before {
                Some(Token::Comma | Token::Period) => true,
                Some(Token::Word(w)) => w.value.eq_ignore_ascii_case("SELECT") || w.value.eq_ignore_ascii_case("DISTINCT"),
                _ => false,
            };
        before = Some(t);
        is_star
    })
}
