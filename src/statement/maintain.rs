//! `OPTIMIZE FEATURE VIEW v[@vN]`, `VACUUM FEATURE VIEW v[@vN] [RETAIN INTERVAL …] [DRY RUN]`

use super::{Head, Parsed, Planned, Planning, Statement};
use crate::clock::Micros;
use crate::config::MIN_RETAIN;
use crate::error::{Error, Result, Span};
use crate::plan::command::Command;
use crate::sql::Cursor;
use crate::sql::cursor::{NameRef, format_interval};
use async_trait::async_trait;

#[derive(Debug, Clone)]
pub struct Optimize {
    view: NameRef,
}

#[derive(Debug, Clone)]
pub struct Vacuum {
    view: NameRef,
    retain: Option<(Micros, Span)>,
    dry_run: bool,
}

fn view(c: &mut Cursor<'_>) -> Result<NameRef> {
    if !c.eat("FEATURE VIEW") {
        return Err(c.expected("FEATURE VIEW name"));
    }
    c.name("the name of a feature view")
}

pub fn parse_optimize(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    let view = view(&mut c)?;
    c.end(&[])?;
    Ok(Box::new(Optimize { view }))
}

pub fn parse_vacuum(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    let view = view(&mut c)?;
    let (mut retain, mut dry_run) = (None, false);
    loop {
        if retain.is_none() && c.eat("RETAIN") {
            let here = c.here();
            retain = Some((c.interval("RETAIN")?, here));
        } else if !dry_run && c.eat("DRY RUN") {
            dry_run = true;
        } else {
            break;
        }
    }
    c.end(&["RETAIN INTERVAL '…'", "DRY RUN"])?;
    Ok(Box::new(Vacuum { view, retain, dry_run }))
}

#[async_trait]
impl Statement for Optimize {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        Planned::command("OPTIMIZE", Command::Optimize { view: p.names().feature_view(&self.view)?.as_ref().into() }, vec![])
    }
}

#[async_trait]
impl Statement for Vacuum {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let view = p.names().feature_view(&self.view)?;
        if let Some((retain, span)) = self.retain
            && retain < MIN_RETAIN
        {
            return Err(Error::invalid(format!(
                "RETAIN {} is too short: statements that run now, here or in another process, may still read the versions before",
                format_interval(retain)
            ))
            .with_hint(format!("keep at least {}", format_interval(MIN_RETAIN)))
            .with_span(span));
        }
        let retain = self.retain.map(|(r, _)| r);
        Planned::command("VACUUM", Command::Vacuum { view: view.as_ref().into(), retain, dry_run: self.dry_run }, vec![])
    }
}
