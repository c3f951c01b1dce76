//! `CREATE [OR REPLACE] FEATURE VIEW …`: plans the query, derives keys, timestamps and features, and
//! computes nothing.

mod derive;
mod windowed;

use async_trait::async_trait;
use sqlparser::tokenizer::Token;

use super::{Head, Parsed, Planned, Planning, Statement, about, kept, show_create};
use crate::catalog::ddl::{Ddl, Exists, feature_view_outcome};
use crate::clock::{Micros, new_id};
use crate::error::{Error, Result, Span};
use crate::model::layout::check_column_name;
use crate::model::types::ColumnType;
use crate::model::windowed::Windowed;
use crate::model::{About, Column, Feature, FeatureView, Name, Tags};
use crate::plan::command::Command;
use crate::sql::Cursor;
use crate::sql::cursor::NameRef;

#[derive(Debug, Clone)]
struct Listed {
    name: String,
    data_type: Option<ColumnType>,
    comment: Option<String>,
    tags: Tags,
    span: Span,
}

#[derive(Debug, Clone)]
pub struct CreateFeatureView {
    name: NameRef,
    or_replace: bool,
    if_not_exists: bool,
    columns: Vec<Listed>,
    entities: Vec<NameRef>,
    event: (String, Span),
    zone: Option<(String, Span)>,
    created: Option<(String, Span)>,
    ttl: Option<Micros>,
    refresh_every: Option<Micros>,
    lookback: Option<Micros>,
    online: bool,
    about: About,
    /// The SELECT and where it begins.
    query: Option<(String, Span)>,
}

const CLAUSES: [&str; 11] = [
    "ENTITY name",
    "EVENT TIMESTAMP column",
    "CREATED TIMESTAMP column",
    "TTL INTERVAL '…'",
    "REFRESH EVERY INTERVAL '…'",
    "LOOKBACK INTERVAL '…'",
    "ONLINE",
    "COMMENT '…'",
    "OWNER '…'",
    "TAGS (…)",
    "AS SELECT …",
];

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    let Head { cursor: mut c, or_replace, .. } = head;
    let if_not_exists = c.eat("IF NOT EXISTS");
    about::exclusive(&c, or_replace, if_not_exists)?;
    let name = c.plain_name("feature view")?;
    let mut columns = vec![];
    if c.is_token(&Token::LParen) {
        columns = c.list(listed)?;
    }
    let (mut entities, mut event, mut zone, mut created) = (vec![], None, None, None);
    let (mut ttl, mut refresh_every, mut lookback, mut online) = (None, None, None, false);
    let mut about = About::default();
    let mut query = None;
    loop {
        let here = c.here();
        let once = |taken: bool, what: &str| match taken {
            true => Err(Error::syntax(format!("{what} is written twice")).with_span(here)),
            false => Ok(()),
        };
        if c.eat("ENTITY") || c.eat("ENTITIES") {
            once(!entities.is_empty(), "ENTITY")?;
            entities.push(c.plain_name("entity")?);
            while c.eat_token(&Token::Comma) {
                entities.push(c.plain_name("entity")?);
            }
        } else if c.eat("EVENT TIMESTAMP") {
            once(event.is_some(), "EVENT TIMESTAMP")?;
            event = Some(c.identifier("the column with the event timestamp")?);
            if c.eat("AT TIME ZONE") {
                let place = c.here();
                zone = Some((c.string("a time zone in quotes")?, place));
            }
        } else if c.eat("CREATED TIMESTAMP") {
            once(created.is_some(), "CREATED TIMESTAMP")?;
            created = Some(c.identifier("the column with the created timestamp")?);
        } else if c.eat("TTL") {
            once(ttl.is_some(), "TTL")?;
            ttl = Some(c.interval("TTL")?);
        } else if c.eat("REFRESH EVERY") {
            once(refresh_every.is_some(), "REFRESH EVERY")?;
            refresh_every = Some(c.interval("REFRESH EVERY")?);
        } else if c.eat("LOOKBACK") {
            once(lookback.is_some(), "LOOKBACK")?;
            lookback = Some(c.interval("LOOKBACK")?);
        } else if c.eat("ONLINE") {
            once(online, "ONLINE")?;
            online = true;
        } else if c.eat("AS") {
            let at = c.here();
            query = Some((c.rest()?.to_string(), at));
            break;
        } else if !about::clause(&mut c, &mut about)? {
            break;
        }
    }
    c.end(&CLAUSES)?;
    if entities.is_empty() {
        return Err(Error::syntax(format!("feature view {:?} needs ENTITY: whose features are these?", name.name))
            .or_span(name.span)
            .with_hint("write ENTITY user (and CREATE ENTITY user KEY (user_id BIGINT) before)"));
    }
    let Some(event) = event else {
        return Err(Error::syntax(format!("feature view {:?} needs EVENT TIMESTAMP: since when is a row true?", name.name))
            .or_span(name.span)
            .with_hint("write EVENT TIMESTAMP column"));
    };
    if query.is_none() && columns.is_empty() {
        return Err(Error::syntax(format!(
            "feature view {:?} needs AS SELECT …, or a list of columns with types for a push view",
            name.name
        ))
        .or_span(name.span));
    }
    Ok(Box::new(CreateFeatureView {
        name,
        or_replace,
        if_not_exists,
        columns,
        entities,
        event,
        zone,
        created,
        ttl: ttl.filter(|t| *t > 0),
        refresh_every: refresh_every.filter(|t| *t > 0),
        lookback,
        online,
        about,
        query,
    }))
}

