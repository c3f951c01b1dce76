//! SetSessionOptions, GetSessionOptions, CloseSession: raw messages in the action's body, no `Any`.
//! arrow-flight has no types for them yet.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use tonic::Status;

use super::sessions::Caller;
use super::{CATALOG, Shared};
use crate::error::Kind;

#[derive(Clone, PartialEq, Message)]
pub(super) struct OptionValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5")]
    pub value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    List(TextList),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TextList {
    #[prost(string, repeated, tag = "1")]
    pub values: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsRequest {
    #[prost(map = "string, message", tag = "1")]
    pub options: HashMap<String, OptionValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub errors: HashMap<String, OptionError>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OptionError {
    #[prost(enumeration = "Problem", tag = "1")]
    pub value: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum Problem {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
    Error = 3,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub options: HashMap<String, OptionValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CloseSessionResult {
    #[prost(int32, tag = "1")]
    pub status: i32,
}

const CLOSED: i32 = 1;

impl Shared {
    pub(super) async fn set_session_options(&self, body: &[u8], caller: &Caller) -> Result<Bytes, Status> {
        let request = decode::<SetSessionOptionsRequest>(body)?;
        if !request.options.is_empty() {
            self.sessions.mark_changed(caller, "setting a session option")?;
        }
        let session = self.sessions.session(caller)?;
        let mut errors = HashMap::new();
        for (name, option) in request.options {
            let problem = match (name.as_str(), option.value) {
                ("catalog", Some(Value::Text(c))) if c == CATALOG => None,
                ("schema", Some(Value::Text(schema))) => match session.set_current_schema(&schema).await {
                    Ok(()) => None,
                    Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Invalid | Kind::Syntax) => Some(Problem::InvalidValue),
                    Err(_) => Some(Problem::Error),
                },
                ("catalog" | "schema", _) => Some(Problem::InvalidValue),
                _ => Some(Problem::InvalidName),
            };
            if let Some(problem) = problem {
                errors.insert(name, OptionError { value: problem as i32 });
            }
        }
        Ok(SetSessionOptionsResult { errors }.encode_to_vec().into())
    }

    pub(super) fn get_session_options(&self, caller: &Caller) -> Result<Bytes, Status> {
        let text = |v: String| OptionValue { value: Some(Value::Text(v)) };
        let schema = self.sessions.session(caller)?.current_schema();
        let options = HashMap::from([("catalog".to_string(), text(CATALOG.into())), ("schema".to_string(), text(schema))]);
        Ok(GetSessionOptionsResult { options }.encode_to_vec().into())
    }

    pub(super) fn close_session(&self, caller: &Caller) -> Bytes {
        self.sessions.close(caller);
        CloseSessionResult { status: CLOSED }.encode_to_vec().into()
    }
}

fn decode<M: Message + Default>(body: &[u8]) -> Result<M, Status> {
    M::decode(body).map_err(|e| Status::invalid_argument(format!("the action's body cannot be read: {e}")))
}
