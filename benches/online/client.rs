//! The load client of `benches/online/bench.py`: one kind of call, N clients, a batch size, some seconds;
//! prints one JSON line.
//!
//! ```sh
//! online_client --mode ticket --address grpc://127.0.0.1:8815 --clients 16 --batch 100 --seconds 5
//! ```
//!
//! Requests are built before the clock starts, in every mode, so that the client costs as little as it can;
//! answers are decoded and counted. With `--rate` the loop is open: request i is due at i / rate, and its
//! latency counts from there, so that a stall is not hidden by the requests that it held back.

// The stopwatch of a benchmark is the real one.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code)]
#[path = "../../examples/lookup_ticket.rs"]
mod lookup_ticket;

mod wire;

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use tokio::sync::{Barrier, Semaphore};
use wire::Caller;

pub type Failure = Box<dyn Error + Send + Sync>;

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Mode {
    /// MGET of the rows that lie in a Redis, as bytes.
    RawMget,
    /// Remige, one RPC: DoGet with an OnlineLookup ticket.
    Ticket,
    /// Remige, one RPC: DoGet with a ticket that holds SQL and parameters.
    QueryTicket,
    /// Remige, three RPCs: bind, GetFlightInfo, DoGet.
    Prepared,
    /// Feast's POST /get-online-features.
    Http,
}

#[derive(Parser, Clone)]
#[command(about = "Load on an online store, as one JSON line")]
pub struct Args {
    #[arg(long, value_enum)]
    pub mode: Mode,
    /// grpc://…, redis://… or http://…
    #[arg(long)]
    pub address: String,
    #[arg(long, default_value_t = 1)]
    pub clients: usize,
    /// Keys per request
    #[arg(long, default_value_t = 100)]
    pub batch: usize,
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Seconds of load before the clock starts
    #[arg(long, default_value_t = 1.0)]
    pub warm_up: f64,
    /// Requests per second of all clients, on a fixed schedule; without it each client asks again at once
    #[arg(long)]
    pub rate: Option<f64>,
    /// Keys are 0 … this
    #[arg(long, default_value_t = 1_000_000)]
    pub entities: u64,
    /// Feature view asked for
    #[arg(long, default_value = "bench")]
    pub view: String,
    /// Its key column
    #[arg(long, default_value = "entity_id")]
    pub key: String,
    /// Features f0, f1, … of Feast's view
    #[arg(long, default_value_t = 10)]
    pub features: usize,
    /// Different requests per client
    #[arg(long, default_value_t = 200)]
    pub pool: usize,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Threads of the client; 0: one per client, at most the cores
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

/// xorshift64*: the same keys for every mode.
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Self {
        Draw(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % n.max(1)
    }
}

#[derive(Default)]
struct Tally {
    nanos: Vec<u64>,
    errors: u64,
    first_error: Option<String>,
}

impl Tally {
    fn add(&mut self, since: Instant, answer: Result<(), Failure>) {
        match answer {
            Ok(()) => self.nanos.push(since.elapsed().as_nanos() as u64),
            Err(e) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| e.to_string());
            }
        }
    }
}

/// What all clients of one run share.
struct Run {
    args: Args,
    barrier: Barrier,
    /// When the schedule began.
    begun: OnceLock<Instant>,
    /// Requests of the schedule that are due and not taken.
    due: Semaphore,
    taken: AtomicU64,
    over: AtomicBool,
}

async fn client(run: Arc<Run>, mut caller: Caller) -> Result<(Instant, Tally), Failure> {
    caller.check().await?;
    let args = &run.args;
    let warm = Instant::now() + Duration::from_secs_f64(args.warm_up);
    let mut turn = 0;
    while Instant::now() < warm {
        caller.call(turn).await?;
        turn += 1;
    }
    run.barrier.wait().await;
    let start = Instant::now();
    let mut tally = Tally::default();
    match args.rate {
        None => {
            let end = start + Duration::from_secs_f64(args.seconds);
            loop {
                let since = Instant::now();
                if since >= end {
                    break;
                }
                tally.add(since, caller.call(turn).await);
                turn += 1;
                if tally.errors > 100 && tally.nanos.is_empty() {
                    break;
                }
            }
        }
        Some(rate) => loop {
            run.due.acquire().await?.forget();
            if run.over.load(Ordering::Acquire) {
                break;
            }
            let begun = run.begun.get().copied().unwrap_or(start);
            let since = begun + Duration::from_secs_f64(run.taken.fetch_add(1, Ordering::Relaxed) as f64 / rate);
            tally.add(since, caller.call(turn).await);
            turn += 1;
        },
    }
    Ok((start, tally))
}

