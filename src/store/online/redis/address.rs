//! Addresses of Redis in all its shapes.
//!
//! ```text
//! redis://[user:password@]host[:port][/db]                      one server
//! redis+cluster://[user:password@]host[:port],host…             Redis Cluster
//! redis+sentinel://[user:password@]host[:port],host…/service[/db]   asks Sentinels for the primary
//! rediss://…  rediss+cluster://…  rediss+sentinel://…           the same over TLS
//! ```
//! Sentinels that ask for a password of their own: `?sentinel_user=…&sentinel_password=…`.

use std::fmt;

use crate::config::without_credentials;
use crate::error::{Error, Result};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    Single,
    Cluster,
    Sentinel { service: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Host {
    /// Without the brackets of IPv6.
    pub name: String,
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.contains(':') {
            true => write!(f, "[{}]:{}", self.name, self.port),
            false => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

impl Host {
    /// `host:port` as servers write it, IPv6 without brackets too.
    pub fn parse(text: &str) -> Option<Host> {
        let (name, port) = text.rsplit_once(':')?;
        let name = name.trim_start_matches('[').trim_end_matches(']');
        Some(Host { name: name.to_string(), port: port.parse().ok()? })
    }
}

#[derive(Clone, Default)]
pub(super) struct Login {
    pub user: Option<String>,
    pub password: Option<String>,
}

pub(super) struct Address {
    pub shape: Shape,
    pub tls: bool,
    pub hosts: Vec<Host>,
    pub db: i64,
    pub login: Login,
    pub sentinel_login: Login,
    /// Without user, password and query.
    pub shown: String,
}

impl Address {
    /// The errors repeat nothing that could be part of a password.
    pub fn parse(url: &str) -> Result<Address> {
        let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
        let (tls, kind) = match scheme.strip_prefix("rediss") {
            Some(kind) => (true, kind),
            None => (false, scheme.strip_prefix("redis").unwrap_or("?")),
        };
        let form = match kind {
            "" => "host:port/db",
            "+cluster" => "host:port,host:port,host:port",
            "+sentinel" => "host:port,host:port,host:port/service/db",
            _ => return Err(Error::invalid("the address of the online store begins with no known scheme").with_hint(SCHEMES)),
        };
        let bad = |why: &str| {
            Error::invalid(format!("the address of the online store ({scheme}://…) is wrong: {why}")).with_hint(format!(
                "write {scheme}://{form}, or {scheme}://user:password@{form} with %XX for every special character of the password"
            ))
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (userinfo, rest) = match rest.rsplit_once('@') {
            Some((userinfo, rest)) => (Some(userinfo), rest),
            None => (None, rest),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let port = if kind == "+sentinel" { SENTINEL_PORT } else { PORT };
        let hosts = authority.split(',').map(|h| host(h, port)).collect::<Result<Vec<_>, _>>().map_err(bad)?;
        let path: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        let (shape, db) = match (kind, path.as_slice()) {
            ("", _) if hosts.len() > 1 => return Err(bad("it names several servers; for a cluster write redis+cluster://")),
            ("", []) => (Shape::Single, None),
            ("", [db]) => (Shape::Single, Some(*db)),
            ("+cluster", []) => (Shape::Cluster, None),
            ("+cluster", _) => return Err(bad("a cluster has no numbered databases")),
            ("+sentinel", []) => return Err(bad("it does not name the service that the Sentinels watch")),
            ("+sentinel", [service]) => (Shape::Sentinel { service: decoded(service).map_err(bad)? }, None),
            ("+sentinel", [service, db]) => (Shape::Sentinel { service: decoded(service).map_err(bad)? }, Some(*db)),
            _ => return Err(bad("its path has too many parts")),
        };
        let db = db.map_or(Ok(0), |d| d.parse::<u16>().map_err(|_| bad("the database is no number")))?;
        let mut sentinel_login = Login::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match (&shape, name.as_ref()) {
                (Shape::Sentinel { .. }, "sentinel_user") => sentinel_login.user = Some(value.into_owned()),
                (Shape::Sentinel { .. }, "sentinel_password") => sentinel_login.password = Some(value.into_owned()),
                _ => return Err(bad("it has an option that this kind of address does not know")),
            }
        }
        let mut login = Login::default();
        if let Some(text) = userinfo {
            let (user, password) = text.split_once(':').map_or((text, None), |(u, p)| (u, Some(p)));
            let some = |t: &str| if t.is_empty() { Ok(None) } else { decoded(t).map(Some) };
            login = Login { user: some(user).map_err(bad)?, password: password.map_or(Ok(None), some).map_err(bad)? };
        }
        let shown = without_credentials(url).trim_end_matches('/').to_string();
        Ok(Address { shape, tls, hosts, db: db.into(), login, sentinel_login, shown })
    }
}

const SCHEMES: &str = "the schemes are redis, redis+cluster, redis+sentinel, and over TLS rediss, rediss+cluster, rediss+sentinel";

fn host(text: &str, default: u16) -> Result<Host, &'static str> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest.split_once(']').ok_or("the bracket of an IPv6 address is not closed")?;
            (name, port.strip_prefix(':'))
        }
        None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
    };
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err("a host is missing");
    }
    let port = port.map_or(Ok(default), |p| p.parse().map_err(|_| "the port is no number from 1 to 65535"))?;
    Ok(Host { name: name.to_string(), port })
}

