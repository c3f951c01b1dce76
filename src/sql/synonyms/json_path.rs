//! Paths into JSON that are one text: `$.a.b[0]`, `/a/b/0` and plain `a`.

use sqlparser::ast::{Expr, Function, Value};

use super::{alone, arguments, made};
use crate::error::{Error, Result};

/// One step of a path.
#[derive(Debug, PartialEq)]
enum Step {
    Key(String),
    Index(i64),
}

/// The call with the steps of its path as arguments of `to`.
pub fn call(name: &str, to: &str, f: &Function) -> Result<Expr> {
    alone(name, f)?;
    let Some([json, path]) = arguments(f).and_then(|a| <[Expr; 2]>::try_from(a).ok()) else {
        return Err(Error::invalid(format!("{name} wants a JSON text and a path")).with_hint(format!("write {name}(j, '$.a.b[0]')")));
    };
    let text = match &path {
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(s) => Some(s.clone()),
            Value::Number(n, _) => n.parse().ok().map(|n: i64| format!("$[{n}]")),
            _ => None,
        },
        _ => None,
    };
    let Some(text) = text else {
        return Err(Error::invalid(format!("the path of {name} is no text in quotes"))
            .with_hint(format!("write it out, or give its steps as arguments: {to}(j, 'a', 'b', 0)")));
    };
    let Some(steps) = steps(&text) else {
        return Err(Error::invalid(format!("{text:?} is not a path into JSON that {name} can follow"))
            .with_hint(format!("write '$.a.b[0]' or '/a/b/0', or the steps as arguments: {to}(j, 'a', 'b', 0)")));
    };
    let step = |s: Step| match s {
        Step::Key(k) => Expr::value(Value::SingleQuotedString(k)),
        Step::Index(i) => Expr::value(Value::Number(i.to_string(), false)),
    };
    Ok(made(to, std::iter::once(json).chain(steps.into_iter().map(step)).collect()))
}

/// The steps of a path; `None` for what is none, or holds a wildcard.
fn steps(path: &str) -> Option<Vec<Step>> {
    if let Some(pointer) = path.strip_prefix('/') {
        let step = |s: &str| match s.parse() {
            Ok(i) => Step::Index(i),
            Err(_) => Step::Key(s.replace("~1", "/").replace("~0", "~")),
        };
        return Some(pointer.split('/').map(step).collect());
    }
    let Some(mut rest) = path.strip_prefix('$') else {
        return (!path.is_empty()).then(|| vec![Step::Key(path.to_string())]);
    };
    let mut steps = vec![];
    while !rest.is_empty() {
        let (step, after) = match rest.strip_prefix('.') {
            Some(key) => match key.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').map(|(k, after)| (Step::Key(k.to_string()), after))?,
                None => {
                    let end = key.find(['.', '[']).unwrap_or(key.len());
                    (Step::Key(key[..end].to_string()), &key[end..])
                }
            },
            None => {
                let (inner, after) = rest.strip_prefix('[')?.split_once(']')?;
                let quoted = inner.strip_prefix(['\'', '"']).and_then(|i| i.strip_suffix(['\'', '"']));
                match quoted {
                    Some(key) => (Step::Key(key.to_string()), after),
                    None => (Step::Index(inner.parse().ok()?), after),
                }
            }
        };
        if matches!(&step, Step::Key(k) if k.is_empty() || k == "*") {
            return None;
        }
        steps.push(step);
        rest = after;
    }
    (!steps.is_empty()).then_some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let key = |k: &str| Step::Key(k.into());
        assert_eq!(steps("$.a.b[0]"), Some(vec![key("a"), key("b"), Step::Index(0)]));
        assert_eq!(steps("$['a b'].\"c.d\""), Some(vec![key("a b"), key("c.d")]));
        assert_eq!(steps("/a/0/x~1y"), Some(vec![key("a"), Step::Index(0), key("x/y")]));
        assert_eq!(steps("a.b"), Some(vec![key("a.b")]));
        for wrong in ["", "$", "$.", "$.*", "$[*]", "$..a", "$[", "$a"] {
            assert_eq!(steps(wrong), None, "{wrong}");
        }
    }
}
