//! Which server has a key: found out from the cluster or from Sentinels, and found out anew when it changes.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::select_ok;
use redis::{RedisError, RedisResult, Value, cmd};

use super::address::{Host, Login};
use super::fault::Fault;
use super::node::{Connector, Lane, Node};
use crate::error::Kind;

const SLOTS: usize = 16384;
const NOBODY: u16 = u16::MAX;

/// The primaries, and what each of them has.
pub(super) struct Map {
    pub nodes: Vec<Arc<Node>>,
    /// Which node has a slot; `None`: there is one node, which has all.
    slots: Option<Box<[u16]>>,
    /// The nodes that have replicas; known of a cluster only.
    replicated: Vec<bool>,
    /// Grows with every discovery.
    pub epoch: u64,
}

/// The slot of a key in a cluster: CRC16 of the key, or of what stands between its first braces.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|b| *b == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|b| *b == b'}').map(|close| &rest[..close])
    });
    let hashed = tag.filter(|t| !t.is_empty()).unwrap_or(key);
    let crc = hashed.iter().fold(0u16, |crc, b| (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ b)]);
    crc % SLOTS as u16
}

/// CRC-16/XMODEM by byte.
const CRC16: [u16; 256] = {
    let mut table = [0u16; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

impl Map {
    pub fn one(node: Arc<Node>, epoch: u64) -> Map {
        Map { nodes: vec![node], slots: None, replicated: vec![], epoch }
    }

    pub fn is_one(&self) -> bool {
        self.slots.is_none()
    }

    pub fn node(&self, slot: u16) -> Option<&Arc<Node>> {
        match &self.slots {
            None => self.nodes.first(),
            Some(slots) => slots.get(usize::from(slot)).and_then(|n| self.nodes.get(usize::from(*n))),
        }
    }

    pub fn at(&self, host: &Host) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|n| n.host == *host)
    }

    pub fn has_replica(&self, node: &Node) -> bool {
        self.nodes.iter().zip(&self.replicated).any(|(n, replicated)| n.host == node.host && *replicated)
    }

    /// Slots that no server has.
    pub fn uncovered(&self) -> usize {
        self.slots.as_ref().map_or(0, |s| s.iter().filter(|n| **n == NOBODY).count())
    }
}

/// Asks all that are known at once and believes the first that answers: one that hangs holds up nobody.
pub(super) async fn of_cluster(connector: &Connector, seeds: &[Host], known: Option<&Map>) -> Result<Map, Fault> {
    let mut hosts: Vec<Host> = known.iter().flat_map(|m| m.nodes.iter().map(|n| n.host.clone())).collect();
    hosts.extend(seeds.iter().filter(|s| known.is_none_or(|m| m.at(s).is_none())).cloned());
    let nodes = hosts.iter().map(|h| reuse(connector, known, h)).collect::<RedisResult<Vec<_>>>()?;
    let asked = nodes.iter().map(|node| {
        async move {
            let answer = node.command(Lane::Load, cmd("CLUSTER").arg("SLOTS")).await.and_then(Value::extract_error);
            let ranges = answer.map_err(|e| not_a_cluster(e).at(&node.host))?;
            ranges_of(ranges, &node.host, connector.is_tls()).ok_or_else(|| {
                Fault::new(Kind::Unavailable, format!("server {} knows no slots", node.host), "name a server that is part of the cluster")
            })
        }
        .boxed()
    });
    let (ranges, _) = select_ok(asked).await?;
    let mut map = Map { nodes: vec![], slots: None, replicated: vec![], epoch: 0 };
    let mut slots = vec![NOBODY; SLOTS].into_boxed_slice();
    for Range { first, last, host, replicas } in ranges {
        let at = match map.nodes.iter().position(|n| n.host == host) {
            Some(at) => at,
            None => {
                let asked = nodes.iter().find(|n| n.host == host).cloned();
                map.nodes.push(asked.map_or_else(|| reuse(connector, known, &host), Ok)?);
                map.replicated.push(false);
                map.nodes.len() - 1
            }
        };
        map.replicated[at] |= replicas > 0;
        if let Some(range) = slots.get_mut(usize::from(first)..=usize::from(last)) {
            range.fill(at as u16);
        }
    }
    map.slots = Some(slots);
    Ok(map)
}

fn not_a_cluster(e: RedisError) -> Fault {
    match e.to_string() {
        text if text.contains("cluster support disabled") => {
            Fault::new(Kind::Invalid, "the server is not part of a cluster", "write redis:// in place of redis+cluster://")
        }
        _ => e.into(),
    }
}

fn reuse(connector: &Connector, known: Option<&Map>, host: &Host) -> RedisResult<Arc<Node>> {
    match known.and_then(|m| m.at(host)) {
        Some(node) => Ok(Arc::clone(node)),
        None => connector.node(host).map(Arc::new),
    }
}

/// Slots of one primary.
#[derive(Debug, PartialEq)]
struct Range {
    first: u16,
    last: u16,
    host: Host,
    replicas: usize,
}

