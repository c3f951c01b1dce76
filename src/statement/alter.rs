//! `ALTER FEATURE VIEW v SET … | UNSET … | SUSPEND | RESUME`

use super::{Head, Parsed, Planned, Planning, Statement};
use crate::catalog::ddl::{Ddl, ViewChange};
use crate::error::{Error, Result};
use crate::sql::cursor::NameRef;
use async_trait::async_trait;

#[derive(Debug, Clone)]
pub struct AlterFeatureView {
    name: NameRef,
    change: ViewChange,
}

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.start;
    c.want("ALTER")?;
    let here = c.here();
    if c.eat("FEATURE SERVICE") {
        return Err(Error::not_built("ALTER FEATURE SERVICE … UPGRADE")
            .with_span(here)
            .with_hint("CREATE OR REPLACE FEATURE SERVICE pins the versions that its names mean now"));
    }
    if !c.eat("FEATURE VIEW") {
        return Err(c.expected("FEATURE VIEW, FEATURE SERVICE or TABLE after ALTER"));
    }
    let name = c.name("the name of a feature view")?;
    let words = "SET TTL, SET COMMENT, SET OWNER, SET TAGS, SET ONLINE, SET OFFLINE, SET LOOKBACK, SET REFRESH EVERY, UNSET of one of them, SUSPEND, RESUME";
    let change = if c.eat("SET TTL") {
        ViewChange::Ttl(c.interval("TTL")?)
    } else if c.eat("SET COMMENT") {
        ViewChange::Comment(c.string("a text in quotes")?)
    } else if c.eat("SET OWNER") {
        ViewChange::Owner(c.string("a text in quotes")?)
    } else if c.eat("SET TAGS") {
        ViewChange::Tags(c.tags()?)
    } else if c.eat("UNSET TAGS") {
        ViewChange::UnsetTags(c.list(|c| Ok(c.identifier("a tag's name")?.0))?)
    } else if c.eat("UNSET TTL") {
        ViewChange::Ttl(0)
    } else if c.eat("UNSET COMMENT") {
        ViewChange::Comment(String::new())
    } else if c.eat("UNSET OWNER") {
        ViewChange::Owner(String::new())
    } else if c.eat("UNSET LOOKBACK") {
        ViewChange::Lookback(0)
    } else if c.eat("UNSET REFRESH EVERY") {
        ViewChange::RefreshEvery(0)
    } else if c.eat("SET ONLINE") {
        ViewChange::Online(true)
    } else if c.eat("SET OFFLINE") {
        ViewChange::Online(false)
    } else if c.eat("SET LOOKBACK") {
        ViewChange::Lookback(c.interval("LOOKBACK")?)
    } else if c.eat("SET REFRESH EVERY") {
        ViewChange::RefreshEvery(c.interval("REFRESH EVERY")?)
    } else if c.eat("SUSPEND") {
        ViewChange::Suspended(true)
    } else if c.eat("RESUME") {
        ViewChange::Suspended(false)
    } else if c.is("DEPRECATE") {
        return Err(Error::not_built("ALTER FEATURE VIEW … DEPRECATE").with_span(c.here()));
    } else {
        c.eat("SET");
        return Err(c.expected(words));
    };
    c.end(&[])?;
    Ok(Box::new(AlterFeatureView { name, change }))
}

#[async_trait]
impl Statement for AlterFeatureView {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let view = p.names().feature_view(&self.name)?;
        let span = self.name.span;
        if matches!(self.change, ViewChange::Lookback(_) | ViewChange::RefreshEvery(_)) && view.is_push() {
            return Err(Error::invalid(format!("feature view {} is a push view: it has no REFRESH", view.name)).or_span(span));
        }
        if matches!(self.change, ViewChange::Lookback(l) if l > 0) && view.snapshot {
            return Err(Error::invalid(format!("feature view {} is a snapshot view: LOOKBACK has no meaning", view.name)).or_span(span));
        }
        if matches!(self.change, ViewChange::Ttl(t) if t > 0) && view.windowed.is_some() {
            return Err(Error::invalid(format!("feature view {} has windows, so TTL has no meaning: the window is the age", view.name))
                .or_span(span)
                .with_hint("CREATE OR REPLACE FEATURE VIEW with other windows"));
        }
        if let (ViewChange::Ttl(ttl), Some(old)) = (&self.change, view.ttl)
            && view.online
            && (*ttl == 0 || *ttl > old)
        {
            p.names().notice(format!(
                "a longer TTL of feature view {} takes effect online with the next MATERIALIZE, which makes a new generation",
                view.name
            ));
        }
        match &self.change {
            ViewChange::RefreshEvery(every) if *every > 0 => p.names().notice(super::create_feature_view::scheduled(&view.name)),
            ViewChange::Suspended(_) if view.refresh_every.is_none() => {
                p.names().notice(format!("feature view {} has no REFRESH EVERY: there is no schedule to stop or start", view.name));
            }
            _ => {}
        }
        let ddl = Ddl::AlterFeatureView { name: view.name.clone(), version: view.version, change: self.change };
        Planned::ddl("ALTER FEATURE VIEW", ddl)
    }
}
