//! `remige init`: a starter project that runs as it is.

use std::io::{self, Write};
use std::path::Path;

use remige::clock::{Clock, DAY, HOUR, MINUTE, Micros, format_micros};
use remige::config::{FILE_NAME, example_file};
use remige::error::{Error, Result};

const CUSTOMERS: u64 = 40;
const DAYS: i64 = 30;
const ORDERS: u64 = 600;
const VISITS: u64 = 200;

pub const SCRIPTS: [(&str, &str); 4] = [
    ("1_declare.sql", include_str!("../../sql/starter/1_declare.sql")),
    ("2_refresh.sql", include_str!("../../sql/starter/2_refresh.sql")),
    ("3_train.sql", include_str!("../../sql/starter/3_train.sql")),
    ("4_serve.sql", include_str!("../../sql/starter/4_serve.sql")),
];

pub fn run(dir: &Path) -> Result<()> {
    create(dir, &Clock::system())?;
    let shown = dir.display();
    let mut text = format!("Made a starter project in {shown}. Next:\n\n  cd {shown}\n");
    for (name, _) in SCRIPTS {
        text.push_str(&format!("  remige sql -f {name}\n"));
    }
    // The project is made, whether anybody reads this or not.
    let _ = writeln!(io::stdout(), "{text}\nEach script says what it does; {FILE_NAME} lists every setting.");
    Ok(())
}

/// Writes the project into `dir`, which must not exist or be empty.
pub fn create(dir: &Path, clock: &Clock) -> Result<()> {
    let named = |e: io::Error| Error::from(e).context(dir.display());
    std::fs::create_dir_all(dir).map_err(named)?;
    if std::fs::read_dir(dir).map_err(named)?.next().is_some() {
        return Err(Error::already_exists(format!("{} is not empty", dir.display())).with_hint("name a directory that does not exist yet"));
    }
    // The samples end today: what is looked up online must not have expired.
    let now = clock.now();
    let end = now - now.rem_euclid(HOUR) - HOUR;
    let mut files = vec![
        (FILE_NAME.to_string(), example_file()),
        (".gitignore".to_string(), "/warehouse/\n/train.parquet\n".to_string()),
        ("data/orders.csv".to_string(), orders(end)),
        ("data/visits.csv".to_string(), visits(end)),
    ];
    files.extend(SCRIPTS.map(|(name, text)| (name.to_string(), text.to_string())));
    std::fs::create_dir_all(dir.join("data")).map_err(named)?;
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|e| Error::from(e).context(path.display()))?;
    }
    Ok(())
}

fn orders(end: Micros) -> String {
    let mut text = String::from("order_id,customer_id,amount,ordered_at\n");
    for n in 0..ORDERS {
        let customer = 1 + mixed(n, 1) % CUSTOMERS;
        let cents = 500 + mixed(n, 2) % 19_500;
        text.push_str(&format!("{},{customer},{}.{:02},{}\n", n + 1, cents / 100, cents % 100, time(end, n, ORDERS)));
    }
    text
}

/// Somebody looks at a basket; did they buy? Who has a small basket does so more often.
fn visits(end: Micros) -> String {
    let mut text = String::from("customer_id,visited_at,basket,bought\n");
    for n in 0..VISITS {
        let customer = 1 + mixed(n, 3) % CUSTOMERS;
        let basket = 5 + mixed(n, 4) % 195;
        let bought = mixed(n, 5) % 200 > basket;
        text.push_str(&format!("{customer},{},{basket}.0,{bought}\n", time(end, n, VISITS)));
    }
    text
}

/// Row `n` of `rows`, spread over the days before `end`; no two rows share an instant.
fn time(end: Micros, n: u64, rows: u64) -> String {
    let step = DAYS * DAY / rows as Micros / MINUTE * MINUTE;
    let at = end - (rows - n) as Micros * step;
    format_micros(at).trim_end_matches('Z').to_string()
}

/// The same numbers every time, spread well (splitmix64).
fn mixed(n: u64, column: u64) -> u64 {
    let mut z = (n * 8 + column).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const NOW: Micros = 1_790_000_000_000_000;

    #[test]
    fn makes_a_project_once() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("demo");
        create(&dir, &Clock::fixed(NOW)).unwrap();
        for file in ["remige.toml", "data/orders.csv", "data/visits.csv", "1_declare.sql", "4_serve.sql", ".gitignore"] {
            assert!(dir.join(file).metadata().unwrap().len() > 0, "{file}");
        }
        let again = create(&dir, &Clock::fixed(NOW)).unwrap_err();
        assert!(again.to_string().contains("is not empty"), "{again}");
        std::fs::write(parent.path().join("file"), "").unwrap();
        assert!(create(&parent.path().join("file"), &Clock::fixed(NOW)).is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_script_runs() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("demo");
        create(&dir, &Clock::fixed(NOW)).unwrap();
        let here = |script: &str| {
            ["data/", "train.parquet"]
                .iter()
                .fold(script.to_string(), |s, f| s.replace(&format!("'{f}"), &format!("'{}/{f}", dir.display())))
        };
        let config = remige::config::Config { warehouse: dir.join("warehouse").display().to_string(), ..Default::default() };
        let session = remige::session::Engine::open(config, Clock::fixed(NOW)).await.unwrap().session();
        for (name, script) in SCRIPTS {
            for (text, ..) in remige::session::Session::split(&here(script)).unwrap() {
                session.execute(&text).await.unwrap_or_else(|e| panic!("{name}: {text}: {e}"));
            }
        }
    }

    #[test]
    fn samples_lie_before_now_and_have_no_ties() {
        let now = format_micros(NOW);
        for (text, column, rows) in [(orders(NOW), 3, ORDERS), (visits(NOW), 1, VISITS)] {
            let times: Vec<&str> = text.lines().skip(1).filter_map(|l| l.split(',').nth(column)).collect();
            assert_eq!(times.len() as u64, rows);
            assert!(times.iter().all(|t| *t < now.as_str()));
            assert_eq!(times.iter().collect::<HashSet<_>>().len() as u64, rows);
        }
        assert_eq!(visits(NOW).matches(",true").count() + visits(NOW).matches(",false").count(), VISITS as usize);
        assert!(visits(NOW).contains(",true") && visits(NOW).contains(",false"));
    }
}
