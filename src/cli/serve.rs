//! `remige serve`: a warehouse over Arrow Flight SQL, until a signal comes.

use std::io::Write;
use std::net::SocketAddr;

use metrics_exporter_prometheus::PrometheusBuilder;
use remige::clock::Clock;
use remige::config::Config;
use remige::error::{Error, Result};
use remige::progress::Progress;
use remige::session::Engine;
use tokio::net::{TcpListener, lookup_host};
use tokio::signal::unix::{SignalKind, signal};

use super::Exit;

pub fn run(config: Config) -> Result<(), Exit> {
    let runtime = super::runtime(config.threads)?;
    runtime.block_on(serve(config))?;
    super::end(runtime);
    Ok(())
}

async fn serve(config: Config) -> Result<()> {
    // Listened for before anything else, so that an early SIGTERM ends the process in the same way.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: no new work; running statements may finish"),
            _ = interrupt.recv() => tracing::info!("SIGINT: no new work; running statements may finish"),
        }
    };
    if let Some(address) = &config.server.metrics {
        let address = resolve("--metrics", address).await?;
        PrometheusBuilder::new().with_http_listener(address).install().map_err(|e| {
            Error::unavailable(format!("cannot serve metrics at {address}: {e}")).with_hint("is the port taken? --metrics sets another")
        })?;
    }
    let tls = config.server.tls_cert.is_some();
    let listen = config.server.listen.clone();
    let listener = TcpListener::bind(&listen).await.map_err(|e| {
        Error::unavailable(format!("cannot listen on {listen}: {e}"))
            .with_hint("is another server running there? --listen sets another address")
    })?;
    let address = listener.local_addr()?;
    // before the ready line: a script that waits for it must not go on against a server that refuses to start
    remige::server::check_listener(&config.server, &listener)?;
    let engine = Engine::open_with(config, Clock::system(), Progress::default()).await?;
    // From here on the kernel queues connections until the server takes them.
    let mut out = std::io::stdout();
    let scheme = if tls { "grpc+tls" } else { "grpc" };
    writeln!(out, "remige ready {scheme}://{address}").and_then(|()| out.flush())?;
    remige::server::serve(engine, listener, shutdown).await
}

async fn resolve(flag: &str, address: &str) -> Result<SocketAddr> {
    let found = lookup_host(address).await.map_err(|e| Error::invalid(format!("{flag} {address}: {e}")))?.next();
    found.ok_or_else(|| Error::invalid(format!("{flag} {address}: no such host")))
}