/// Makes requests due. A thread of its own, because the timers of tokio have a grain of a millisecond.
fn schedule(run: &Run, rate: f64) {
    let start = *run.begun.get_or_init(Instant::now);
    let total = ((run.args.seconds * rate) as u64).max(1);
    for i in 0..total {
        let at = start + Duration::from_secs_f64(i as f64 / rate);
        if let Some(wait) = at.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        run.due.add_permits(1);
    }
    // what is due is answered before the end
    while run.taken.load(Ordering::Relaxed) < total && start.elapsed().as_secs_f64() < run.args.seconds * 3.0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    run.over.store(true, Ordering::Release);
    run.due.add_permits(run.args.clients);
}

async fn measure(args: Args) -> Result<String, Failure> {
    let callers = wire::clients(&args).await?;
    let others = usize::from(args.rate.is_some());
    let run = Arc::new(Run {
        barrier: Barrier::new(args.clients + others),
        begun: OnceLock::new(),
        due: Semaphore::new(0),
        taken: AtomicU64::new(0),
        over: AtomicBool::new(false),
        args,
    });
    let mut tasks = tokio::task::JoinSet::new();
    for caller in callers {
        tasks.spawn(client(run.clone(), caller));
    }
    if let Some(rate) = run.args.rate {
        let (run, handle) = (run.clone(), tokio::runtime::Handle::current());
        std::thread::spawn(move || {
            handle.block_on(run.barrier.wait());
            schedule(&run, rate);
        });
    }
    let mut all = Tally::default();
    let mut first = None::<Instant>;
    while let Some(done) = tasks.join_next().await {
        // a client that fails before the barrier would leave the others waiting
        let (start, tally) = done??;
        first = Some(first.map_or(start, |f| f.min(start)));
        all.nanos.extend(tally.nanos);
        all.errors += tally.errors;
        all.first_error = all.first_error.or(tally.first_error);
    }
    let took = first.map_or(0.0, |f| f.elapsed().as_secs_f64());
    Ok(line(&run.args, all, took))
}

fn line(args: &Args, mut all: Tally, took: f64) -> String {
    all.nanos.sort_unstable();
    let at = |share: f64| {
        let n = all.nanos.len();
        all.nanos.get(((n as f64 * share) as usize).min(n.saturating_sub(1))).map_or(0.0, |v| *v as f64 / 1e3)
    };
    let ops = all.nanos.len();
    let per_second = if took > 0.0 { ops as f64 / took } else { 0.0 };
    serde_json::json!({
        "mode": args.mode.to_possible_value().map(|v| v.get_name().to_string()), "clients": args.clients, "batch": args.batch,
        "seconds": took, "rate": args.rate, "ops": ops, "ops_s": per_second, "keys_s": per_second * args.batch as f64,
        "p50_us": at(0.5), "p90_us": at(0.9), "p99_us": at(0.99), "max_us": at(1.0), "errors": all.errors, "first_error": all.first_error,
    })
    .to_string()
}

fn main() {
    let args = Args::parse();
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let threads = if args.threads > 0 { args.threads } else { args.clients.min(cores) };
    let runtime = match threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        n => tokio::runtime::Builder::new_multi_thread().worker_threads(n).enable_all().build(),
    };
    let done = runtime.map_err(Failure::from).and_then(|r| r.block_on(measure(args)));
    match done {
        Ok(line) => println!("{line}"),
        Err(e) => {
            eprintln!("online_client: {e}");
            std::process::exit(1);
        }
    }
}
