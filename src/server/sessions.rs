//! Who calls: a session is named by the token of a handshake (`authorization: Bearer …`) or by a
//! cookie. Names are signed, so that a client can only use one that this server gave out; the server
//! remembers a session from its first statement on.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status};

use crate::clock::{self, Micros};
use crate::error::{Error, Result};
use crate::session::{Engine, Session};
use crate::telemetry;

/// The name that Arrow's own session middleware uses.
const COOKIE: &str = "arrow_flight_session_id";
const PREFIX: &str = "rmg1";
/// Names of ended sessions that are remembered, so that they are refused instead of starting anew.
const REMEMBER_ENDED: usize = 20_000;

/// The session that a request names, if any.
#[derive(Debug, Clone, Default)]
pub(super) struct Caller {
    pub id: Option<String>,
    /// It has none, and is to be given one; that counts from the first request that brings it back.
    nameless: bool,
}

#[derive(Debug)]
pub(super) struct Sessions {
    engine: Arc<Engine>,
    key: [u8; 32],
    limit: usize,
    idle: Micros,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    live: HashMap<String, Entry>,
    ended: HashSet<String>,
    ended_order: VecDeque<String>,
}

#[derive(Debug)]
struct Entry {
    session: Session,
    /// USE or SET was run: forgetting this session would change what statements mean.
    stateful: bool,
    used: Micros,
}

impl Sessions {
    pub fn new(engine: Arc<Engine>) -> Self {
        let secret = format!("{}{}", clock::new_id(), clock::new_id());
        let settings = &engine.config().server;
        let (limit, idle) = (settings.max_sessions, settings.handle_ttl);
        Sessions { engine, key: *blake3::hash(secret.as_bytes()).as_bytes(), limit, idle, table: Mutex::default() }
    }

    /// A new token; it costs the server nothing until it is used.
    pub fn token(&self) -> String {
        let id = clock::new_id();
        format!("{PREFIX}.{id}.{}", blake3::keyed_hash(&self.key, id.as_bytes()).to_hex())
    }

    /// The session that a token names. `None`: not a token of ours.
    pub fn open(&self, token: &str) -> Option<Result<String>> {
        let mut parts = token.split('.');
        let (Some(PREFIX), Some(id), Some(mac), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else { return None };
        let genuine = blake3::Hash::from_hex(mac).is_ok_and(|mac| mac == blake3::keyed_hash(&self.key, id.as_bytes()));
        if !genuine || self.table.lock().ended.contains(id) {
            return Some(Err(ended()));
        }
        Some(Ok(id.to_string()))
    }

    /// Reads the caller from a request's headers.
    pub fn caller(&self, headers: &MetadataMap) -> Result<Caller, Status> {
        let bearer = headers.get("authorization").and_then(|v| v.to_str().ok()).and_then(|v| strip_scheme(v, "bearer"));
        let cookie = headers
            .get_all("cookie")
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| *name == COOKIE)
            .map(|(_, value)| value.trim_matches('"'));
        for token in [bearer, cookie].into_iter().flatten() {
            match self.open(token) {
                Some(Ok(id)) => return Ok(Caller { id: Some(id), nameless: false }),
                Some(Err(e)) => return Err(Status::unauthenticated(e.to_string())),
                None => {}
            }
        }
        Ok(Caller { id: None, nameless: true })
    }

    /// The session of a caller; one of its own, forgotten afterwards, for a caller without a name.
    pub fn session(&self, caller: &Caller) -> Result<Session> {
        let Some(id) = &caller.id else { return Ok(self.engine.session()) };
        let now = self.engine.clock().now();
        let mut table = self.table.lock();
        if let Some(entry) = table.live.get_mut(id) {
            entry.used = now;
            return Ok(entry.session.clone());
        }
        if table.ended.contains(id) {
            return Err(ended());
        }
        if table.live.len() >= self.limit {
            self.make_room(&mut table, now)?;
        }
        let session = self.engine.session();
        table.live.insert(id.clone(), Entry { session: session.clone(), stateful: false, used: now });
        metrics::gauge!(telemetry::SESSIONS).set(table.live.len() as f64);
        Ok(session)
    }

    fn make_room(&self, table: &mut Table, now: Micros) -> Result<()> {
        let oldest = table
            .live
            .iter()
            .filter(|(_, e)| !e.stateful || e.used.saturating_add(self.idle) < now)
            .min_by_key(|(_, e)| (e.stateful, e.used))
            .map(|(id, e)| (id.clone(), e.stateful));
        let Some((id, stateful)) = oldest else {
            return Err(Error::exhausted(format!("{} sessions are in use", self.limit))
                .with_hint("close connections that are not needed, or raise server.max_sessions"));
        };
        table.live.remove(&id);
        if stateful {
            table.end(id);
        }
        Ok(())
    }