fn listed(c: &mut Cursor<'_>) -> Result<Listed> {
    let (name, span) = c.identifier("a feature's name")?;
    check_column_name(&name).map_err(|e| e.with_span(span))?;
    let end = |c: &Cursor<'_>| c.is_token(&Token::Comma) || c.is_token(&Token::RParen) || c.is("COMMENT") || c.is("TAGS");
    let data_type = if end(c) { None } else { Some(c.data_type()?) };
    let (mut comment, mut tags) = (None, Tags::new());
    loop {
        if c.eat("COMMENT") {
            comment = Some(c.string("a text in quotes after COMMENT")?);
        } else if c.eat("TAGS") {
            tags = c.tags()?;
        } else {
            break;
        }
    }
    Ok(Listed { name, data_type, comment, tags, span })
}

/// Who carries out REFRESH EVERY.
pub(super) fn scheduled(name: &Name) -> String {
    format!("REFRESH EVERY of feature view {name} runs in remige serve; without a server run REFRESH FEATURE VIEW {name} from a job")
}

/// What the query or the column list says about a view.
struct Derived {
    features: Vec<Feature>,
    snapshot: bool,
    windowed: Option<Windowed>,
}

#[async_trait]
impl Statement for CreateFeatureView {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let names = p.names();
        let catalog = names.catalog();
        let name = names.name(&self.name);
        catalog.schema(&name.schema).map_err(|e| e.or_span(self.name.span))?;
        if name.schema == "system" {
            return Err(Error::denied("schema system is read-only").or_span(self.name.span));
        }
        let mut keys: Vec<Column> = vec![];
        let mut entities = vec![];
        for n in &self.entities {
            let entity = catalog
                .entity(&names.name(n))
                .map_err(|e| e.or_span(n.span).or_hint(&format!("CREATE ENTITY {} KEY (column TYPE) declares it", n.name)))?;
            for key in &entity.keys {
                if keys.iter().any(|k| k.name == key.name) {
                    return Err(Error::invalid(format!("two entities of feature view {name} have a key {:?}", key.name)).or_span(n.span));
                }
                keys.push(key.clone());
            }
            entities.push(entity.name.clone());
        }
        let derived = match &self.query {
            Some((query, place)) => self.derive_from_query(p, &name, &keys, query, *place).await?,
            None => self.derive_from_list(&name, &keys)?,
        };
        let pushed = self.query.is_none() || derived.windowed.as_ref().is_some_and(|w| w.pushed);
        if derived.snapshot && self.lookback.is_some_and(|l| l > 0) {
            return Err(Error::invalid(format!(
                "feature view {name} is a snapshot view (its event timestamp is now()): LOOKBACK has no meaning"
            ))
            .with_hint("leave LOOKBACK out: every run adds one snapshot and changes no other"));
        }
        if pushed && (self.refresh_every.is_some() || self.lookback.is_some()) {
            return Err(Error::invalid(format!(
                "feature view {name} is a push view: REFRESH EVERY and LOOKBACK have no meaning, its rows come by INSERT"
            )));
        }
        if self.refresh_every.is_some() {
            names.notice(scheduled(&name));
        }
        let id = new_id();
        let view = FeatureView {
            name: name.clone(),
            version: 1,
            table_id: id.clone(),
            location: name.folder("features", &id),
            online_id: 0,
            entities,
            keys,
            event_timestamp: self.event.0.clone(),
            event_zone: self.zone.as_ref().map(|z| z.0.clone()),
            created_timestamp: self.created.as_ref().map(|c| c.0.clone()),
            features: derived.features,
            ttl: self.ttl,
            lookback: self.lookback.unwrap_or(0),
            refresh_every: self.refresh_every,
            suspended: false,
            online: self.online,
            query: self.query.as_ref().map(|(q, _)| q.clone()),
            query_schema: names.schema().to_string(),
            reads: if pushed { vec![] } else { p.dependencies() },
            snapshot: derived.snapshot,
            windowed: derived.windowed.map(Box::new),
            about: self.about.clone(),
            created_at: p.now(),
        };
        let exists = Exists::of(self.or_replace, self.if_not_exists);
        let outcome = feature_view_outcome(catalog, &view, exists).map_err(|e| e.or_span(self.name.span))?;
        let latest = catalog.feature_views.get(&name).and_then(|s| s.latest()).filter(|_| exists == Exists::Keep);
        let differs = latest
            .is_some_and(|old| kept::tell(p, "feature view", &name, &show_create::feature_view(old), &show_create::feature_view(&view)));
        for notice in outcome.notices.iter().filter(|_| !differs) {
            names.notice(notice.clone());
        }
        let command = Command::Ddl(Ddl::CreateFeatureView { view, exists });
        Planned::noted("CREATE FEATURE VIEW", command, vec![], Some(outcome.what.to_string()))
    }
}

