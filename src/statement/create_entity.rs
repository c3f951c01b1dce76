//! `CREATE [OR REPLACE] ENTITY [IF NOT EXISTS] user KEY (user_id BIGINT, …) [COMMENT …] [OWNER …] [TAGS …]`

use super::{Head, Parsed, Planned, Planning, Statement, about, kept, show_create};
use crate::catalog::ddl::{Ddl, Exists};
use crate::error::{Error, Result};
use crate::model::layout::check_column_name;
use crate::model::{About, Column, Entity};
use crate::sql::cursor::NameRef;
use async_trait::async_trait;

#[derive(Debug, Clone)]
pub struct CreateEntity {
    name: NameRef,
    or_replace: bool,
    if_not_exists: bool,
    keys: Vec<Column>,
    about: About,
}

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    let Head { cursor: mut c, or_replace, .. } = head;
    let if_not_exists = c.eat("IF NOT EXISTS");
    about::exclusive(&c, or_replace, if_not_exists)?;
    let name = c.plain_name("the entity's name")?;
    let (mut keys, mut about) = (vec![], About::default());
    loop {
        if keys.is_empty() && (c.eat("KEY") || c.eat("KEYS")) {
            keys = c.list(|c| {
                let here = c.here();
                let key = c.column()?;
                key.data_type.check_key(&key.name).map_err(|e| e.with_span(here))?;
                check_column_name(&key.name).map_err(|e| e.with_span(here))?;
                Ok((key, here))
            })?;
        } else if !about::clause(&mut c, &mut about)? {
            break;
        }
    }
    if keys.is_empty() {
        return Err(c.expected("KEY (column TYPE, …)"));
    }
    for (i, (key, here)) in keys.iter().enumerate() {
        if keys[..i].iter().any(|(k, _)| k.name == key.name) {
            return Err(Error::syntax(format!("key {:?} is listed twice", key.name)).with_span(*here));
        }
    }
    c.end(&about::CLAUSES)?;
    let keys = keys.into_iter().map(|(k, _)| k).collect();
    Ok(Box::new(CreateEntity { name, or_replace, if_not_exists, keys, about }))
}

#[async_trait]
impl Statement for CreateEntity {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let name = p.names().name(&self.name);
        let entity = Entity { name: name.clone(), keys: self.keys, about: self.about, created_at: p.now() };
        if self.if_not_exists
            && let Some(old) = p.names().catalog().entities.get(&name)
        {
            kept::tell(p, "entity", &name, &show_create::entity(old), &show_create::entity(&entity));
        }
        let ddl = Ddl::CreateEntity { entity, exists: Exists::of(self.or_replace, self.if_not_exists) };
        p.allows(&ddl).map_err(|e| e.or_span(self.name.span))?;
        Planned::ddl("CREATE ENTITY", ddl)
    }
}
