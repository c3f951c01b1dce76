//! System tables that are views in SQL over the others: the files of sql/system.

/// A view: its file begins with what the table is, and says behind each column what that is.
#[derive(Debug)]
pub struct SqlView {
    pub name: &'static str,
    pub query: &'static str,
}

/// The view of a file in sql/system.
macro_rules! sql_view {
    ($name:literal) => {
        $crate::resolve::system::view::SqlView { name: $name, query: include_str!(concat!("../../../sql/system/", $name, ".sql")) }
    };
}

pub(super) use sql_view;
