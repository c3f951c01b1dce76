//! A Flight SQL client: the statements of this process run on a server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::FlightInfo;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::CommandGetTables;
use arrow_flight::sql::client::FlightSqlServiceClient;
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, stream};
use remige::config::without_credentials;
use remige::error::{Error, Kind, Result};
use remige::server::error_detail;
use remige::session::{Notice, Outcome};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Servers send at most 4 MiB per message; other Flight SQL servers may send more.
const MAX_MESSAGE: usize = 256 << 20;

/// Where Linux distributions keep the certificates that they trust.
const SYSTEM_CERTIFICATES: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A table as `\d` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub schema: String,
    pub name: String,
    pub kind: String,
    pub comment: String,
}

pub struct Remote {
    client: FlightSqlServiceClient<Channel>,
}

impl Remote {
    /// Connects to `grpc://host:port` or `grpc+tls://…` and opens a session there.
    pub async fn connect(address: &str, tls_ca: Option<PathBuf>) -> Result<Remote> {
        let shown = without_credentials(address);
        let wrong = || {
            Error::invalid(format!("{shown} is not the address of a server")).with_hint("write grpc://HOST:PORT or grpc+tls://HOST:PORT")
        };
        let url = Url::parse(address).map_err(|_| wrong())?;
        let tls = match url.scheme() {
            "grpc" | "grpc+tcp" => false,
            "grpc+tls" | "grpcs" => true,
            _ => return Err(wrong()),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::not_built(format!("user name and password in {shown}"))
                .with_hint("servers know no users yet and would not look at them; write grpc://HOST:PORT"));
        }
        let host = url.host_str().filter(|h| !h.is_empty()).ok_or_else(wrong)?;
        let port = url.port().unwrap_or(8815);
        let uri = format!("{}://{host}:{port}", if tls { "https" } else { "http" });
        let mut endpoint = Endpoint::from_shared(uri).map_err(|_| wrong())?.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        if tls {
            let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trusted(tls_ca)?));
            endpoint = endpoint.tls_config(config).map_err(|e| Error::invalid(format!("TLS settings for {shown}: {}", causes(&e))))?;
        }
        let channel = endpoint.connect().await.map_err(|e| {
            Error::unavailable(format!("cannot connect to {shown}: {}", causes(&e)))
                .with_hint("is the server running? start one with: remige serve")
        })?;
        let inner = FlightServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let mut remote = Remote { client: FlightSqlServiceClient::new_from_inner(inner) };
        remote.log_in().await;
        Ok(remote)
    }

    /// Asks for a session. A server without sessions still answers queries.
    async fn log_in(&mut self) {
        let _ = self.client.handshake("", "").await;
    }

    pub async fn execute(&mut self, sql: &str) -> Result<Outcome> {
        let info = self.client.execute(sql.to_string(), None).await.map_err(flight)?;
        let no_columns = info.schema.is_empty() || info.clone().try_decode_schema()?.fields().is_empty();
        if info.endpoint.is_empty() && no_columns {
            return Ok(Outcome::Updated(u64::try_from(info.total_records).unwrap_or(0)));
        }
        Ok(Outcome::Rows(self.rows(info)?))
    }

    /// The rows of all endpoints, one after the other, read as they are asked for.
    fn rows(&self, info: FlightInfo) -> Result<SendableRecordBatchStream> {
        let schema = Arc::new(info.clone().try_decode_schema()?);
        let client = self.client.clone();
        let tickets = info.endpoint.into_iter().filter_map(|e| e.ticket);
        let batches = stream::iter(tickets).then(move |ticket| {
            let mut client = client.clone();
            async move { client.do_get(ticket).await.map(|batches| batches.map_err(external)).map_err(external) }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches.try_flatten())))
    }

    pub async fn notices(&mut self) -> Result<Vec<Notice>> {
        let Outcome::Rows(mut rows) = self.execute("SHOW WARNINGS").await? else { return Ok(Vec::new()) };
        let mut notices = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            let (Some(levels), Some(messages)) = (texts(&batch, "level")?, texts(&batch, "message")?) else { return Ok(notices) };
            notices.extend(levels.into_iter().zip(messages).map(|(level, message)| Notice {
                level: if level.eq_ignore_ascii_case("warning") { "warning" } else { "notice" },
                message,
            }));
        }
        Ok(notices)
    }

    pub async fn tables(&mut self) -> Result<Vec<Listed>> {
        let info = self.client.get_tables(CommandGetTables::default()).await.map_err(flight)?;
        let mut rows = self.rows(info)?;
        let mut tables = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            let column = |name| Ok::<_, Error>(texts(&batch, name)?.unwrap_or_default());
            let (schemas, names, kinds) = (column("db_schema_name")?, column("table_name")?, column("table_type")?);
            for ((schema, name), kind) in schemas.into_iter().zip(names).zip(kinds) {
                tables.push(Listed { schema, name, kind, comment: String::new() });
            }
        }
        Ok(tables)
    }

    /// Tells the server that the session is over; it would forget it by itself.
    pub async fn close(mut self) {
        let action = arrow_flight::Action { r#type: "CloseSession".into(), body: Default::default() };
        if let Ok(mut answer) = self.client.do_action(action).await {
            while let Ok(Some(_)) = answer.message().await {}
        }
    }
}

