//! The way of a command to the server that has its key, through lost connections, moved slots and failovers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::FutureExt;
use futures::future::join_all;
use parking_lot::Mutex;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value, cmd};

use super::address::{Address, Host, Shape};
use super::fault::{Fault, is_busy, is_of_another_type};
use super::map::{Map, of_cluster, of_sentinels};
use super::node::{Connector, Flight, Lane, Node, flight};
use super::scripts::Script;
use crate::clock;
use crate::error::Kind;

/// Sendings of one command, the first included.
const ROUNDS: usize = 5;
/// The first pause before a command is sent again to a server that is not ready; each next is twice as long.
const PAUSE: Duration = Duration::from_millis(25);

/// A command, and the slot that its keys share (see [`super::map::slot`]; of no account without a cluster).
pub(super) struct Task {
    pub slot: u16,
    pub command: Cmd,
}

/// Whether a command does the same when it is done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Yes,
    /// Not sent again once its answer is lost.
    No,
}

pub(super) struct Link {
    address: Address,
    connector: Connector,
    /// Scripts that commands may call, for servers that do not know them.
    scripts: Vec<Arc<Script>>,
    map: ArcSwapOption<Map>,
    discovery: Mutex<Option<Flight<Arc<Map>, Fault>>>,
    /// An answer did not come in time: the server may have been replaced.
    suspect: AtomicBool,
}

/// A task on its way.
struct Pending {
    /// Place among the tasks of the call.
    at: usize,
    task: Task,
    /// Where the last answer pointed to.
    target: Option<(Arc<Node>, Asking)>,
}

type Asking = bool;

/// What the answers of one server were asked for: the tasks' places, slots and places in the pipeline.
struct Sent {
    node: Arc<Node>,
    places: Vec<(usize, u16, usize)>,
    commands: Pipeline,
}

enum Next {
    Fail,
    Moved(Host),
    Ask(Host),
    /// The server said that it did nothing; later it may.
    Wait,
    /// It did nothing and will not: another server is the primary now.
    Rediscover,
    /// It did nothing, for it does not know the script.
    Load,
}

impl Link {
    pub fn new(address: Address, connector: Connector, scripts: Vec<Arc<Script>>) -> RedisResult<Link> {
        let map = match (&address.shape, address.hosts.first()) {
            (Shape::Single, Some(host)) => Some(Arc::new(Map::one(Arc::new(connector.node(host)?), 1))),
            _ => None,
        };
        Ok(Link { address, connector, scripts, map: ArcSwapOption::new(map), discovery: Mutex::default(), suspect: AtomicBool::new(false) })
    }

    pub fn shown(&self) -> &str {
        &self.address.shown
    }

    pub fn shape(&self) -> &Shape {
        &self.address.shape
    }

    /// Who we are to the servers.
    pub fn user(&self) -> &str {
        self.address.login.user.as_deref().unwrap_or("default")
    }

    pub fn timeout(&self) -> Duration {
        self.connector.timeout()
    }

    /// Whether the keys of one call may be on several servers.
    pub fn is_cluster(&self) -> bool {
        self.address.shape == Shape::Cluster
    }

    pub async fn map(self: &Arc<Self>) -> Result<Arc<Map>, Fault> {
        match self.map.load_full() {
            Some(map) => Ok(map),
            None => self.rediscover(0).await,
        }
    }

    /// A map newer than the one of this epoch. All who want one share one attempt.
    pub async fn rediscover(self: &Arc<Self>, epoch: u64) -> Result<Arc<Map>, Fault> {
        self.discovery(epoch).await
    }

    fn discovery(self: &Arc<Self>, epoch: u64) -> Flight<Arc<Map>, Fault> {
        let mut discovery = self.discovery.lock();
        if let Some(map) = self.map.load_full()
            && (map.epoch > epoch || *self.shape() == Shape::Single)
        {
            return async move { Ok(map) }.boxed().shared();
        }
        let link = Arc::clone(self);
        discovery
            .get_or_insert_with(|| {
                let work = async move {
                    let answer = link.discover().await;
                    // Whoever comes now begins anew.
                    *link.discovery.lock() = None;
                    answer
                };
                flight(work, Fault::ended)
            })
            .clone()
    }

    async fn discover(&self) -> Result<Arc<Map>, Fault> {
        let known = self.map.load_full();
        let (connector, hosts) = (&self.connector, self.address.hosts.as_slice());
        let mut map = match &self.address.shape {
            Shape::Single | Shape::Cluster => of_cluster(connector, hosts, known.as_deref()).await?,
            Shape::Sentinel { service } => of_sentinels(connector, hosts, &self.address.sentinel_login, service, known.as_deref()).await?,
        };
        map.epoch = known.map_or(1, |m| m.epoch + 1);
        let map = Arc::new(map);
        self.map.store(Some(Arc::clone(&map)));
        Ok(map)
    }

