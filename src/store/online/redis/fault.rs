//! What goes wrong between us and Redis, and how the user hears of it.

use redis::{ErrorKind, RedisError};

use super::address::{Host, Shape};
use super::node::{ended, is_cut, is_lost};
use crate::error::{Error, Kind};

/// An error, and the server that it is about.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub error: RedisError,
    host: Option<Host>,
    /// Ours, where the servers' words do not say what is wrong.
    said: Option<(Kind, String, &'static str)>,
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        Fault { error, host: None, said: None }
    }
}

impl Fault {
    pub fn new(kind: Kind, said: impl Into<String>, hint: &'static str) -> Self {
        let error = RedisError::from((ErrorKind::Client, "see the message"));
        Fault { error, host: None, said: Some((kind, said.into(), hint)) }
    }

    pub fn ended() -> Self {
        ended().into()
    }

    pub fn at(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// The connection broke before the answer came; what was asked may have been done.
    pub fn is_lost(&self) -> bool {
        is_lost(&self.error)
    }

    pub fn is_denied(&self) -> bool {
        self.error.kind() == ErrorKind::AuthenticationFailed
            || matches!(code(&self.error, &words(&self.error)), "NOPERM" | "NOAUTH" | "WRONGPASS")
    }

    /// For the user; `store` is its address without a password, `user` who we are there.
    pub fn into_error(self, store: &str, shape: &Shape, user: &str) -> Error {
        if let Some((kind, said, hint)) = self.said {
            return Error::new(kind, format!("the online store {store}: {said}")).with_hint(hint);
        }
        let text = words(&self.error);
        let place = match (&self.host, shape) {
            // The address says it already.
            (None, _) | (_, Shape::Single) => String::new(),
            (Some(host), _) => format!(" (server {host})"),
        };
        if self.is_denied() {
            return denied(&format!("the online store {store}{place}"), user, &text);
        }
        if is_cut(&self.error) {
            return Error::unavailable(format!("the online store {store}{place} broke off inside an answer"))
                .with_hint("try again; where it happens again and again, see whether something other than Redis answers at this address");
        }
        if self.error.kind() == ErrorKind::Io {
            return Error::unavailable(format!("cannot reach the online store {store}{place}: {text}")).with_hint(way(store, &text));
        }
        let unavailable =
            |what: &str, hint: &str| Error::unavailable(format!("the online store {store}{place} {what}: {text}")).with_hint(hint);
        match code(&self.error, &text) {
            "OOM" => Error::exhausted(format!("the online store {store}{place} is out of memory; what it held before is served on"))
                .with_hint("raise maxmemory of the server (two generations of the largest view must fit) and run the statement again"),
            "MOVED" | "ASK" | "CROSSSLOT" if *shape == Shape::Single => {
                Error::invalid(format!("the online store {store} is one server of a Redis Cluster"))
                    .with_hint("write redis+cluster://host:port,host:port in place of redis://")
            }
            "READONLY" if *shape == Shape::Single => unavailable(
                "is a replica, which takes no writes",
                "name its primary, or let Sentinels name it: redis+sentinel://host:port/service",
            ),
            "LOADING" => {
                unavailable("still reads what it had saved", "try again when it is done; its log and INFO persistence tell how far it is")
            }
            "MASTERDOWN" => unavailable(
                "is a replica that has lost its primary",
                "try again in a moment; where it stays so, see INFO replication of the server",
            ),
            "CLUSTERDOWN" => unavailable(
                "is a cluster that is not whole",
                "try again in a moment; where it stays so, see CLUSTER INFO and CLUSTER SHARDS",
            ),
            "READONLY" | "TRYAGAIN" | "MOVED" | "ASK" => unavailable(
                "moves keys or changes its primary",
                "try again in a moment; where it stays so, see CLUSTER INFO or INFO replication",
            ),
            "BUSY" => {
                unavailable("runs a script of somebody else and answers nothing", "try again; SCRIPT KILL on the server ends the script")
            }
            "NOSCRIPT" => unavailable("forgets our scripts again and again", "try again; see who runs SCRIPT FLUSH on the server"),
            "MISCONF" => unavailable(
                "cannot save what it holds and takes no writes",
                "see its log and its disk; what it held before is served on. Then try again",
            ),
            "NOREPLICAS" => unavailable(
                "takes no writes without its replicas",
                "see min-replicas-to-write and INFO replication of the server; what it held before is served on. Then try again",
            ),
            "WRONGTYPE" => Error::internal(format!("the online store {store}{place} holds something else under a name of ours: {text}"))
                .with_hint("see what else writes keys remige:* there, remove them, then MATERIALIZE FEATURE VIEW … FULL"),
            _ => Error::internal(format!("the online store {store}{place} answers: {text}")),
        }
    }
}

/// An error of the server as it said it, others as they are.
fn words(e: &RedisError) -> String {
    match (e.code(), e.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_string(),
        (None, _) => e.to_string(),
    }
}

/// What kind of error the server told; before Redis 7 one of a command in a script is told inside another.
fn code<'a>(e: &'a RedisError, words: &'a str) -> &'a str {
    let code = e.code().unwrap_or_default();
    if !words.contains("rror running script") && !words.contains("ACL failure in script") {
        return code;
    }
    if words.contains("ACL failure in script") {
        return "NOPERM";
    }
    words.split_once(": -").and_then(|(_, inner)| inner.split(' ').next()).unwrap_or(code)
}

/// The server runs a script for too long, and has done nothing.
pub(super) fn is_busy(e: &RedisError) -> bool {
    e.code() == Some("BUSY")
}

/// A command met a key of another type.
pub(super) fn is_of_another_type(e: &RedisError) -> bool {
    e.code() == Some("WRONGTYPE")
}

fn way(store: &str, text: &str) -> &'static str {
    if text.contains("UnknownIssuer") || text.contains("certificate") {
        "let online_settings.tls_ca name the file of the CA that signed the server's certificate (PEM)"
    } else if text.contains("InvalidContentType") || text.contains("corrupt message") {
        "the server does not seem to speak TLS at this port: write redis:// in place of rediss://, or name its TLS port"
    } else if store.starts_with("rediss") && text.contains("timed out") {
        // A server that does not speak TLS waits for the rest of what it takes for a command.
        "check that the server runs, that the address is right, and that it speaks TLS at this port"
    } else {
        "check that the server runs and that the address is right"
    }
}

