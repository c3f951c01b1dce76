//! The flags, and the settings that they stand for.

use std::path::PathBuf;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use remige::config::{Flag, WAREHOUSE};

use super::output::Format;

const HELP: &str = "\
Examples:
  remige init demo                        make a starter project
  remige sql                              open a shell on ./warehouse
  remige sql -f features.sql              run a script
  remige serve --listen 127.0.0.1:8815    serve the warehouse over Arrow Flight SQL

Settings: a flag wins over an environment variable (REMIGE_WAREHOUSE, REMIGE_ONLINE, …), that over remige.toml,
that over the default. `remige init` writes a remige.toml that lists them all. REMIGE_LOG=debug shows logs.";

const SQL_HELP: &str = "\
Examples:
  remige sql -c 'SHOW FEATURE VIEWS'
  remige sql -w /data/features -f 1_declare.sql -f 2_refresh.sql
  remige sql --format json -c 'SELECT * FROM user_features' | jq .user_id
  echo 'SELECT 1' | remige sql --format csv
  remige sql --connect grpc://127.0.0.1:8815

Without -c and -f: a shell on a terminal, else the statements come from standard input.
Results go to standard output; notices, progress and errors to standard error.
Exit code 0: all statements worked. 1: one failed, later ones were not run. 2: wrong usage.";

const SERVE_HELP: &str = "\
Examples:
  remige serve
  remige serve -w /data/warehouse --listen 127.0.0.1:0 --metrics 127.0.0.1:9815
  REMIGE_ONLINE=redis://:secret@redis:6379/0 remige serve --listen 0.0.0.0:8815 --tls-cert server.crt --tls-key server.key

Prints `remige ready grpc://HOST:PORT` on standard output once it accepts calls. On SIGTERM or SIGINT it takes no
new work, lets running statements finish within server.shutdown_grace, and exits with 0.";

const INIT_HELP: &str = "\
Example:
  remige init demo && cd demo && remige sql -f 1_declare.sql

DIR must not exist or be empty.";

/// A SQL-native feature warehouse: declare features once, join them point in time, serve them online.
#[derive(Debug, Parser)]
#[command(name = "remige", version, after_help = HELP, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run SQL: statements, scripts, or an interactive shell
    #[command(after_help = SQL_HELP)]
    Sql(SqlArgs),
    /// Serve a warehouse over Arrow Flight SQL
    #[command(after_help = SERVE_HELP)]
    Serve(ServeArgs),
    /// Make a starter project
    #[command(after_help = INIT_HELP)]
    Init {
        /// The directory to make
        dir: PathBuf,
    },
}

/// Settings that `sql` and `serve` share. Values are checked where all settings are, so they stay texts here.
#[derive(Debug, Args)]
pub struct Common {
    #[arg(short, long, value_name = "WAREHOUSE", help = format!("{} [default: warehouse]", WAREHOUSE.trim_end_matches('.')))]
    pub warehouse: Option<String>,
    /// Online store: embedded or redis://HOST:PORT/DB (passwords belong into REMIGE_ONLINE) [default: embedded]
    #[arg(long, value_name = "STORE")]
    pub online: Option<String>,
    /// Memory for sorting, joining and buffering, such as 4GB [default: half of the machine's]
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<String>,
    /// Partitions that a query works on at once [default: number of cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<String>,
    /// Where operators put what does not fit into memory
    #[arg(long, value_name = "DIR")]
    pub spill_dir: Option<String>,
    /// Any other setting, by its name in remige.toml; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Settings file; default: remige.toml, where there is one [env: REMIGE_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct SqlArgs {
    /// SQL to run; may be repeated and mixed with -f, in the given order
    #[arg(short, long = "command", value_name = "SQL", allow_hyphen_values = true)]
    pub command: Vec<String>,
    /// Script to run, - for standard input; may be repeated
    #[arg(short, long = "file", value_name = "FILE")]
    pub file: Vec<PathBuf>,
    /// How results are written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Schema that bare names mean at the start [default: public]
    #[arg(long, value_name = "NAME")]
    pub schema: Option<String>,
    /// Be a client of a server: grpc[+tls]://[USER:PASSWORD@]HOST:PORT
    #[arg(long, value_name = "URL", conflicts_with_all = ["warehouse", "online", "memory_limit", "threads", "spill_dir", "set", "config"])]
    pub connect: Option<String>,
    /// With grpc+tls: certificate authorities to trust (PEM) [default: the system's]
    #[arg(long, value_name = "FILE", requires = "connect")]
    pub tls_ca: Option<PathBuf>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on; port 0 picks a free one [default: 127.0.0.1:8815]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Schema that bare names mean at the start of a session [default: public]
    #[arg(long, value_name = "NAME")]
    pub schema: Option<String>,
    /// Certificate (PEM); needed, with --tls-key, to listen beyond this machine
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<String>,
    /// Private key (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<String>,
    /// Serve Prometheus metrics at http://HOST:PORT/metrics
    #[arg(long, value_name = "HOST:PORT")]
    pub metrics: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

/// One piece of SQL to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Text(String),
    File(PathBuf),
}

