//! GetSqlInfo: what this server can do. JDBC 18 asks for everything at once and fails where a value
//! that it knows is missing or of another type.

use std::collections::BTreeMap;

use arrow_flight::sql::SqlInfo::{self, *};
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{SqlNullOrdering, SqlSupportedCaseSensitivity};

use crate::error::{Error, Result};

const KEYWORDS: &[&str] = &[
    "ASOF",
    "AT",
    "COMMENT",
    "ENTITY",
    "EVENT",
    "FEATURE",
    "KNOWN",
    "LINEAGE",
    "LOOKBACK",
    "MATCH_CONDITION",
    "MATERIALIZE",
    "ONLINE",
    "OPTIMIZE",
    "OWNER",
    "REBUILD",
    "REFRESH",
    "REQUEST",
    "SERVICE",
    "TAGS",
    "TRAINING",
    "TTL",
    "VACUUM",
    "VALIDATE",
    "VERIFY",
    "WITHIN",
];
const NUMERIC: &[&str] = &[
    "ABS", "ACOS", "ASIN", "ATAN", "ATAN2", "CEIL", "COS", "COT", "DEGREES", "EXP", "FLOOR", "LOG", "LOG10", "LOG2", "PI", "POWER",
    "RADIANS", "RANDOM", "ROUND", "SIGN", "SIN", "SQRT", "TAN", "TRUNC",
];
const TEXT: &[&str] = &[
    "ASCII",
    "CHR",
    "CONCAT",
    "LEFT",
    "LENGTH",
    "LOWER",
    "LPAD",
    "LTRIM",
    "REPEAT",
    "REPLACE",
    "REVERSE",
    "RIGHT",
    "RPAD",
    "RTRIM",
    "SPLIT_PART",
    "STRPOS",
    "SUBSTRING",
    "TRIM",
    "UPPER",
];
const SYSTEM: &[&str] = &["COALESCE", "NULLIF"];
const DATETIME: &[&str] = &["CURRENT_DATE", "CURRENT_TIMESTAMP", "DATE_BIN", "DATE_PART", "DATE_TRUNC", "EXTRACT", "NOW", "TO_TIMESTAMP"];

const YES: &[SqlInfo] = &[
    FlightSqlServerSql,
    FlightSqlServerCancel,
    FlightSqlServerBulkIngestion,
    SqlDdlSchema,
    SqlDdlTable,
    SqlAllTablesAreSelectable,
    SqlSupportsColumnAliasing,
    SqlNullPlusNullIsNull,
    SqlSupportsTableCorrelationNames,
    SqlSupportsExpressionsInOrderBy,
    SqlSupportsOrderByUnrelated,
    SqlSupportsLikeEscapeClause,
    SqlCatalogAtStart,
    SqlCorrelatedSubqueriesSupported,
    SqlBatchUpdatesSupported,
    SqlDataDefinitionCausesTransactionCommit,
];

const NO: &[SqlInfo] = &[
    FlightSqlServerReadOnly,
    FlightSqlServerSubstrait,
    FlightSqlServerIngestTransactionsSupported,
    SqlDdlCatalog,
    SqlSupportsDifferentTableCorrelationNames,
    SqlSupportsNonNullableColumns,
    SqlSupportsIntegrityEnhancementFacility,
    SqlSelectForUpdateSupported,
    SqlStoredProceduresSupported,
    SqlTransactionsSupported,
    SqlDataDefinitionsInTransactionsIgnored,
    SqlSavepointsSupported,
    SqlNamedParametersSupported,
    SqlLocatorsUpdateCopy,
    SqlStoredFunctionsUsingCallSyntaxSupported,
];

/// 0 means: no limit, or not known. The isolation level is here although the protocol says int32:
/// JDBC reads a long.
const LONGS: &[SqlInfo] = &[
    SqlMaxBinaryLiteralLength,
    SqlMaxCharLiteralLength,
    SqlMaxColumnNameLength,
    SqlMaxColumnsInGroupBy,
    SqlMaxColumnsInIndex,
    SqlMaxColumnsInOrderBy,
    SqlMaxColumnsInSelect,
    SqlMaxColumnsInTable,
    SqlMaxConnections,
    SqlMaxCursorNameLength,
    SqlMaxIndexLength,
    SqlDbSchemaNameLength,
    SqlMaxProcedureNameLength,
    SqlMaxCatalogNameLength,
    SqlMaxRowSize,
    SqlMaxStatementLength,
    SqlMaxStatements,
    SqlMaxTableNameLength,
    SqlMaxTablesInSelect,
    SqlMaxUsernameLength,
    SqlDefaultTransactionIsolation,
];

