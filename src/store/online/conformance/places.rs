//! Stores of every kind, started by the tests and gone with them.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::clock::Clock;
use crate::config::OnlineSettings;
use crate::store::online::{OnlineStore, connect};

/// A place for a store that several handles open; gone when dropped.
pub(crate) struct Place {
    pub url: String,
    pub dir: TempDir,
    pub servers: Vec<Server>,
    tls: bool,
}

/// A process of redis-server.
pub(crate) struct Server {
    pub port: u16,
    args: Vec<String>,
    dir: PathBuf,
    child: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    fn new(dir: &TempDir, args: &[&str]) -> Server {
        for _ in 0..5 {
            let port = free_port();
            let dir = dir.path().join(port.to_string());
            std::fs::create_dir_all(&dir).unwrap();
            let args = args.iter().map(|a| a.replace("PORT", &port.to_string())).collect();
            let mut server = Server { port, args, dir, child: None };
            server.try_start();
            if server.child.is_some() {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts it again at its port, which somebody's outgoing connection may hold for a while.
    pub fn start(&mut self) {
        for _ in 0..100 {
            self.try_start();
            if self.child.is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("redis-server does not start again");
    }

    fn try_start(&mut self) {
        let mut child = Command::new("redis-server")
            .args(&self.args)
            .current_dir(&self.dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("these tests need redis-server ({e}); install it: apt-get install -y redis-server"));
        for _ in 0..500 {
            if child.try_wait().unwrap().is_some() {
                return;
            }
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                self.child = Some(child);
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Without a chance to say goodbye.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn pause(&self, on: bool) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([if on { "-STOP" } else { "-CONT" }, &id]).status().unwrap().success());
    }

    /// What redis-cli prints.
    pub fn cli(&self, args: &[&str]) -> String {
        let out = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(args).output();
        let out = out.unwrap_or_else(|e| panic!("these tests need redis-cli ({e}); install it: apt-get install -y redis-tools"));
        String::from_utf8_lossy(&out.stdout).trim().to_string()
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until it is so; a minute is more than anything here takes.
pub(crate) fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what}: does not come");
}

const PLAIN: &[&str] = &["--port", "PORT", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];

impl Place {
    fn new(url: &str, dir: TempDir, servers: Vec<Server>) -> Place {
        Place { url: url.into(), dir, servers, tls: false }
    }

    pub fn embedded() -> Place {
        Place::new("embedded", tempfile::tempdir().unwrap(), vec![])
    }

    pub fn redis() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::new(&dir, PLAIN);
        Place::new(&format!("redis://127.0.0.1:{}", server.port), dir, vec![server])
    }

    /// One server that speaks TLS only; it asks clients for certificates where so said.
    pub fn tls(auth_clients: &str) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = test_certificate();
        let (cert, key) = (cert.display().to_string(), key.display().to_string());
        let mut args = vec!["--port", "0", "--tls-port", "PORT", "--tls-auth-clients", auth_clients];
        args.extend(["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &cert]);
        args.extend(&PLAIN[2..]);
        let server = Server::new(&dir, &args);
        let mut place = Place::new(&format!("rediss://localhost:{}", server.port), dir, vec![server]);
        place.tls = true;
        place
    }

    /// Three primaries and a replica of each, in this order.
    pub fn cluster() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let servers: Vec<Server> = (0..6)
            .map(|_| {
                let bus = free_port().to_string();
                let mut args = PLAIN.to_vec();
                args.extend(["--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--cluster-port", &bus]);
                args.extend(["--cluster-config-file", "nodes.conf", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"]);
                let mut server = Server::new(&dir, &args);
                server.args.push("--loglevel".into());
                server.args.push("warning".into());
                server
            })
            .collect();
        for (n, (server, slots)) in servers.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]).enumerate() {
            assert_eq!(server.cli(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]), "OK");
            assert_eq!(server.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]), "OK");
        }
        for server in &servers[1..] {
            let bus = server.args[server.args.iter().position(|a| a == "--cluster-port").unwrap() + 1].as_str();
            assert_eq!(servers[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &server.port.to_string(), bus]), "OK");
        }
        wait_for("everybody knows everybody", || servers.iter().all(|s| s.cli(&["CLUSTER", "INFO"]).contains("cluster_known_nodes:6")));
        for (primary, replica) in servers.iter().zip(&servers[3..]) {
            let id = primary.cli(&["CLUSTER", "MYID"]);
            wait_for("a replica", || replica.cli(&["CLUSTER", "REPLICATE", &id]) == "OK");
        }
        let hosts: Vec<String> = servers.iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
        let place = Place::new(&format!("redis+cluster://{}", hosts.join(",")), dir, servers);
        place.settled();
        place
    }

    /// A primary, its replica, and three Sentinels, in this order.
    pub fn sentinel() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let mut servers = vec![Server::new(&dir, PLAIN)];
        let port = servers[0].port.to_string();
        let mut args = PLAIN.to_vec();
        args.extend(["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"]);
        servers.push(Server::new(&dir, &args));
        for n in 0..3 {
            let file = dir.path().join(format!("sentinel{n}.conf"));
            let text = format!(
                "bind 127.0.0.1\nuser asker on >s3nt allcommands allchannels\nsentinel monitor svc 127.0.0.1 {port} 2\nsentinel down-after-milliseconds svc 700\nsentinel failover-timeout svc 3000\n"
            );
            std::fs::write(&file, text).unwrap();
            let file = file.display().to_string();
            servers.push(Server::new(&dir, &[&file, "--sentinel", "--port", "PORT"]));
        }
        let hosts: Vec<String> = servers[2..].iter().map(|s| format!("127.0.0.1:{}", s.port)).collect();
        let place = Place::new(&format!("redis+sentinel://{}/svc", hosts.join(",")), dir, servers);
        place.settled();
        place
    }

    /// Waits until servers have found one another.
    fn settled(&self) {
        if self.url.contains("+cluster") {
            let ok = |s: &Server| s.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
            wait_for("the cluster", || self.servers.iter().all(ok));
            let replicas = |s: &Server| s.cli(&["INFO", "replication"]).contains("state=online");
            wait_for("the replicas", || self.servers[..3].iter().all(replicas));
            // What everybody says to a client, too.
            let shown = |s: &Server| s.cli(&["CLUSTER", "NODES"]).matches("slave ").count() == 3;
            wait_for("the map", || self.servers.iter().all(shown));
        } else if self.url.contains("+sentinel") {
            let known = |s: &Server| {
                s.cli(&["SENTINEL", "CKQUORUM", "svc"]).starts_with("OK 3")
                    && s.cli(&["SENTINEL", "REPLICAS", "svc"]).contains("master-link-status\nok")
            };
            wait_for("the Sentinels", || self.servers[2..].iter().all(known));
        }
    }

    /// Empties it.
    pub fn flush(&self) {
        for s in &self.servers {
            s.cli(&["FLUSHALL"]);
        }
    }

    pub fn start(&mut self) {
        self.servers.iter_mut().for_each(Server::start);
        self.settled();
    }

    pub fn stop(&mut self) {
        self.servers.iter_mut().for_each(Server::kill);
    }

    pub fn pause(&self, on: bool) {
        self.servers.iter().for_each(|s| s.pause(on));
    }

    pub async fn open(&self) -> Arc<dyn OnlineStore> {
        self.open_with(&OnlineSettings::default()).await
    }

    pub fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub async fn open_with(&self, settings: &OnlineSettings) -> Arc<dyn OnlineStore> {
        if self.url.contains('#') {
            return self.open_cached(settings).await;
        }
        let mut settings = settings.clone();
        if self.tls {
            settings.redis.tls_ca = Some(test_certificate().0);
        }
        connect(&self.url, Some(self.dir.path()), &settings, Clock::system()).await.unwrap()
    }
}

/// A certificate for `localhost` that signs itself, and its key.
pub(crate) fn test_certificate() -> (PathBuf, PathBuf) {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/server/testdata");
    (dir.join("localhost.crt"), dir.join("localhost.key"))
}
