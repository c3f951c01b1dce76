//! What is wrong with the way the servers are set up, and their figures.

use futures::future::try_join_all;
use redis::{Value, cmd};

use super::RedisStore;
use super::link::{Repeat, Task};
use super::node::{Lane, Node};
use crate::error::{Error, Kind, Result};
use crate::store::online::Health;

/// What readers and writers run.
const READER: &[&str] = &["get", "mget"];
const WRITER: &[&str] = &[
    "set",
    "mset",
    "incr",
    "sadd",
    "srem",
    "sismember",
    "smembers",
    "sunion",
    "unlink",
    "del",
    "exists",
    "strlen",
    "scan",
    "evalsha",
    "script|load",
];

/// INFO of a server.
struct Facts(String);

impl Facts {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    fn number(&self, name: &str) -> u64 {
        self.text(name).and_then(|t| t.parse().ok()).unwrap_or(0)
    }
}

impl RedisStore {
    /// Warnings about every primary, and about what the user may not do; other facts go to the log.
    pub(super) async fn look_over(&self) -> Result<Vec<String>> {
        // What every lookup does, so that a wrong password or a missing right is an error here.
        let get = Task { slot: 0, command: cmd("GET").arg("remige:").take() };
        self.link.run(Lane::Read, vec![get], Repeat::Yes).await.map_err(|f| self.fault(f))?;
        let map = self.link.map().await.map_err(|f| self.fault(f))?;
        let mut warnings = vec![];
        let uncovered = map.uncovered();
        if uncovered > 0 {
            warnings.push(format!(
                "the online store {}: {uncovered} of 16384 slots are on no server, and the features in them cannot be read; see CLUSTER SHARDS",
                self.link.shown()
            ));
        }
        for node in &map.nodes {
            let place = match map.nodes.len() {
                1 => format!("the online store {}", self.link.shown()),
                _ => format!("the online store {} (server {})", self.link.shown(), node.host),
            };
            match self.facts(node).await {
                Ok(facts) => warnings.extend(judged(&place, &facts)),
                Err(e) if e.kind() == Kind::Denied => {
                    warnings.push(format!("{place} does not tell how it is set up; grant it: ACL SETUSER <user> +info"));
                }
                Err(e) => return Err(e),
            }
            if self.link.is_cluster() {
                if let Some(state) = self.cluster_state(node).await?.filter(|s| s != "ok") {
                    warnings.push(format!("{place} says that the cluster is in state {state}; see CLUSTER INFO"));
                }
                if !map.has_replica(node) {
                    tracing::info!("{place} has no replica: if it goes, so do its features until MATERIALIZE … FULL");
                }
            }
        }
        if let Some(node) = map.nodes.first() {
            warnings.extend(self.missing_rights(node).await);
        }
        Ok(warnings)
    }

    /// Sums over the primaries.
    pub(super) async fn figures(&self) -> Result<Health> {
        let facts = async {
            let map = self.link.map().await.map_err(|f| self.fault(f))?;
            try_join_all(map.nodes.iter().map(|node| self.facts(node))).await
        };
        match facts.await {
            Ok(facts) => {
                let sum = |name| facts.iter().map(|f| f.number(name)).sum();
                Ok(Health {
                    connected: true,
                    evicted_keys: sum("evicted_keys"),
                    used_memory: sum("used_memory"),
                    maxmemory: if facts.iter().any(|f| f.number("maxmemory") == 0) { 0 } else { sum("maxmemory") },
                })
            }
            Err(e) if e.kind() == Kind::Unavailable => Ok(Health::default()),
            Err(e) => Err(e),
        }
    }

    async fn facts(&self, node: &Node) -> Result<Facts> {
        match self.on(node, &cmd("INFO")).await? {
            Value::BulkString(text) => Ok(Facts(String::from_utf8_lossy(&text).into_owned())),
            Value::VerbatimString { text, .. } => Ok(Facts(text)),
            _ => Err(Error::internal(format!("the online store {} answers INFO with no text", self.link.shown()))),
        }
    }

