//! What goes wrong between us and Redis, and how the user hears of it.

use redis::{ErrorKind, RedisError, ServerErrorKind};

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
        matches!(self.error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm))
            || matches!(self.error.code(), Some("NOAUTH" | "WRONGPASS"))
            || self.error.to_string().contains("ACL failure in script")
    }

    /// For the user; `store` is its address without a password.
    pub fn into_error(self, store: &str, shape: &Shape) -> Error {
        if let Some((kind, said, hint)) = self.said {
            return Error::new(kind, format!("the online store {store}: {said}")).with_hint(hint);
        }
        let text = self.error.to_string();
        let place = match (&self.host, shape) {
            // The address says it already.
            (None, _) | (_, Shape::Single) => String::new(),
            (Some(host), _) => format!(" (server {host})"),
        };
        if self.is_denied() {
            return Error::denied(format!("the online store {store}{place} refuses us: {text}")).with_hint(missing_right(&text));
        }
        if text.contains("\"OOM\"") || text.contains("OOM command not allowed") {
            return Error::exhausted(format!("the online store {store}{place} is out of memory; what it held before is served on"))
                .with_hint("raise maxmemory of the server (two generations of the largest view must fit) and run the statement again");
        }
        if is_cut(&self.error) {
            return Error::unavailable(format!("the online store {store}{place} broke off inside an answer"))
                .with_hint("try again; where it happens again and again, see whether something other than Redis answers at this address");
        }
        match self.error.kind() {
            ErrorKind::Io => {
                Error::unavailable(format!("cannot reach the online store {store}{place}: {text}")).with_hint(way(store, &text))
            }
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::CrossSlot) if *shape == Shape::Single => {
                Error::invalid(format!("the online store {store} is one server of a Redis Cluster"))
                    .with_hint("write redis+cluster://host:port,host:port in place of redis://")
            }
            ErrorKind::Server(ServerErrorKind::ReadOnly) if *shape == Shape::Single => {
                Error::unavailable(format!("the online store {store} is a replica, which takes no writes: {text}"))
                    .with_hint("name its primary, or let Sentinels name it: redis+sentinel://host:port/service")
            }
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask,
            ) => Error::unavailable(format!("the online store {store}{place} is not ready: {text}")).with_hint("try again in a moment"),
            _ if is_busy(&self.error) => {
                Error::unavailable(format!("the online store {store}{place} runs a script of somebody else and answers nothing: {text}"))
                    .with_hint("try again; SCRIPT KILL on the server ends the script")
            }
            _ if matches!(self.error.code(), Some("MISCONF" | "NOREPLICAS")) => {
                Error::unavailable(format!("the online store {store}{place} takes no writes now: {text}"))
                    .with_hint("see its log; what it held before is served on")
            }
            _ => Error::internal(format!("the online store {store}{place} answers: {text}")),
        }
    }
}

/// The server runs a script for too long, and has done nothing.
pub(super) fn is_busy(e: &RedisError) -> bool {
    e.code() == Some("BUSY")
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

/// What an administrator has to grant, from the words of the server.
fn missing_right(text: &str) -> String {
    let command = text.split_once("run the '").and_then(|(_, rest)| rest.split_once('\'')).map(|(command, _)| command);
    match command {
        Some(command) => format!("an administrator of the server grants it: ACL SETUSER <user> +{command}"),
        None if text.contains("key") && !text.contains("AUTH") => {
            "an administrator of the server grants it: ACL SETUSER <user> ~remige:*".into()
        }
        None => "check user, password and permissions in its address".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_rights_are_named() {
        assert!(missing_right("\"NOPERM\": this user has no permissions to run the 'mget' command").ends_with("+mget"));
        assert!(missing_right("\"NOPERM\": User r has no permissions to run the 'script|load' command").ends_with("+script|load"));
        assert!(
            missing_right("\"NOPERM\": this user has no permissions to access one of the keys used as arguments").contains("~remige:*")
        );
        assert!(missing_right("WRONGPASS invalid username-password pair").contains("password"));
    }
}
