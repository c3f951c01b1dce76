//! GetXdbcTypeInfo: one row per SQL type.

use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};

use crate::error::{Error, Result};

pub(super) fn build() -> Result<XdbcTypeInfoData> {
    use XdbcDataType::*;
    let mut builder = XdbcTypeInfoDataBuilder::new();
    // ODBC wants the rows in the order of their type code.
    let mut types = vec![
        number("TINYINT", XdbcTinyint, 3, 10),
        number("SMALLINT", XdbcSmallint, 5, 10),
        number("INT", XdbcInteger, 10, 10),
        number("BIGINT", XdbcBigint, 19, 10),
        number("FLOAT", XdbcReal, 24, 2),
        number("DOUBLE", XdbcDouble, 53, 2),
        XdbcTypeInfo {
            create_params: Some(vec!["precision".into(), "scale".into()]),
            fixed_prec_scale: true,
            minimum_scale: Some(0),
            maximum_scale: Some(38),
            ..number("DECIMAL", XdbcDecimal, 38, 10)
        },
        plain("BOOLEAN", XdbcBit, 1),
        XdbcTypeInfo { case_sensitive: true, ..quoted("VARCHAR", XdbcVarchar, i32::MAX, "'", "'") },
        quoted("BYTEA", XdbcVarbinary, i32::MAX, "X'", "'"),
        XdbcTypeInfo {
            sql_data_type: XdbcDatetime,
            // The code of dates too.
            datetime_subcode: Some(XdbcDatetimeSubcode::XdbcSubcodeYear),
            ..quoted("DATE", XdbcDate, 10, "DATE '", "'")
        },
        XdbcTypeInfo {
            sql_data_type: XdbcDatetime,
            datetime_subcode: Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp),
            minimum_scale: Some(6),
            maximum_scale: Some(6),
            ..quoted("TIMESTAMP", XdbcTimestamp, 32, "TIMESTAMP '", "'")
        },
    ];
    types.sort_by_key(|t| t.data_type as i32);
    types.into_iter().for_each(|t| builder.append(t));
    builder.build().map_err(|e| Error::internal(e.to_string()))
}

fn plain(name: &str, data_type: XdbcDataType, size: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.into(),
        data_type,
        column_size: Some(size),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        local_type_name: Some(name.into()),
        sql_data_type: data_type,
        ..Default::default()
    }
}

fn number(name: &str, data_type: XdbcDataType, size: i32, radix: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        unsigned_attribute: Some(false),
        auto_increment: Some(false),
        num_prec_radix: Some(radix),
        ..plain(name, data_type, size)
    }
}

fn quoted(name: &str, data_type: XdbcDataType, size: i32, prefix: &str, suffix: &str) -> XdbcTypeInfo {
    XdbcTypeInfo { literal_prefix: Some(prefix.into()), literal_suffix: Some(suffix.into()), ..plain(name, data_type, size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_once_with_nineteen_columns_and_a_filter() {
        let data = build().unwrap();
        let all = data.record_batch(None).unwrap();
        assert_eq!((all.num_rows(), all.num_columns()), (12, 19));
        assert_eq!(data.record_batch(Some(XdbcDataType::XdbcBigint as i32)).unwrap().num_rows(), 1);
    }
}
