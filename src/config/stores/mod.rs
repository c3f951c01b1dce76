//! The kinds of online stores, by their addresses. `store::online` opens them.

mod embedded;
mod redis;

/// One kind of online store.
#[derive(Debug)]
pub struct OnlineKind {
    pub name: &'static str,
    /// What its addresses begin with, `://` included; none where the name is the whole address.
    pub schemes: &'static [&'static str],
    /// How an address is written, for messages.
    pub form: &'static str,
    /// A server of its own, which may be away when this process starts, and is asked then whether it is fit.
    pub is_server: bool,
}

/// Hands the kinds to a macro. Each has a file here, which says how it is named, and a module of the same name in
/// `store/online/`, which opens it.
macro_rules! each_store {
    ($then:ident) => {
        $then! {
            embedded,
            redis,
        }
    };
}
pub(crate) use each_store;

macro_rules! kinds {
    ($($kind:ident,)*) => {
        pub const ONLINE_KINDS: &[OnlineKind] = &[$($kind::KIND),*];
    };
}
each_store!(kinds);

impl OnlineKind {
    /// The kind that an address names; `None`: no kind does.
    pub fn of(address: &str) -> Option<&'static OnlineKind> {
        ONLINE_KINDS.iter().find(|kind| match kind.schemes {
            [] => kind.name == address,
            schemes => schemes.iter().any(|s| address.len() > s.len() && address.starts_with(s)),
        })
    }

    /// All ways to write an address.
    pub fn forms() -> String {
        ONLINE_KINDS.iter().map(|k| k.form).collect::<Vec<_>>().join(", ")
    }
}

/// Why an address is none. Names no part of it, which may hold a password.
pub fn check(address: &str) -> Result<(), String> {
    if OnlineKind::of(address).is_some() {
        return Ok(());
    }
    let (names, schemes): (Vec<&OnlineKind>, Vec<_>) = ONLINE_KINDS.iter().partition(|k| k.schemes.is_empty());
    let names: Vec<&str> = names.iter().map(|k| k.name).collect();
    let schemes: Vec<&str> = schemes.iter().flat_map(|k| k.schemes).copied().collect();
    Err(format!("must be {} or an address that begins with {}", names.join(", "), schemes.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_their_kind() {
        let kind = |a: &str| OnlineKind::of(a).map(|k| k.name);
        assert_eq!(kind("embedded"), Some("embedded"));
        assert_eq!(kind("redis+sentinel://h:1/s"), Some("redis"));
        for none in ["", "embedded2", "redis://", "redis", "rediss:h", "http://h"] {
            assert_eq!(kind(none), None, "{none}");
        }
        let setting = crate::config::SETTINGS.iter().find(|s| s.name == "online").unwrap();
        for scheme in ONLINE_KINDS.iter().flat_map(|k| k.schemes) {
            assert!(setting.meaning().contains(scheme.trim_end_matches("://")), "{scheme}");
        }
    }
}