impl CreateFeatureView {
    fn derive_from_list(&self, name: &Name, keys: &[Column]) -> Result<Derived> {
        let mut features = vec![];
        for l in &self.columns {
            let Some(t) = &l.data_type else {
                return Err(Error::syntax(format!("column {:?} of push view {name} needs a type", l.name))
                    .with_span(l.span)
                    .with_hint("without AS the list gives the types: (total_orders BIGINT, …)"));
            };
            let fixed =
                keys.iter().find(|k| k.name == l.name).map(|k| k.data_type.clone()).or_else(|| {
                    (l.name == self.event.0 || Some(&l.name) == self.created.as_ref().map(|c| &c.0)).then(ColumnType::timestamp)
                });
            match fixed {
                Some(f) if f == *t => continue,
                Some(f) => return Err(Error::invalid(format!("column {:?} is {f}, not {t}", l.name)).with_span(l.span)),
                None => {}
            }
            if features.iter().any(|f: &Feature| f.name == l.name) {
                return Err(Error::invalid(format!("two features of feature view {name} are called {:?}", l.name)).with_span(l.span));
            }
            features.push(Feature { comment: l.comment.clone(), tags: l.tags.clone(), ..Feature::new(l.name.clone(), t.clone()) });
        }
        self.distinct(name, keys)?;
        if features.is_empty() {
            return Err(Error::invalid(format!("push view {name} has no features")).or_span(self.name.span));
        }
        Ok(Derived { features, snapshot: false, windowed: None })
    }

    fn distinct(&self, name: &Name, keys: &[Column]) -> Result<()> {
        let clash = |what: &str, column: &str, span: Span| {
            Err(Error::invalid(format!("{what} {column:?} of feature view {name} is also a key")).with_span(span))
        };
        if keys.iter().any(|k| k.name == self.event.0) {
            return clash("event timestamp", &self.event.0, self.event.1);
        }
        if let Some((c, span)) = &self.created {
            if keys.iter().any(|k| k.name == *c) {
                return clash("created timestamp", c, *span);
            }
            if *c == self.event.0 {
                return Err(
                    Error::invalid(format!("feature view {name}: event and created timestamp are the same column {c:?}")).with_span(*span)
                );
            }
        }
        Ok(())
    }
}