fn texts(batch: &RecordBatch, column: &str) -> Result<Option<Vec<String>>> {
    let Some(column) = batch.column_by_name(column) else { return Ok(None) };
    let column = cast(column, &DataType::Utf8)?;
    let values = column.as_string::<i32>();
    Ok(Some((0..values.len()).map(|i| if values.is_null(i) { String::new() } else { values.value(i).to_string() }).collect()))
}

fn external(e: FlightError) -> DataFusionError {
    flight(e).into()
}

fn flight(e: FlightError) -> Error {
    match e {
        FlightError::Tonic(status) => {
            let kind = match status.code() {
                Code::InvalidArgument => Kind::Invalid,
                Code::NotFound => Kind::NotFound,
                Code::AlreadyExists => Kind::AlreadyExists,
                Code::Aborted => Kind::Conflict,
                Code::Unavailable => Kind::Unavailable,
                Code::ResourceExhausted => Kind::Exhausted,
                Code::PermissionDenied | Code::Unauthenticated => Kind::Denied,
                Code::Unimplemented => Kind::NotBuilt,
                Code::Cancelled => Kind::Cancelled,
                Code::DeadlineExceeded => Kind::Late,
                _ => Kind::Internal,
            };
            let plain = || match status.message() {
                "" => Error::new(kind, format!("the server answered {:?}", status.code())),
                message => Error::new(kind, message),
            };
            error_detail::read(status.details()).unwrap_or_else(plain)
        }
        FlightError::Arrow(e) => Error::from(e),
        FlightError::ExternalError(e) => Error::unavailable(e.to_string()),
        other => Error::internal(other.to_string()),
    }
}

fn trusted(tls_ca: Option<PathBuf>) -> Result<Vec<u8>> {
    let file = match tls_ca.or_else(|| std::env::var_os("SSL_CERT_FILE").map(PathBuf::from)) {
        Some(file) => file,
        None => SYSTEM_CERTIFICATES.iter().map(PathBuf::from).find(|p| p.exists()).ok_or_else(|| {
            Error::not_found("this system has no list of trusted certificates where it is usually kept")
                .with_hint("name the file with the server's certificate authority: --tls-ca FILE")
        })?,
    };
    std::fs::read(&file).map_err(|e| Error::from(e).context(format!("certificates {}", file.display())))
}

/// An error with what caused it: transport errors say only "transport error" by themselves.
fn causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bad_addresses_say_what_to_write_and_keep_secrets() {
        for bad in ["localhost:8815", "http://u:hunter2@h:1", "grpc://"] {
            let e = Remote::connect(bad, None).await.err().map(|e| e.to_string()).unwrap_or_default();
            assert!(e.contains("grpc://HOST:PORT") && !e.contains("hunter2"), "{bad}: {e}");
        }
        for named in ["grpc://u:hunter2@127.0.0.1:1", "grpc://u@127.0.0.1:1", "grpc+tls://:hunter2@127.0.0.1:1"] {
            let e = Remote::connect(named, None).await.err().unwrap();
            assert_eq!(e.kind(), Kind::NotBuilt, "{named}: {e}");
            assert!(e.to_string().contains("127.0.0.1:1") && !e.to_string().contains("hunter2"), "{e}");
        }
        let e = Remote::connect("grpc://127.0.0.1:1", None).await.err().unwrap();
        assert_eq!(e.kind(), Kind::Unavailable);
        assert!(e.to_string().contains("remige serve"), "{e}");
    }
}