    /// Runs one command.
    pub async fn ask(self: &Arc<Self>, lane: Lane, slot: u16, command: Cmd, repeat: Repeat) -> Result<Value, Fault> {
        let mut answers = self.run(lane, vec![Task { slot, command }], repeat).await?;
        Ok(answers.pop().unwrap_or_default())
    }

    /// Runs commands, those of one server in one pipeline and in their order, and answers in their
    /// order; an error as soon as one has failed for good.
    pub async fn run(self: &Arc<Self>, lane: Lane, tasks: Vec<Task>, repeat: Repeat) -> Result<Vec<Value>, Fault> {
        let answers = self.run_each(lane, tasks, repeat).await?;
        answers.into_iter().map(|answer| answer.extract_error().map_err(Fault::from)).collect()
    }

    /// The same, but that a key is of another type is an answer like others ([`Value::ServerError`]).
    pub async fn run_each(self: &Arc<Self>, lane: Lane, tasks: Vec<Task>, repeat: Repeat) -> Result<Vec<Value>, Fault> {
        if self.suspect.swap(false, Ordering::Relaxed) && *self.shape() != Shape::Single {
            // Goes on by itself; this call tries what it knows.
            drop(self.discovery(self.map.load().as_ref().map_or(0, |m| m.epoch)));
        }
        let mut watch = Watch { link: self, answered: false };
        let answer = self.rounds(lane, tasks, repeat).await;
        watch.answered = answer.as_ref().err().is_none_or(|fault| !fault.error.is_timeout());
        answer
    }

    async fn rounds(self: &Arc<Self>, lane: Lane, tasks: Vec<Task>, repeat: Repeat) -> Result<Vec<Value>, Fault> {
        let mut out = vec![Value::Nil; tasks.len()];
        let mut pending: Vec<Pending> = tasks.into_iter().enumerate().map(|(at, task)| Pending { at, task, target: None }).collect();
        let mut last = None;
        for round in 0..ROUNDS {
            let map = self.map().await?;
            let groups = group(&map, std::mem::take(&mut pending))?;
            let answers = join_all(groups.into_iter().map(|sent| send(lane, sent))).await;
            let (mut pause, mut rediscover) = (false, false);
            for (sent, answers) in answers {
                let mut answers = match answers {
                    Ok(answers) => answers,
                    Err(e) => {
                        let fault = Fault::from(e).at(&sent.node.host);
                        if !fault.is_lost() || repeat == Repeat::No || round > 0 && *self.shape() == Shape::Single {
                            return Err(fault);
                        }
                        pending.extend(sent.places.iter().filter_map(|(at, slot, place)| sent.again(*at, *slot, *place, None)));
                        // A failover takes its time.
                        (rediscover, pause) = (true, round > 0);
                        last = Some(fault);
                        continue;
                    }
                };
                let mut load = false;
                for (at, slot, place) in &sent.places {
                    let answer = answers.get_mut(*place).map(std::mem::take).unwrap_or_default();
                    let Value::ServerError(e) = &answer else {
                        out[*at] = answer;
                        continue;
                    };
                    let e = RedisError::from(e.clone());
                    let mut target = None;
                    let mut whole = None;
                    match self.next(&e) {
                        Next::Fail if is_of_another_type(&e) => {
                            out[*at] = answer;
                            continue;
                        }
                        Next::Fail => return Err(Fault::from(e).at(&sent.node.host)),
                        Next::Moved(host) => {
                            rediscover = true;
                            target = Some((self.reach(&map, &host, &sent.node)?, false));
                        }
                        Next::Ask(host) => target = Some((self.reach(&map, &host, &sent.node)?, true)),
                        Next::Wait => pause = true,
                        Next::Load => {
                            // Somebody flushes them again and again; what is sent whole they cannot take away.
                            whole = sent
                                .command(*place)
                                .filter(|_| round + 2 == ROUNDS)
                                .and_then(|c| self.scripts.iter().find_map(|s| s.whole(c)));
                            load |= whole.is_none();
                            target = Some((Arc::clone(&sent.node), false));
                        }
                        Next::Rediscover => rediscover = true,
                    }
                    last = Some(Fault::from(e).at(&sent.node.host));
                    let again = sent.again(*at, *slot, *place, target);
                    pending.extend(again.map(|p| match whole {
                        Some(command) => Pending { task: Task { command, ..p.task }, ..p },
                        None => p,
                    }));
                }
                if load {
                    match self.load_scripts(lane, &sent.node).await {
                        // What waits for them was not done: it may be sent again.
                        Err(fault) if fault.is_lost() => (rediscover, pause) = (true, true),
                        loaded => loaded?,
                    }
                }
            }
            if pending.is_empty() {
                return Ok(out);
            }
            if rediscover {
                // Where the answers pointed to a server, the next round does not wait for the map.
                let flight = self.discovery(map.epoch);
                if pending.iter().any(|p| p.target.is_none()) && flight.await.is_err() {
                    pause = true;
                }
            }
            if pause && round + 1 < ROUNDS {
                clock::sleep(PAUSE * (1 << round)).await;
            }
        }
        Err(last.unwrap_or_else(Fault::ended))
    }

