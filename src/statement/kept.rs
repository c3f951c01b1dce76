//! `CREATE … IF NOT EXISTS` of what exists: it stays as it is, and where that is not what the statement says, a notice tells so.

use super::Planning;
use crate::model::Name;
use crate::sql::text::tokenize;

/// Tells where the texts that make the old and the new object differ in more than white space.
pub fn tell(p: &dyn Planning, kind: &str, name: &Name, old: &str, new: &str) -> bool {
    let words = |text: &str| tokenize(text).ok().map(|all| all.into_iter().map(|t| t.token).collect::<Vec<_>>());
    let same = old == new || matches!((words(old), words(new)), (Some(o), Some(n)) if o == n);
    if !same {
        p.names().notice(format!(
            "{kind} {name} exists with another definition; nothing was changed; CREATE OR REPLACE {} changes it",
            kind.to_uppercase()
        ));
    }
    !same
}

/// Tells where the name belongs to another kind of object.
pub fn taken(p: &dyn Planning, kind: &str, name: &Name) {
    if let Some(have) = p.names().catalog().relation(name).map(|r| r.kind()).filter(|have| *have != kind) {
        p.names().notice(format!("{name} is the name of a {have}: there is no {kind} of that name, and nothing was changed"));
    }
}
