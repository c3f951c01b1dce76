//! `ALTER FEATURE VIEW v SET … | UNSET … | SUSPEND | RESUME`

use std::sync::Arc;

use super::{Planned, Planning, Statement};
use crate::catalog::{CatalogChange, CatalogSnapshot, PutMode, VersionRef};
use crate::clock::Micros;
use crate::error::{Error, Result};
use crate::model::{FeatureView, Tags};
use crate::plan::command::Command;
use crate::sql::Cursor;
use crate::sql::cursor::NameRef;

#[derive(Debug, Clone)]
enum Change {
    Ttl(Micros),
    Comment(String),
    Owner(String),
    Tags(Tags),
    UnsetTags(Vec<String>),
    Online(bool),
    Lookback(Micros),
    RefreshEvery(Micros),
    Suspended(bool),
}

#[derive(Debug, Clone)]
pub struct AlterFeatureView {
    name: NameRef,
    change: Change,
}

pub fn parse(mut c: Cursor<'_>) -> Result<Statement> {
    let here = c.here();
    if c.eat("FEATURE SERVICE") {
        return Err(Error::not_built("ALTER FEATURE SERVICE … UPGRADE")
            .with_span(here)
            .with_hint("CREATE OR REPLACE FEATURE SERVICE pins the versions that its names mean now"));
    }
    if !c.eat("FEATURE VIEW") {
        return Err(c.expected("FEATURE VIEW or FEATURE SERVICE after ALTER"));
    }
    let name = c.name("the name of a feature view")?;
    let words = "SET TTL, SET COMMENT, SET OWNER, SET TAGS, SET ONLINE, SET OFFLINE, SET LOOKBACK, SET REFRESH EVERY, UNSET of one of them, SUSPEND, RESUME";
    let change = if c.eat("SET TTL") {
        Change::Ttl(c.interval("TTL")?)
    } else if c.eat("SET COMMENT") {
        Change::Comment(c.string("a text in quotes")?)
    } else if c.eat("SET OWNER") {
        Change::Owner(c.string("a text in quotes")?)
    } else if c.eat("SET TAGS") {
        Change::Tags(c.tags()?)
    } else if c.eat("UNSET TAGS") {
        Change::UnsetTags(c.list(|c| Ok(c.identifier("a tag's name")?.0))?)
    } else if c.eat("UNSET TTL") {
        Change::Ttl(0)
    } else if c.eat("UNSET COMMENT") {
        Change::Comment(String::new())
    } else if c.eat("UNSET OWNER") {
        Change::Owner(String::new())
    } else if c.eat("UNSET LOOKBACK") {
        Change::Lookback(0)
    } else if c.eat("UNSET REFRESH EVERY") {
        Change::RefreshEvery(0)
    } else if c.eat("SET ONLINE") {
        Change::Online(true)
    } else if c.eat("SET OFFLINE") {
        Change::Online(false)
    } else if c.eat("SET LOOKBACK") {
        Change::Lookback(c.interval("LOOKBACK")?)
    } else if c.eat("SET REFRESH EVERY") {
        Change::RefreshEvery(c.interval("REFRESH EVERY")?)
    } else if c.eat("SUSPEND") {
        Change::Suspended(true)
    } else if c.eat("RESUME") {
        Change::Suspended(false)
    } else if c.is("DEPRECATE") {
        return Err(Error::not_built("ALTER FEATURE VIEW … DEPRECATE").with_span(c.here()));
    } else {
        c.eat("SET");
        return Err(c.expected(words));
    };
    c.end(&[])?;
    Ok(Statement::AlterFeatureView(AlterFeatureView { name, change }))
}

impl AlterFeatureView {
    pub fn plan(self, p: &dyn Planning) -> Result<Planned> {
        let view = p.names().feature_view(&self.name)?;
        let span = self.name.span;
        if matches!(self.change, Change::Lookback(_) | Change::RefreshEvery(_)) && view.is_push() {
            return Err(Error::invalid(format!("feature view {} is a push view: it has no REFRESH", view.name)).or_span(span));
        }
        if matches!(self.change, Change::Lookback(l) if l > 0) && view.snapshot {
            return Err(Error::invalid(format!("feature view {} is a snapshot view: LOOKBACK has no meaning", view.name)).or_span(span));
        }
        if let (Change::Ttl(ttl), Some(old)) = (&self.change, view.ttl)
            && view.online
            && (*ttl == 0 || *ttl > old)
        {
            p.names().notice(format!(
                "a longer TTL of feature view {} takes effect online with the next MATERIALIZE, which makes a new generation",
                view.name
            ));
        }
        match self.change {
            Change::RefreshEvery(every) if every > 0 => p.names().notice(super::create_feature_view::scheduled(&view.name)),
            Change::Suspended(_) if view.refresh_every.is_none() => {
                p.names().notice(format!("feature view {} has no REFRESH EVERY: there is no schedule to stop or start", view.name));
            }
            _ => {}
        }
        let (name, version, change) = (view.name.clone(), view.version, self.change);
        let what = format!("ALTER FEATURE VIEW {}", view.versioned_name());
        let goes_offline = view.online && matches!(change, Change::Online(false));
        let build = Arc::new(move |c: &CatalogSnapshot| {
            let old = c.feature_view(&name, Some(version))?;
            let mut v: FeatureView = old.clone();
            match &change {
                Change::Ttl(t) => v.ttl = Some(*t).filter(|t| *t > 0),
                Change::Comment(t) => v.about.comment = Some(t.clone()).filter(|t| !t.is_empty()),
                Change::Owner(t) => v.about.owner = Some(t.clone()).filter(|t| !t.is_empty()),
                Change::Tags(t) => v.about.tags.extend(t.clone()),
                Change::UnsetTags(t) => v.about.tags.retain(|k, _| !t.contains(k)),
                Change::Online(o) => v.online = *o,
                Change::Lookback(t) => v.lookback = *t,
                Change::RefreshEvery(t) => v.refresh_every = Some(*t).filter(|t| *t > 0),
                Change::Suspended(s) => v.suspended = *s,
            }
            Ok(changed(c, old, v))
        });
        if goes_offline {
            return Planned::command("ALTER FEATURE VIEW", Command::SetOffline { view, build, what }, vec![]);
        }
        Planned::command("ALTER FEATURE VIEW", Command::Change { what, tables: vec![], build }, vec![])
    }
}

/// The changes that put a view in the place of the same version. What was online before it was set OFFLINE has missed
/// what was stored since: SET ONLINE begins anew, under another online id.
pub(super) fn changed(c: &CatalogSnapshot, old: &FeatureView, mut new: FeatureView) -> Vec<CatalogChange> {
    if new.online && !old.online {
        new.online_id = c.next_online_id;
    }
    let is_marked = c.feature_views.get(&new.name).is_some_and(|s| s.materialized.contains(&new.version));
    let unmark = (new.online != old.online && is_marked).then(|| CatalogChange::ClearMaterialized(VersionRef::from(&new)));
    std::iter::once(CatalogChange::PutFeatureView(new, PutMode::Replace)).chain(unmark).collect()
}