    fn next(&self, e: &RedisError) -> Next {
        if is_busy(e) {
            return Next::Wait;
        }
        let ErrorKind::Server(kind) = e.kind() else { return Next::Fail };
        let pointed = || e.redirect_node().and_then(|(host, _)| Host::parse(host));
        match kind {
            ServerErrorKind::Moved if self.is_cluster() => pointed().map_or(Next::Rediscover, Next::Moved),
            ServerErrorKind::Ask if self.is_cluster() => pointed().map_or(Next::Wait, Next::Ask),
            ServerErrorKind::NoScript => Next::Load,
            ServerErrorKind::TryAgain | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown => Next::Wait,
            ServerErrorKind::ClusterDown => Next::Rediscover,
            ServerErrorKind::ReadOnly if *self.shape() != Shape::Single => Next::Rediscover,
            _ => Next::Fail,
        }
    }

    /// The server that an answer points to; one without a name is the one that answered.
    fn reach(&self, map: &Map, host: &Host, from: &Arc<Node>) -> Result<Arc<Node>, Fault> {
        let host = match host.name.is_empty() {
            true => Host { name: from.host.name.clone(), port: host.port },
            false => host.clone(),
        };
        match map.at(&host) {
            Some(node) => Ok(Arc::clone(node)),
            None => Ok(Arc::new(self.connector.node(&host)?)),
        }
    }

    async fn load_scripts(&self, lane: Lane, node: &Node) -> Result<(), Fault> {
        let mut pipeline = Pipeline::new();
        for script in &self.scripts {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(script.code.as_str());
        }
        let answers = node.pipeline(lane, &pipeline).await.map_err(|e| Fault::from(e).at(&node.host))?;
        for answer in answers {
            answer.extract_error().map_err(|e| Fault::from(e).at(&node.host))?;
        }
        Ok(())
    }
}

/// Notices calls that were given up while they waited for an answer.
struct Watch<'a> {
    link: &'a Link,
    answered: bool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.link.suspect.store(true, Ordering::Relaxed);
        }
    }
}

impl Sent {
    fn command(&self, place: usize) -> Option<&Cmd> {
        self.commands.cmd_iter().nth(place)
    }

    fn again(&self, at: usize, slot: u16, place: usize, target: Option<(Arc<Node>, Asking)>) -> Option<Pending> {
        let command = self.command(place)?.clone();
        Some(Pending { at, task: Task { slot, command }, target })
    }
}

/// One pipeline per server.
fn group(map: &Map, pending: Vec<Pending>) -> Result<Vec<Sent>, Fault> {
    let room = if map.is_one() { pending.len() } else { pending.len() / map.nodes.len().max(1) + 8 };
    let mut groups: Vec<Sent> = vec![];
    for Pending { at, task, target } in pending {
        let (node, asking) = match &target {
            Some((node, asking)) => (node, *asking),
            None => {
                let unserved = || {
                    Fault::new(
                        Kind::Unavailable,
                        format!("no server of the cluster has slot {}", task.slot),
                        "see CLUSTER INFO and CLUSTER SHARDS on any of its servers",
                    )
                };
                (map.node(task.slot).ok_or_else(unserved)?, false)
            }
        };
        let sent = match groups.iter().position(|g| g.node.host == node.host) {
            Some(i) => &mut groups[i],
            None => {
                groups.push(Sent { node: Arc::clone(node), places: Vec::with_capacity(room), commands: Pipeline::with_capacity(room) });
                let last = groups.len() - 1;
                &mut groups[last]
            }
        };
        if asking {
            sent.commands.add_command(cmd("ASKING"));
        }
        sent.places.push((at, task.slot, sent.commands.len()));
        sent.commands.add_command(task.command);
    }
    Ok(groups)
}

async fn send(lane: Lane, sent: Sent) -> (Sent, RedisResult<Vec<Value>>) {
    let answers = match (sent.commands.len(), sent.commands.cmd_iter().next()) {
        (1, Some(command)) => sent.node.command(lane, command).await.map(|v| vec![v]),
        _ => sent.node.pipeline(lane, &sent.commands).await,
    };
    (sent, answers)
}
