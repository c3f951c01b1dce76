use std::collections::BTreeMap;

use datafusion::catalog::Session;

use super::Scan;
use super::declare::system_table;
use crate::config::SETTINGS;
use crate::error::Result;
use crate::operator::pit_join::PitStrategy;
use crate::statement::VARIABLES;

system_table! {
    /// Variables of the session, then settings of the process.
    settings {
        /// Its name, as SET or `remige.toml` says it.
        name: Text,
        /// Its value now, without credentials.
        value: Text,
        /// What it is for.
        meaning: Text,
    }
}

/// What a session has SET; an extension of the statement's session configuration.
#[derive(Debug, Clone, Default)]
pub struct Variables(pub BTreeMap<String, String>);

async fn rows(scan: &Scan, _: Wanted) -> Result<Vec<Row>> {
    let row = |name: &str, value, meaning: String| Row { name: Some(name.into()), value, meaning: Some(meaning) };
    let own = VARIABLES.iter().map(|(n, meaning)| row(n, scan.variables.get(n).cloned(), meaning.to_string()));
    let fixed = SETTINGS.iter().filter(|s| !VARIABLES.iter().any(|(n, _)| *n == s.name));
    let fixed = fixed.map(|s| row(s.name, s.shown(&scan.services.config), s.meaning()));
    Ok(own.chain(fixed).collect())
}

/// The session's variables as they stand, by name.
pub fn variables(state: &dyn Session) -> BTreeMap<&'static str, String> {
    let options = state.config_options();
    let set = state.config().get_extension::<Variables>().unwrap_or_default();
    let value = |name: &str| match name {
        "schema" => options.catalog.default_schema.clone(),
        "batch_size" => options.execution.batch_size.to_string(),
        "threads" => options.execution.target_partitions.to_string(),
        "pit_join_strategy" => set.0.get(name).cloned().unwrap_or_else(|| PitStrategy::default().to_string()),
        "pit_join_parts" => set.0.get(name).cloned().unwrap_or_else(|| "1".to_string()),
        other => set.0.get(other).cloned().unwrap_or_default(),
    };
    VARIABLES.iter().map(|(name, _)| (*name, value(name))).collect()
}
