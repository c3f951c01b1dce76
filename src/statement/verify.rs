//! `VERIFY FEATURE VIEW v[@vN] | [FEATURE] SERVICE s [SAMPLE n [SEED s]]`

use super::{Head, Parsed, Planned, Planning, Statement};
use crate::error::{Error, Result};
use crate::plan::command::{Command, Sample, VerifyTarget};
use crate::plan::target::Target;
use crate::sql::cursor::NameRef;
use async_trait::async_trait;

/// Keys that one SAMPLE may draw: they are held in memory.
const MAX_SAMPLE: u64 = 1_000_000;

#[derive(Debug, Clone)]
pub struct Verify {
    service: bool,
    name: NameRef,
    sample: Option<Sample>,
}

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.cursor;
    let service = if c.eat("FEATURE VIEW") {
        false
    } else if c.eat("FEATURE SERVICE") || c.eat("SERVICE") {
        true
    } else {
        return Err(c.expected("FEATURE VIEW name, or SERVICE name"));
    };
    let name = c.name(if service { "the name of a feature service" } else { "the name of a feature view" })?;
    let mut sample = None;
    if c.eat("SAMPLE") {
        let here = c.here();
        let keys = c.number("a whole number of keys, 1 or more")?;
        if keys == 0 {
            return Err(Error::invalid("SAMPLE 0 would check nothing")
                .with_hint("write SAMPLE 1000, or leave SAMPLE out to check all keys")
                .with_span(here));
        }
        if keys > MAX_SAMPLE {
            return Err(Error::invalid(format!("SAMPLE {keys} is more than {MAX_SAMPLE}, which a sample may have at most"))
                .with_hint("leave SAMPLE out to check all keys; they are not held in memory")
                .with_span(here));
        }
        let seed = match c.eat("SEED") {
            true => {
                let here = c.here();
                let seed = c.number("a whole number after SEED")?;
                Some(i64::try_from(seed).map_err(|_| Error::invalid(format!("SEED {seed} is no BIGINT")).with_span(here))?)
            }
            false => None,
        };
        sample = Some(Sample { keys, seed });
        c.end(&["SEED number"])?;
    } else {
        c.end(&["SAMPLE number"])?;
    }
    Ok(Box::new(Verify { service, name, sample }))
}

#[async_trait]
impl Statement for Verify {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let (names, n) = (p.names(), &self.name);
        let name = names.name(n);
        let catalog = names.catalog();
        // looked up by kind first, so that the error names what is wanted
        match self.service {
            true => catalog.service(&name).map(|_| ()),
            false => catalog.feature_view_series(&name).map(|_| ()),
        }
        .map_err(|e| e.or_span(n.span))?;
        let target = Target::find(names.as_ref(), n)?.ok_or_else(|| Error::internal(format!("{name} is no longer there")))?;
        for item in &target.items {
            if !item.view.online {
                let view = item.view.versioned_name();
                return Err(Error::invalid(format!("feature view {view} is not ONLINE, so there is nothing to compare"))
                    .or_span(n.span)
                    .with_hint(format!("ALTER FEATURE VIEW {0} SET ONLINE; MATERIALIZE FEATURE VIEW {0}", item.view.name)));
            }
        }
        let target = match self.service {
            true => VerifyTarget::Service(name),
            false => VerifyTarget::FeatureView(names.feature_view(n)?.as_ref().into()),
        };
        Planned::command("VERIFY", Command::Verify { target, sample: self.sample }, vec![])
    }
}