/// The answer of CLUSTER SLOTS. `None`: it names no slot.
fn ranges_of(answer: Value, asked: &Host, tls: bool) -> Option<Vec<Range>> {
    let Value::Array(ranges) = answer else { return None };
    let mut out = vec![];
    for range in ranges {
        let Value::Array(range) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(primary), replicas @ ..] = range.as_slice() else { return None };
        let [name, Value::Int(port), rest @ ..] = primary.as_slice() else { return None };
        let mut name = match text(name) {
            // It does not know its own name, but we do.
            None | Some("") => asked.name.as_str(),
            // Nor does anybody else: a slot that cannot be reached.
            Some("?") => continue,
            Some(name) => name,
        };
        // Certificates name hosts rather than addresses.
        if tls && let Some(Value::Array(more)) = rest.get(1) {
            let hostname = more.chunks(2).find(|pair| pair.first().and_then(text) == Some("hostname"));
            name = hostname.and_then(|pair| pair.get(1)).and_then(text).filter(|n| !n.is_empty()).unwrap_or(name);
        }
        let host = Host { name: name.to_string(), port: u16::try_from(*port).ok()? };
        let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        out.push(Range { first, last, host, replicas: replicas.len() });
    }
    (!out.is_empty()).then_some(out)
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// Asks the Sentinels for the primary of `service`, and the server that they name whether it is one.
pub(super) async fn of_sentinels(
    connector: &Connector,
    sentinels: &[Host],
    login: &Login,
    service: &str,
    known: Option<&Map>,
) -> Result<Map, Fault> {
    let asking = connector.with_login(login);
    let asked = sentinels.iter().map(|sentinel| {
        let asking = &asking;
        async move {
            let at = |e: RedisError| not_a_sentinel(e).at(sentinel);
            let node = asking.node(sentinel).map_err(at)?;
            let mut command = cmd("SENTINEL");
            let command = command.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
            let answer = node.command(Lane::Load, command).await.and_then(Value::extract_error).map_err(at)?;
            let host = primary_of(&answer).ok_or_else(|| {
                Fault::new(
                    Kind::Invalid,
                    format!("Sentinel {sentinel} knows no service {service:?}"),
                    "the address names the service after the hosts: redis+sentinel://host:port/service",
                )
            })?;
            is_primary(connector, known, &host).await.map_err(|fault| fault.at(&host))
        }
        .boxed()
    });
    let (node, _) = select_ok(asked).await?;
    Ok(Map::one(node, 0))
}

fn primary_of(answer: &Value) -> Option<Host> {
    let Value::Array(parts) = answer else { return None };
    let [name, port] = parts.as_slice() else { return None };
    Some(Host { name: text(name)?.to_string(), port: text(port)?.parse().ok()? })
}

fn not_a_sentinel(e: RedisError) -> Fault {
    match e.to_string() {
        text if text.contains("unknown command") => Fault::new(
            Kind::Invalid,
            "the server is no Sentinel",
            "the address names the Sentinels (port 26379), or write redis:// for the server itself",
        ),
        _ => e.into(),
    }
}

/// Right after a failover Sentinels may name a server that does not know yet, or the one that is gone.
async fn is_primary(connector: &Connector, known: Option<&Map>, host: &Host) -> Result<Arc<Node>, Fault> {
    let node = reuse(connector, known, host)?;
    let role = node.command(Lane::Load, &cmd("ROLE")).await.and_then(Value::extract_error);
    match role {
        Ok(Value::Array(role)) if role.first().and_then(text) == Some("master") => Ok(node),
        Ok(_) => {
            Err(Fault::new(Kind::Unavailable, format!("server {host} is no primary yet"), "a failover is under way; try again in a moment"))
        }
        // Without the right to ask: writes will tell.
        Err(e) if Fault::from(e.clone()).is_denied() && e.code() == Some("NOPERM") => Ok(node),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // as CLUSTER KEYSLOT answers
        for (key, expected) in [
            ("123456789", 12739),
            ("foo", 12182),
            ("", 0),
            ("remige:w:0000002a:cur", 3080),
            ("a{b}c", 3300),
            ("a{}c", 9567),
            ("{a", 10276),
            ("x}y{z}", 8157),
            ("{{a}}", 10276),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
        assert_eq!(slot(b"wm{w}"), slot(b"w"));
    }

    #[test]
    fn answers_of_cluster_slots() {
        let bulk = |t: &str| Value::BulkString(t.into());
        let node = |name: Value, more: Vec<Value>| Value::Array(vec![name, Value::Int(7), bulk("id"), Value::Array(more)]);
        let range = |first, last, node| Value::Array(vec![Value::Int(first), Value::Int(last), node]);
        let asked = Host { name: "seed".into(), port: 1 };
        let answer = Value::Array(vec![
            range(0, 9, node(bulk("10.0.0.1"), vec![bulk("hostname"), bulk("a.example")])),
            range(10, 19, node(Value::Nil, vec![])),
            range(20, 29, node(bulk("?"), vec![])),
        ]);
        let names = |tls| -> Vec<String> {
            let ranges = ranges_of(answer.clone(), &asked, tls).unwrap();
            ranges.into_iter().map(|r| format!("{}-{} {}", r.first, r.last, r.host)).collect()
        };
        assert_eq!(names(false), ["0-9 10.0.0.1:7", "10-19 seed:7"]);
        assert_eq!(names(true), ["0-9 a.example:7", "10-19 seed:7"]);
        for nothing in [Value::Array(vec![]), Value::Nil, Value::Array(vec![Value::Int(1)])] {
            assert_eq!(ranges_of(nothing, &asked, false), None);
        }
    }
}
