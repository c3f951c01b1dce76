//! Settings from `remige.toml`, the environment and flags.

use std::path::Path;

use super::Config;
use super::settings::{SETTINGS, Setting};
use crate::error::{Error, Result, nearest};

/// The settings file that is read from the working directory when it is there.
pub const FILE_NAME: &str = "remige.toml";

/// Variables that begin with `REMIGE_` and are no settings.
const OTHER_VARIABLES: [&str; 3] = ["REMIGE_CONFIG", "REMIGE_LOG", "REMIGE_TARGET_DIR"];

/// One setting given on the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    pub setting: String,
    pub value: String,
    /// The flag as the user wrote it, for messages: `--listen`.
    pub shown: String,
}

#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// Variables that look like settings and are none.
    pub warnings: Vec<String>,
}

/// Puts the settings together, lowest precedence first: defaults, file, environment, flags.
///
/// # Errors
/// An unknown setting or a value out of its range; the message names the source, never a secret.
pub fn load(file: Option<(&str, &str)>, env: impl IntoIterator<Item = (String, String)>, flags: &[Flag]) -> Result<Loaded> {
    let mut config = match file {
        Some((name, text)) => load_text(name, text)?,
        None => Config::default(),
    };
    let warnings = apply_env(&mut config, env)?;
    for flag in flags {
        let setting = Setting::find(&flag.setting).ok_or_else(|| unknown(&flag.shown, &flag.setting, setting_names()))?;
        setting.set(&mut config, &flag.value).map_err(|rule| Error::invalid(format!("{} {rule}", flag.shown)))?;
    }
    if config.server.tls_cert.is_some() != config.server.tls_key.is_some() {
        return Err(Error::invalid("of tls_cert and tls_key only one is set").with_hint("give both, or none"));
    }
    Ok(Loaded { config, warnings })
}

/// The text of the settings file: `path` where given, else `remige.toml` where there is one.
pub fn read_file(path: Option<&Path>) -> Result<Option<(String, String)>> {
    let wanted = path.unwrap_or(Path::new(FILE_NAME));
    match std::fs::read_to_string(wanted) {
        Ok(text) => Ok(Some((wanted.display().to_string(), text))),
        Err(e) if path.is_none() && e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::from(e).context(format!("settings file {}", wanted.display()))),
    }
}

/// Defaults, changed by the text of a settings file called `name`.
pub fn load_text(name: &str, text: &str) -> Result<Config> {
    let mut config = Config::default();
    // The parser's own rendering quotes the line, which may hold a password.
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
        let line = e.span().map_or(1, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
        Error::invalid(format!("{name}, line {line}: {}", e.message()))
    })?;
    for (key, value) in &table {
        match value {
            toml::Value::Table(section) => {
                if !SETTINGS.iter().any(|s| s.name.split_once('.').is_some_and(|(of, _)| of == key)) {
                    return Err(unknown(
                        name,
                        &format!("[{key}]"),
                        ["[online_settings]", "[push]", "[maintenance]", "[schedule]", "[server]"],
                    ));
                }
                for (inner, value) in section {
                    apply_value(&mut config, name, &format!("{key}.{inner}"), value)?;
                }
            }
            _ => apply_value(&mut config, name, key, value)?,
        }
    }
    Ok(config)
}

fn apply_value(config: &mut Config, file: &str, key: &str, value: &toml::Value) -> Result<()> {
    let setting = Setting::find(key).ok_or_else(|| unknown(file, key, setting_names()))?;
    let text = match value {
        toml::Value::String(s) => s.clone(),
        toml::Value::Integer(i) => i.to_string(),
        toml::Value::Float(f) => f.to_string(),
        other => return Err(Error::invalid(format!("{file}: {key} must be a text or a number, not {}", other.type_str()))),
    };
    setting.set(config, &text).map_err(|rule| Error::invalid(format!("{file}: {key} {rule}")))
}

fn apply_env(config: &mut Config, env: impl IntoIterator<Item = (String, String)>) -> Result<Vec<String>> {
    let names: Vec<(String, &Setting)> = SETTINGS.iter().map(|s| (s.variable(), s)).collect();
    let mut warnings = Vec::new();
    let mut seen: Vec<(String, String)> = env.into_iter().filter(|(k, v)| k.starts_with("REMIGE_") && !v.is_empty()).collect();
    seen.sort();
    for (variable, value) in seen {
        if OTHER_VARIABLES.contains(&variable.as_str()) || variable.starts_with("REMIGE_TEST_") {
            continue;
        }
        if let Some((_, setting)) = names.iter().find(|(name, _)| *name == variable) {
            setting.set(config, &value).map_err(|rule| Error::invalid(format!("environment variable {variable} {rule}")))?;
            continue;
        }
        // Orchestrators inject variables such as REMIGE_PORT for a service of that name: only what
        // looks like a slip of the pen stops us.
        let bare = |name: &str| name.trim_start_matches("REMIGE_").to_string();
        let candidates: Vec<String> = names.iter().map(|(name, _)| bare(name)).collect();
        let wrong = bare(&variable);
        let by_last_part = candidates.iter().find(|c| c.ends_with(&format!("_{wrong}"))).cloned();
        match nearest(&wrong, candidates.iter().map(String::as_str)).or(by_last_part) {
            Some(best) => {
                return Err(Error::invalid(format!("environment variable {variable} is not a setting"))
                    .with_hint(format!("did you mean \"REMIGE_{best}\"?")));
            }
            None => warnings.push(format!("environment variable {variable} is not a setting and was ignored")),
        }
    }
    Ok(warnings)
}

