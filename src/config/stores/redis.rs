//! Redis: one server, a cluster, or one that sentinels watch.

use super::OnlineKind;

pub const KIND: OnlineKind = OnlineKind {
    name: "redis",
    schemes: &["redis://", "rediss://", "redis+cluster://", "rediss+cluster://", "redis+sentinel://", "rediss+sentinel://"],
    form: "redis://[user:pass@]host:port/db, redis+cluster://h1:p1,h2:p2, redis+sentinel://h1:p1,h2:p2/service, \
           over TLS rediss, rediss+cluster, rediss+sentinel",
    is_server: true,
};