pub(super) fn build() -> Result<SqlInfoData> {
    let mut b = SqlInfoDataBuilder::new();
    b.append(FlightSqlServerName, "Remige");
    b.append(FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    b.append(FlightSqlServerArrowVersion, "1.3");
    b.append(FlightSqlServerTransaction, 0i32);
    b.append(FlightSqlServerStatementTimeout, 0i32);
    b.append(FlightSqlServerTransactionTimeout, 0i32);
    YES.iter().for_each(|i| b.append(*i, true));
    NO.iter().for_each(|i| b.append(*i, false));
    LONGS.iter().for_each(|i| b.append(*i, 0i64));
    b.append(SqlMaxRowSizeIncludesBlobs, true);

    b.append(SqlIdentifierQuoteChar, "\"");
    b.append(SqlSearchStringEscape, "\\");
    b.append(SqlExtraNameCharacters, "");
    b.append(SqlSchemaTerm, "schema");
    b.append(SqlProcedureTerm, "procedure");
    b.append(SqlCatalogTerm, "catalog");
    b.append(SqlKeywords, KEYWORDS);
    b.append(SqlNumericFunctions, NUMERIC);
    b.append(SqlStringFunctions, TEXT);
    b.append(SqlSystemFunctions, SYSTEM);
    b.append(SqlDatetimeFunctions, DATETIME);
    b.append(SqlSupportsConvert, BTreeMap::<i32, Vec<i32>>::new());

    b.append(SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32);
    b.append(SqlQuotedIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32);
    b.append(SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
    // Bit masks as FlightSql.proto numbers them.
    b.append(SqlSupportedGroupBy, 0b11i32);
    b.append(SqlSupportedGrammar, 0b111i32);
    b.append(SqlAnsi92SupportedLevel, 0b1i32);
    b.append(SqlOuterJoinsSupportLevel, 0b110i32);
    b.append(SqlSchemasSupportedActions, 0b111i32);
    b.append(SqlCatalogsSupportedActions, 0i32);
    b.append(SqlSupportedPositionedCommands, 0i32);
    b.append(SqlSupportedSubqueries, 0b111i32);
    b.append(SqlSupportedUnions, 0b11i32);
    b.append(SqlSupportedTransactionsIsolationLevels, 0b1i32);
    b.append(SqlSupportedResultSetTypes, 0b10i32);
    b.append(SqlSupportedConcurrenciesForResultSetUnspecified, 0i32);
    b.append(SqlSupportedConcurrenciesForResultSetForwardOnly, 0b10i32);
    b.append(SqlSupportedConcurrenciesForResultSetScrollSensitive, 0i32);
    b.append(SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0i32);
    b.build().map_err(|e| Error::internal(e.to_string()))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::AsArray;
    use datafusion::arrow::datatypes::UInt32Type;

    use super::*;

    fn codes(ids: &[u32]) -> Vec<u32> {
        build().unwrap().record_batch(ids.iter().copied()).unwrap().column(0).as_primitive::<UInt32Type>().values().to_vec()
    }

    #[test]
    fn all_that_jdbc_reads_is_there() {
        let all = codes(&[]);
        let missing: Vec<u32> = (0..=11).filter(|i| ![6, 7].contains(i)).chain(500..=576).filter(|i| !all.contains(i)).collect();
        assert_eq!(missing, Vec::<u32>::new());
    }

    #[test]
    fn asks_are_filtered_and_unknown_ones_skipped() {
        assert_eq!(codes(&[8, 0, 4242]), [0, 8]);
        assert_eq!(codes(&[4242]), Vec::<u32>::new());
    }

    #[test]
    fn the_isolation_level_is_a_long() {
        let b = build().unwrap().record_batch([562]).unwrap();
        assert_eq!(b.column(1).as_union().type_id(0), 2);
    }
}