fn setting_names() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|s| s.name)
}

fn unknown(place: &str, wrong: &str, known: impl IntoIterator<Item = &'static str>) -> Error {
    let known: Vec<&str> = known.into_iter().collect();
    // `listen` at the top of the file is `server.listen` in the wrong section.
    let last = wrong.rsplit('.').next().unwrap_or(wrong);
    let moved = known.iter().find(|k| k.rsplit('.').next() == Some(last));
    let near = moved.map(|k| k.to_string()).or_else(|| nearest(wrong, known.iter().copied()));
    let near = near.or_else(|| {
        let lasts: Vec<(&str, &str)> = known.iter().map(|k| (k.rsplit('.').next().unwrap_or(k), *k)).collect();
        let best = nearest(last, lasts.iter().map(|(l, _)| *l))?;
        lasts.iter().find(|(l, _)| *l == best).map(|(_, k)| k.to_string())
    });
    let error = Error::invalid(format!("{place}: {wrong} is not a setting"));
    match near {
        Some(best) => error.with_hint(format!("did you mean {best:?}?")),
        None => error.with_hint(format!("the settings are {}", known.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    fn flag(setting: &str, value: &str) -> Flag {
        Flag { setting: setting.into(), value: value.into(), shown: format!("--{setting}") }
    }

    #[test]
    fn flags_win_over_variables_over_file_over_defaults() {
        let file = Some(("r.toml", "warehouse = 'f'\nschema = 'f'\nthreads = 3\n[server]\nlisten = '127.0.0.1:1'"));
        let vars = env(&[("REMIGE_WAREHOUSE", "e"), ("REMIGE_SCHEMA", "e"), ("REMIGE_SERVER_LISTEN", "127.0.0.1:2"), ("HOME", "/")]);
        let c = load(file, vars, &[flag("warehouse", "g")]).unwrap().config;
        assert_eq!((c.warehouse.as_str(), c.schema.as_str(), c.threads), ("g", "e", 3));
        assert_eq!((c.server.listen.as_str(), c.batch_size), ("127.0.0.1:2", 8192));
    }

    #[test]
    fn unknown_settings_name_the_nearest() {
        let hint = |text: &str| load_text("r.toml", text).unwrap_err().to_string();
        assert_eq!(hint("warehous = 'x'"), "r.toml: warehous is not a setting (help: did you mean \"warehouse\"?)");
        assert_eq!(hint("listen = 'x'"), "r.toml: listen is not a setting (help: did you mean \"server.listen\"?)");
        assert_eq!(hint("[server]\nlisen = 'x'"), "r.toml: server.lisen is not a setting (help: did you mean \"server.listen\"?)");
        assert_eq!(hint("[sever]\nx = 1"), "r.toml: [sever] is not a setting (help: did you mean \"[server]\"?)");
        assert!(hint("zzzzzz = 1").contains("the settings are warehouse, schema"));
        let e = load(None, env(&[("REMIGE_WAREHOSUE", "x")]), &[]).unwrap_err().to_string();
        assert!(e.contains("REMIGE_WAREHOSUE is not a setting") && e.contains("\"REMIGE_WAREHOUSE\""), "{e}");
        let e = load(None, env(&[("REMIGE_LISTEN", "x")]), &[]).unwrap_err().to_string();
        assert!(e.contains("\"REMIGE_SERVER_LISTEN\""), "{e}");
        let e = load(None, [], &[flag("memory-limit", "x")]).unwrap_err().to_string();
        assert!(e.contains("\"memory_limit\""), "{e}");
    }

    #[test]
    fn variables_of_others_only_warn() {
        let l = load(None, env(&[("REMIGE_SERVICE_HOST", "10.0.0.1"), ("REMIGE_TEST_REDIS", "x"), ("REMIGE_LOG", "debug")]), &[]).unwrap();
        assert_eq!(l.warnings, ["environment variable REMIGE_SERVICE_HOST is not a setting and was ignored"]);
    }

    #[test]
    fn bad_values_say_what_is_allowed() {
        let e = |text: &str| load_text("r.toml", text).unwrap_err().to_string();
        assert_eq!(e("threads = 0"), "r.toml: threads must be a whole number from 1 to 1024, not \"0\"");
        assert_eq!(e("threads = true"), "r.toml: threads must be a text or a number, not boolean");
        assert_eq!(e("memory_limit = '1KB'"), "r.toml: memory_limit must be at least 16MiB, not \"1KB\"");
        assert!(e("clock_tolerance = 5").contains("with its unit"), "{}", e("clock_tolerance = 5"));
        assert!(e("[server]\nlisten = 'localhost'").contains("HOST:PORT"));
        assert!(load(None, env(&[("REMIGE_SERVER_TLS_CERT", "c.pem")]), &[]).unwrap_err().to_string().contains("give both"));
    }

    #[test]
    fn messages_never_hold_a_password() {
        let e = load_text("r.toml", "online = 'reddis://u:hunter2@h:1/0'").unwrap_err().to_string();
        assert!(e.contains("redis+cluster://") && !e.contains("hunter2"), "{e}");
        let e = load_text("r.toml", "a = 1\nonline = 'redis://u:hunter2@h").unwrap_err().to_string();
        assert!(e.contains("line 2") && !e.contains("hunter2"), "{e}");
        let c = Config { online: "redis://u:hunter2@h:1/0?x=hunter2".into(), ..Config::default() };
        assert_eq!(c.online_shown(), "redis://h:1/0");
        assert!(!format!("{c:?}").contains("hunter2"));
    }
}