/// The command line and, for `sql`, its inputs in the given order. Help and wrong usage end in the error.
pub fn parse<I: IntoIterator<Item = T>, T: Into<std::ffi::OsString> + Clone>(args: I) -> Result<(Cli, Vec<Input>), clap::Error> {
    let matches = Cli::command().try_get_matches_from(args)?;
    let cli = Cli::from_arg_matches(&matches)?;
    let inputs = matches.subcommand_matches("sql").map(inputs).unwrap_or_default();
    Ok((cli, inputs))
}

fn inputs(matches: &ArgMatches) -> Vec<Input> {
    let mut found: Vec<(usize, Input)> = Vec::new();
    if let (Some(at), Some(texts)) = (matches.indices_of("command"), matches.get_many::<String>("command")) {
        found.extend(at.zip(texts.cloned().map(Input::Text)));
    }
    if let (Some(at), Some(files)) = (matches.indices_of("file"), matches.get_many::<PathBuf>("file")) {
        found.extend(at.zip(files.cloned().map(Input::File)));
    }
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, input)| input).collect()
}

impl Common {
    /// `--set` first, so that a flag of its own wins over it.
    fn flags(&self) -> Result<Vec<Flag>, String> {
        let mut flags = Vec::new();
        for pair in &self.set {
            // The text may be a password: it is not repeated.
            let (name, value) = pair.split_once('=').ok_or("--set needs NAME=VALUE, such as --set server.max_sessions=100")?;
            let name = name.trim();
            flags.push(Flag { setting: name.into(), value: value.into(), shown: format!("--set {name}") });
        }
        let own = [
            ("warehouse", "--warehouse", &self.warehouse),
            ("online", "--online", &self.online),
            ("memory_limit", "--memory-limit", &self.memory_limit),
            ("threads", "--threads", &self.threads),
            ("spill_dir", "--spill-dir", &self.spill_dir),
        ];
        flags.extend(given(&own));
        Ok(flags)
    }
}

impl SqlArgs {
    pub fn flags(&self) -> Result<Vec<Flag>, String> {
        let mut flags = self.common.flags()?;
        flags.extend(given(&[("schema", "--schema", &self.schema)]));
        Ok(flags)
    }
}

impl ServeArgs {
    pub fn flags(&self) -> Result<Vec<Flag>, String> {
        let mut flags = self.common.flags()?;
        flags.extend(given(&[
            ("schema", "--schema", &self.schema),
            ("server.listen", "--listen", &self.listen),
            ("server.tls_cert", "--tls-cert", &self.tls_cert),
            ("server.tls_key", "--tls-key", &self.tls_key),
            ("server.metrics", "--metrics", &self.metrics),
        ]));
        Ok(flags)
    }
}

fn given(own: &[(&str, &str, &Option<String>)]) -> Vec<Flag> {
    let one = |(setting, shown, value): &(&str, &str, &Option<String>)| {
        value.as_ref().map(|v| Flag { setting: setting.to_string(), value: v.clone(), shown: shown.to_string() })
    };
    own.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use remige::config::{Setting, load};

    use super::*;

    #[test]
    fn clap_finds_no_fault() {
        Cli::command().debug_assert();
    }

    #[test]
    fn inputs_keep_their_order() {
        let (_, inputs) = parse(["remige", "sql", "-c", "a", "-f", "b.sql", "--command", "c", "-f-"]).unwrap();
        let (text, file) = (|t: &str| Input::Text(t.into()), |f: &str| Input::File(f.into()));
        assert_eq!(inputs, [text("a"), file("b.sql"), text("c"), file("-")]);
        assert_eq!(parse(["remige", "serve"]).unwrap().1, []);
    }

    #[test]
    fn a_statement_may_begin_with_a_comment() {
        assert_eq!(parse(["remige", "sql", "-c", "-- x"]).unwrap().1, [Input::Text("-- x".into())]);
    }

    #[test]
    fn wrong_usage_exits_with_2_and_help_with_0() {
        for wrong in [
            &["remige", "sql", "--formt", "csv"][..],
            &["remige", "sql", "--format", "xml"],
            &["remige", "sql", "--connect", "grpc://h:1", "-w", "x"],
            &["remige", "frob"],
            &["remige", "init"],
        ] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        for sub in ["sql", "serve", "init"] {
            let help = parse(["remige", sub, "--help"]).unwrap_err();
            assert_eq!(help.exit_code(), 0);
            assert!(help.to_string().contains("Example"), "{sub}");
        }
    }

    #[test]
    fn every_flag_is_a_setting_and_wins_over_set() {
        let all = ["-w=w", "--online=embedded", "--memory-limit=1GiB", "--threads=3", "--spill-dir=/s", "--schema=s", "--listen=h:1"];
        let more = ["--tls-cert=c", "--tls-key=k", "--metrics=h:2", "--set=threads=9", "--set=server.max_sessions=5"];
        let (cli, _) = parse(["remige", "serve"].iter().chain(&all).chain(&more)).unwrap();
        let Command::Serve(args) = cli.command else { panic!("not serve") };
        let flags = args.flags().unwrap();
        assert!(flags.iter().all(|f| Setting::find(&f.setting).is_some()));
        let config = load(None, [], &flags).unwrap().config;
        assert_eq!((config.threads, config.server.max_sessions, config.memory_limit), (3, 5, 1 << 30));
        assert_eq!((config.server.metrics.as_deref(), config.server.listen.as_str(), config.schema.as_str()), (Some("h:2"), "h:1", "s"));
    }
}
