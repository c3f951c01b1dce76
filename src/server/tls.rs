//! TLS of the endpoint. Plain text stays on this machine.

use tokio::net::TcpListener;
use tonic::transport::{Identity, ServerTlsConfig};

use super::request::duration;
use crate::config::ServerSettings;
use crate::error::{Error, Result};

/// Chooses the crypto library of this process; to be called before the first TLS connection, by
/// clients of a `grpc+tls://` address too. Choosing twice is fine.
pub fn choose_crypto() {
    // An error says that one was chosen before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Whether a server with these settings may listen at the address: plaintext on loopback only.
pub fn check_listener(settings: &ServerSettings, listener: &TcpListener) -> Result<()> {
    config(settings, listener).map(|_| ())
}

pub(super) fn config(settings: &ServerSettings, listener: &TcpListener) -> Result<Option<ServerTlsConfig>> {
    let (cert, key) = match (&settings.tls_cert, &settings.tls_key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => {
            let address = listener.local_addr()?;
            if address.ip().is_loopback() {
                return Ok(None);
            }
            return Err(Error::invalid(format!("{address} can be reached from other machines, and no certificate is given"))
                .with_hint("pass --tls-cert and --tls-key, or listen on 127.0.0.1"));
        }
        _ => return Err(Error::invalid("a certificate and its key belong together").with_hint("pass both --tls-cert and --tls-key")),
    };
    let read = |path: &std::path::Path| std::fs::read(path).map_err(|e| Error::from(e).context(path.display()));
    choose_crypto();
    let identity = Identity::from_pem(read(cert)?, read(key)?);
    Ok(Some(ServerTlsConfig::new().identity(identity).timeout(duration(settings.handshake_timeout))))
}