    /// Allows a statement that changes the session, and remembers that it did.
    pub fn mark_changed(&self, caller: &Caller, what: &str) -> Result<()> {
        let Some(id) = &caller.id else { return Err(no_session(what)) };
        self.session(caller)?;
        if let Some(entry) = self.table.lock().live.get_mut(id) {
            entry.stateful = true;
        }
        Ok(())
    }

    /// Offers a session cookie to a caller that has no session. Clients that do not keep cookies
    /// ignore it.
    pub fn offer<T>(&self, caller: &Caller, response: &mut Response<T>) {
        if caller.nameless
            && let Ok(value) = MetadataValue::try_from(format!("{COOKIE}={}; Path=/; HttpOnly", self.token()))
        {
            response.metadata_mut().insert("set-cookie", value);
        }
    }

    /// Ends a session; ending it twice, or none, is fine.
    pub fn close(&self, caller: &Caller) {
        if let Some(id) = &caller.id {
            let mut table = self.table.lock();
            table.live.remove(id);
            table.end(id.clone());
            metrics::gauge!(telemetry::SESSIONS).set(table.live.len() as f64);
        }
    }
}

impl Table {
    fn end(&mut self, id: String) {
        if self.ended.insert(id.clone()) {
            self.ended_order.push_back(id);
        }
        if self.ended_order.len() > REMEMBER_ENDED
            && let Some(old) = self.ended_order.pop_front()
        {
            self.ended.remove(&old);
        }
    }
}

impl Caller {
    /// Who sent this request: set by the outer service.
    pub fn of<T>(request: &Request<T>) -> Caller {
        request.extensions().get::<Caller>().cloned().unwrap_or_default()
    }
}

/// The credentials in an `authorization` header of the given scheme.
pub(super) fn strip_scheme<'a>(header: &'a str, scheme: &str) -> Option<&'a str> {
    let (given, rest) = header.split_once(' ')?;
    given.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

fn ended() -> Error {
    Error::denied("this session has ended, or belongs to an earlier run of the server").with_hint("connect again")
}

pub(super) fn no_session(what: &str) -> Error {
    Error::invalid(format!("{what} needs a session, and this connection has none")).with_hint(
        "ADBC: pass db_kwargs={'adbc.flight.sql.rpc.with_cookie_middleware': 'true'} (or a username and password); \
         JDBC: pass user and password; without a session write names with their schema",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::Config;

    async fn sessions(limit: usize) -> (Sessions, Clock, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { warehouse: dir.path().join("w").display().to_string(), ..Default::default() };
        config.server.max_sessions = limit;
        let clock = Clock::fixed(1_000_000);
        let engine = Engine::open(config, clock.clone()).await.unwrap();
        (Sessions::new(engine), clock, dir)
    }

    fn caller(s: &Sessions) -> Caller {
        let mut headers = MetadataMap::new();
        headers.insert("authorization", format!("Bearer {}", s.token()).parse().unwrap());
        s.caller(&headers).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_names_given_out_are_taken() {
        let (s, _, _dir) = sessions(3).await;
        let token = s.token();
        assert!(matches!(s.open(&token), Some(Ok(_))));
        let forged = format!("{}0", &token[..token.len() - 1]);
        let forged = if forged == token { format!("{}1", &token[..token.len() - 1]) } else { forged };
        assert!(matches!(s.open(&forged), Some(Err(_))));
        assert!(s.open("someone-elses-token").is_none());
        let mut headers = MetadataMap::new();
        headers.append("cookie", "a=b".parse().unwrap());
        headers.append("cookie", format!("c=d; {COOKIE}={token}").parse().unwrap());
        assert!(s.caller(&headers).unwrap().id.is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn changing_a_session_needs_one() {
        let (s, _, _dir) = sessions(3).await;
        let e = s.mark_changed(&Caller::default(), "USE").unwrap_err();
        assert!(e.to_string().contains("with_cookie_middleware"), "{e}");
        let c = caller(&s);
        s.mark_changed(&c, "USE").unwrap();
        s.close(&c);
        s.close(&c);
        assert!(s.session(&c).is_err(), "an ended session does not start anew");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn changed_sessions_are_not_forgotten_for_new_ones() {
        let (s, clock, _dir) = sessions(2).await;
        let (a, b, c, d) = (caller(&s), caller(&s), caller(&s), caller(&s));
        s.mark_changed(&a, "USE").unwrap();
        s.session(&b).unwrap();
        clock.advance(1);
        s.mark_changed(&c, "USE").unwrap();
        let e = s.session(&d).unwrap_err();
        assert_eq!(e.kind(), crate::error::Kind::Exhausted);
        clock.advance(s.idle + 1);
        s.session(&d).unwrap();
        assert!(s.session(&a).is_err(), "the idle one had to go, and says so");
    }
}