    /// `None`: it may not be asked.
    async fn cluster_state(&self, node: &Node) -> Result<Option<String>> {
        match self.on(node, cmd("CLUSTER").arg("INFO")).await {
            Ok(Value::BulkString(text)) => Ok(Facts(String::from_utf8_lossy(&text).into_owned()).text("cluster_state").map(str::to_string)),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == Kind::Denied => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What ACLs keep from us, where the server (7.0 or newer) lets us ask.
    async fn missing_rights(&self, node: &Node) -> Option<String> {
        let Ok(Value::BulkString(user)) = self.on(node, cmd("ACL").arg("WHOAMI")).await else { return None };
        let user = String::from_utf8_lossy(&user).into_owned();
        let mut missing = vec![];
        for command in READER.iter().chain(WRITER) {
            let mut dry = cmd("ACL");
            dry.arg("DRYRUN").arg(&user);
            let rest: &[&str] = match *command {
                "scan" => &["0"],
                "script|load" => &["return 1"],
                "evalsha" => &["0000", "1", "remige:"],
                "set" | "mset" | "sadd" | "srem" | "sismember" => &["remige:", "1"],
                _ => &["remige:"],
            };
            dry.arg(command.split('|').chain(rest.iter().copied()).collect::<Vec<_>>());
            match node.command(Lane::Load, &dry).await.and_then(Value::extract_error) {
                Ok(Value::Okay) => (),
                Ok(_) => missing.push(format!("+{command}")),
                // Older, or not to be asked.
                Err(e) => {
                    tracing::debug!(error = %self.fault(e.into()), "rights are not known");
                    return None;
                }
            }
        }
        let granted = missing.join(" ");
        (!missing.is_empty()).then(|| {
            format!(
                "user {user} of the online store {} may not do everything that MATERIALIZE and INSERT need; lookups work. Grant the rest: ACL SETUSER {user} {granted} ~remige:*",
                self.link.shown()
            )
        })
    }
}

fn judged(place: &str, facts: &Facts) -> Vec<String> {
    let mut warnings = vec![];
    let version = facts.text("redis_version").unwrap_or("0");
    let mut parts = version.split('.').map(|p| p.parse::<u32>().unwrap_or(0));
    if (parts.next(), parts.next()) < (Some(6), Some(2)) {
        warnings.push(format!("{place} runs Redis {version}; rows that expire need 6.2 or newer"));
    }
    match facts.text("maxmemory_policy") {
        Some(policy) if policy != "noeviction" => warnings.push(format!(
            "{place} has maxmemory-policy {policy}: when it is full, features vanish as if they had never been; set it: CONFIG SET maxmemory-policy noeviction"
        )),
        _ => (),
    }
    let evicted = facts.number("evicted_keys");
    if evicted > 0 {
        warnings.push(format!(
            "{place} has evicted {evicted} keys since it started; features may be missing: MATERIALIZE FEATURE VIEW … FULL brings them back"
        ));
    }
    if facts.text("aof_enabled") == Some("0") && facts.number("rdb_last_save_time") == facts.number("server_start_time") {
        tracing::info!("{place} keeps nothing on disk: after a restart it is empty, and MATERIALIZE fills it again");
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_with_its_cure() {
        let facts = |policy, evicted, version| {
            Facts(format!(
                "redis_version:{version}\r\nmaxmemory:0\r\nmaxmemory_policy:{policy}\r\nevicted_keys:{evicted}\r\naof_enabled:1\r\n"
            ))
        };
        assert_eq!(judged("x", &facts("noeviction", 0, "7.0.15")), Vec::<String>::new());
        assert_eq!(judged("x", &facts("noeviction", 0, "10.0.0")), Vec::<String>::new());
        let all = judged("x", &facts("allkeys-lru", 3, "6.0.16"));
        assert!(all[0].contains("6.0.16") && all[0].contains("6.2"), "{all:?}");
        assert!(all[1].contains("allkeys-lru") && all[1].contains("CONFIG SET maxmemory-policy noeviction"), "{all:?}");
        assert!(all[2].contains("evicted 3 keys") && all[2].contains("MATERIALIZE"), "{all:?}");
        assert_eq!(all.len(), 3);
    }
}
