//! `DROP SCHEMA | ENTITY | TABLE | VIEW | FEATURE VIEW | FEATURE SERVICE | TRAINING SET [IF EXISTS] name [CASCADE]`

use super::{Head, Parsed, Planned, Planning, Statement};
use crate::catalog::ddl::Ddl;
use crate::error::{Error, Result, nearest};
use crate::model::VersionSpec;
use crate::plan::command::Command;
use crate::sql::cursor::NameRef;
use async_trait::async_trait;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Schema,
    Entity,
    Table,
    View,
    FeatureView,
    Service,
    TrainingSet,
}

#[derive(Debug, Clone)]
pub struct Drop {
    kind: Kind,
    name: NameRef,
    if_exists: bool,
    cascade: bool,
}

pub fn parse(head: Head<'_>) -> Result<Parsed> {
    let mut c = head.start;
    c.want("DROP")?;
    let kinds = [
        ("SCHEMA", Kind::Schema),
        ("DATABASE", Kind::Schema),
        ("ENTITY", Kind::Entity),
        ("EXTERNAL TABLE", Kind::Table),
        ("TABLE", Kind::Table),
        ("VIEW", Kind::View),
        ("FEATURE VIEW", Kind::FeatureView),
        ("FEATURE SERVICE", Kind::Service),
        ("TRAINING SET", Kind::TrainingSet),
    ];
    let Some((_, kind)) = kinds.iter().find(|(w, _)| c.eat(w)).copied() else {
        let found = c.peek(0).map(|t| t.token.to_string()).unwrap_or_default();
        let e = Error::syntax(format!("DROP {found} is not a statement")).with_span(c.here());
        return Err(match nearest(&found, kinds.iter().map(|(w, _)| w.split(' ').next().unwrap_or(w))) {
            Some(best) => e.with_hint(format!("did you mean DROP {best}?")),
            None => e.with_hint(format!("DROP can remove {}", kinds.map(|(w, _)| w).join(", "))),
        });
    };
    let if_exists = c.eat("IF EXISTS");
    let name = if kind == Kind::FeatureView { c.name("feature view")? } else { c.plain_name("name")? };
    let cascade = c.eat("CASCADE");
    if !cascade {
        c.eat("RESTRICT");
    }
    c.end(&["CASCADE"])?;
    Ok(Box::new(Drop { kind, name, if_exists, cascade }))
}

#[async_trait]
impl Statement for Drop {
    async fn plan(self: Box<Self>, p: &dyn Planning) -> Result<Planned> {
        let name = p.names().name(&self.name);
        let span = self.name.span;
        let catalog = p.names().catalog();
        let exists = match self.kind {
            Kind::Schema => catalog.schema(&self.name.name).map(|_| ()),
            Kind::Entity => catalog.entity(&name).map(|_| ()),
            Kind::Table => catalog.table(&name).map(|_| ()),
            Kind::View => catalog.view(&name).map(|_| ()),
            Kind::FeatureView => p.names().feature_view(&self.name).map(|_| ()),
            Kind::Service => catalog.service(&name).map(|_| ()),
            Kind::TrainingSet => catalog.training_set(&name).map(|_| ()),
        };
        let tag = match self.kind {
            Kind::Schema => "DROP SCHEMA",
            Kind::Entity => "DROP ENTITY",
            Kind::Table => "DROP TABLE",
            Kind::View => "DROP VIEW",
            Kind::FeatureView => "DROP FEATURE VIEW",
            Kind::Service => "DROP FEATURE SERVICE",
            Kind::TrainingSet => "DROP TRAINING SET",
        };
        if let Err(e) = exists {
            if self.if_exists && e.kind() == crate::error::Kind::NotFound {
                p.names().notice(format!("{} does not exist; nothing was dropped", self.name.name));
                let what = match self.kind {
                    Kind::Schema => format!("{tag} {}", self.name.name),
                    _ => format!("{tag} {name}"),
                };
                return Planned::command(tag, Command::Nothing { what }, vec![]);
            }
            return Err(e.or_span(span));
        }
        let version = self.name.version.and_then(VersionSpec::number);
        let ddl = match self.kind {
            Kind::Schema if self.cascade => {
                return Err(Error::not_built("DROP SCHEMA … CASCADE").or_span(span).with_hint("drop its objects one by one first"));
            }
            Kind::Schema => Ddl::DropSchema(self.name.name.clone()),
            Kind::Entity => Ddl::DropEntity(name),
            Kind::Table => Ddl::DropTable(name),
            Kind::View => Ddl::DropView(name),
            Kind::FeatureView => Ddl::DropFeatureView { name, version, cascade: self.cascade },
            Kind::Service => Ddl::DropService(name),
            Kind::TrainingSet => Ddl::DropTrainingSet(name),
        };
        p.allows(&ddl).map_err(|e| e.or_span(span))?;
        if let Ddl::DropFeatureView { name, version, .. } = &ddl {
            let services = catalog.services_using_view(name, *version);
            if !services.is_empty() {
                let services = services.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                p.names().notice(format!("CASCADE drops feature service {services}, too"));
            }
        }
        Planned::ddl(tag, ddl)
    }
}