/// What is refused to whom, and what an administrator has to grant.
fn denied(store: &str, user: &str, text: &str) -> Error {
    let quoted = |after: &str| text.split_once(after).and_then(|(_, rest)| rest.split_once('\'')).map(|(command, _)| command);
    // Sentinels have users of their own
    let user = if text.contains("'sentinel") { "<user>" } else { user };
    let grants = |right: &str| format!("an administrator of the server grants it: ACL SETUSER {user} {right}");
    // "this user has no permissions to run the 'mget' command", from within a script "… tries to run the 'mget' command"
    if let Some(command) = quoted("run the '") {
        return Error::denied(format!("{store} refuses the user {user} the command {command}")).with_hint(grants(&format!("+{command}")));
    }
    if text.contains("key") && !text.contains("AUTH") {
        return Error::denied(format!("{store} refuses the user {user} keys that begin with remige:")).with_hint(grants("~remige:*"));
    }
    Error::denied(format!("{store} refuses us: {text}")).with_hint("check user, password and permissions in its address")
}

#[cfg(test)]
mod tests {
    use redis::{Value, parse_redis_value};

    use super::*;

    fn answered(line: &str) -> Fault {
        let value = parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        value.extract_error().unwrap_err().into()
    }

    fn told(line: &str, shape: &Shape) -> Error {
        answered(line).into_error("redis://h:1/0", shape, "default")
    }

