//! Files in the warehouse.

use super::OnlineKind;

pub const KIND: OnlineKind = OnlineKind { name: "embedded", schemes: &[], form: "embedded", is_server: false };
