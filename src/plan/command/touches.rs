//! Which objects a command touches: what grants, audit and a dry run go by.

use super::{Command, DeleteTarget, IngestMode, TrainingSetSpec, VerifyTarget};
use crate::catalog::ddl::{Access, Privilege, Touch};
use crate::model::{ObjectKind, ViewVersionId};

impl Command {
    /// Every object that the command names; what its query reads is known by the statement's names.
    pub fn touches(&self) -> Vec<Touch> {
        use Access::{Create, Read, Write};
        let view =
            |access, privilege, id: &ViewVersionId| Touch::new(access, privilege, ObjectKind::FeatureView, &id.name).at(Some(id.version));
        match self {
            Command::Ddl(ddl) => ddl.touches(),
            Command::Nothing { what: _ } => vec![],
            Command::CreateTableAs { table, exists: _ } => {
                vec![Touch::new(Create, Privilege::Create, ObjectKind::Table, &table.name)]
            }
            Command::CreateTrainingSet(TrainingSetSpec { name, query: _, query_schema: _, exists: _, about: _ }) => {
                vec![Touch::new(Create, Privilege::Create, ObjectKind::TrainingSet, name)]
            }
            Command::RebuildTrainingSet(name) => vec![Touch::new(Read, Privilege::Select, ObjectKind::TrainingSet, name)],
            Command::Delete(d) => match &d.target {
                DeleteTarget::FeatureView(id) => vec![view(Write, Privilege::Manage, id)],
                DeleteTarget::Table { name, location: _ } => vec![Touch::new(Write, Privilege::Manage, ObjectKind::Table, name)],
            },
            Command::AlterTable(a) => vec![Touch::new(Write, Privilege::Manage, ObjectKind::Table, &a.table)],
            Command::Ingest { table, mode } => {
                let (access, privilege) = match mode {
                    IngestMode::Create | IngestMode::CreateOrAppend => (Create, Privilege::Create),
                    IngestMode::Append => (Write, Privilege::Insert),
                    IngestMode::Replace => (Create, Privilege::Manage),
                };
                vec![Touch { access, privilege, kind: None, object: table.clone(), version: None }]
            }
            Command::Refresh { views, range: _, at: _ } => views.iter().map(|v| view(Write, Privilege::Refresh, v)).collect(),
            Command::Materialize { views, extent: _ } => views.iter().map(|v| view(Write, Privilege::Materialize, v)).collect(),
            Command::Optimize { view: id } => vec![view(Write, Privilege::Manage, id)],
            Command::Vacuum { view: id, retain: _, dry_run } => {
                vec![view(if *dry_run { Read } else { Write }, Privilege::Manage, id)]
            }
            Command::Verify { target, sample: _ } => match target {
                VerifyTarget::FeatureView(id) => vec![view(Read, Privilege::Select, id)],
                VerifyTarget::Service(name) => vec![Touch::new(Read, Privilege::Select, ObjectKind::FeatureService, name)],
            },
            // what a named statement touches is asked of its own plan
            Command::Prepare { .. } | Command::Execute { .. } | Command::Deallocate { .. } => vec![],
            Command::Use { schema: _ } | Command::Set { variable: _, value: _ } | Command::Reset { variable: _ } => vec![],
        }
    }
}