    #[test]
    fn missing_rights_are_named_once() {
        for (line, says, grant) in [
            ("NOPERM this user has no permissions to run the 'mget' command", "the command mget", "SETUSER default +mget"),
            (
                "NOPERM User r has no permissions to run the 'script|load' command",
                "the command script|load",
                "SETUSER default +script|load",
            ),
            ("NOPERM this user has no permissions to access one of the keys used as arguments", "keys", "SETUSER default ~remige:*"),
            ("NOPERM ACL failure in script: User r has no permissions to run the 'mset' command", "the command mset", "+mset"),
            (
                "ERR Error running script (call to f_1): @user_script:3: @user_script: 3: -NOPERM ACL failure in script: this user has no \
              permissions to run the 'set' command",
                "the command set",
                "+set",
            ),
            ("WRONGPASS invalid username-password pair or user is disabled.", "WRONGPASS", "password"),
            ("NOAUTH Authentication required.", "NOAUTH", "password"),
        ] {
            let e = told(line, &Shape::Single);
            assert!(e.kind() == Kind::Denied && e.message().contains(says) && e.hint().unwrap().contains(grant), "{line}: {e}");
            assert!(e.message().matches("the online store").count() == 1 && !e.message().contains("NOPERM"), "{e}");
        }
    }

    #[test]
    fn what_passes_is_unavailable_and_says_what_to_do() {
        let shapes = [Shape::Single, Shape::Cluster, Shape::Sentinel { service: "s".into() }];
        for (line, says, hint) in [
            ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", "script", "SCRIPT KILL"),
            ("MISCONF Errors writing to the AOF file: No space left on device", "AOF", "disk"),
            ("LOADING Redis is loading the dataset in memory", "saved", "INFO persistence"),
            ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "MASTER is down", "INFO replication"),
            ("READONLY You can't write against a read only replica.", "read only", ""),
            ("READONLY You can't write against a read only replica. script: 12ab, on @user_script:35.", "read only", ""),
            (
                "ERR Error running script (call to f_1): @user_script:35: @user_script: 35: -READONLY You can't write against a read only replica.",
                "read only",
                "",
            ),
            ("NOREPLICAS Not enough good replicas to write.", "without its replicas", "min-replicas-to-write"),
            ("NOSCRIPT No matching script. Please use EVAL.", "scripts", "SCRIPT FLUSH"),
            ("TRYAGAIN Multiple keys request during rehashing of slot", "moves keys", "try again"),
            ("CLUSTERDOWN The cluster is down", "not whole", "CLUSTER INFO"),
        ] {
            for shape in &shapes {
                let e = told(line, shape);
                assert!(
                    e.kind() == Kind::Unavailable && e.message().contains(says) && e.message().contains("redis://h:1/0"),
                    "{line}: {e}"
                );
                assert!(!e.hint().unwrap().is_empty() && e.hint().unwrap().contains(hint), "{line}: {e}");
            }
        }
        for line in [
            "OOM command not allowed when used memory > 'maxmemory'. script: 12ab, on @user_script:2.",
            "ERR Error running script (call to f_1): @user_script:2: @user_script: 2: -OOM command not allowed when used memory > 'maxmemory'.",
        ] {
            let e = told(line, &Shape::Single);
            assert!(e.kind() == Kind::Exhausted && e.hint().unwrap().contains("maxmemory"), "{e}");
        }
    }

    #[test]
    fn what_ends_inside_an_answer_counts_as_lost() {
        for cut in ["*2\r\n$3\r\nab", "$3\r\n", "no answer of Redis\r\n"] {
            let fault = Fault::from(parse_redis_value(cut.as_bytes()).unwrap_err());
            assert!(fault.is_lost(), "{cut:?}: {fault:?}");
            assert_eq!(fault.into_error("redis://h:1/0", &Shape::Single, "default").kind(), Kind::Unavailable);
        }
        assert_eq!(parse_redis_value(b"+OK\r\n").unwrap(), Value::Okay);
        assert!(!answered("BUSY x").is_lost());
    }
}