/// `%XX` replaced by what it stands for.
fn decoded(text: &str) -> Result<String, &'static str> {
    const WRONG: &str = "user, password or service has a % that is no %XX";
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let mut digit = || bytes.next().and_then(|d| char::from(d).to_digit(16)).ok_or(WRONG);
        out.push((digit()? * 16 + digit()?) as u8);
    }
    String::from_utf8(out).map_err(|_| WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(a: &Address) -> Vec<String> {
        a.hosts.iter().map(Host::to_string).collect()
    }

    #[test]
    fn forms() {
        let a = Address::parse("redis://h").unwrap();
        assert_eq!((a.shape, a.tls, a.db, a.shown.as_str()), (Shape::Single, false, 0, "redis://h"));
        let a = Address::parse("rediss://user:p%40ss%3A@[::1]:7/3").unwrap();
        assert_eq!((hosts(&a), a.tls, a.db), (vec!["[::1]:7".into()], true, 3));
        assert_eq!((a.login.user.as_deref(), a.login.password.as_deref()), (Some("user"), Some("p@ss:")));
        assert_eq!(a.shown, "rediss://[::1]:7/3");
        let a = Address::parse("redis+cluster://:pw@a:1,b,c:3/").unwrap();
        assert_eq!((&a.shape, hosts(&a)), (&Shape::Cluster, vec!["a:1".into(), "b:6379".into(), "c:3".into()]));
        assert_eq!((a.login.user, a.shown.as_str()), (None, "redis+cluster://a:1,b,c:3"));
        let a = Address::parse("rediss+sentinel://u:p@a,b:2/my%20svc/1?sentinel_password=s3").unwrap();
        assert_eq!((&a.shape, a.db, a.tls), (&Shape::Sentinel { service: "my svc".into() }, 1, true));
        assert_eq!((hosts(&a), a.sentinel_login.password.as_deref()), (vec!["a:26379".into(), "b:2".into()], Some("s3")));
        assert_eq!(a.shown, "rediss+sentinel://a,b:2/my%20svc/1");
        assert_eq!(Host::parse("::1:7000").unwrap().to_string(), "[::1]:7000");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (url, says) in [
            ("redis://:hunter2@", "host is missing"),
            ("redis://:hunter2@h:port", "port is no number"),
            ("redis://:hunter2@h/x", "database is no number"),
            ("redis://:hunter2@h/1/2", "too many parts"),
            ("redis://:hunter2@a,b", "several servers"),
            ("redis://:hunter2/@h:1", "host"),
            ("redis://:hunter2%zz@h", "%XX"),
            ("redis://h?password=hunter2", "option"),
            ("redis+cluster://:hunter2@h/1", "numbered"),
            ("redis+sentinel://:hunter2@h", "does not name the service"),
            ("redis+sentinel://h/s?pasword=hunter2", "option"),
            ("redis://:hunter2@[::1", "bracket"),
            ("redis+nothing://:hunter2@h", "scheme"),
        ] {
            match Address::parse(url) {
                Ok(a) => assert!(!a.shown.contains("hunter2") && says == "host", "{url}"),
                Err(e) => {
                    assert!(e.message().contains(says), "{url}: {e}");
                    assert!(!format!("{e:?} {e}").contains("hunter2"), "{url}: {e}");
                    assert!(e.hint().is_some_and(|h| h.contains("redis")), "{url}: {e}");
                }
            }
        }
    }
}
