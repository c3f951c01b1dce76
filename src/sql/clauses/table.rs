//! Clauses of CREATE TABLE.

use sqlparser::ast::{CreateTable, CreateTableOptions, HiveDistributionStyle, HiveFormat, TableConstraint};

use super::{Verdict, column, refuse};

pub(super) fn create(t: &CreateTable) -> Verdict {
    let CreateTable {
        or_replace,
        temporary,
        external,
        dynamic,
        global,
        if_not_exists,
        transient,
        volatile,
        iceberg,
        snapshot,
        name: _,
        columns,
        constraints: table_constraints,
        hive_distribution,
        hive_formats,
        table_options,
        file_format,
        location,
        query: _,
        without_rowid,
        like,
        clone,
        version,
        comment,
        on_commit,
        on_cluster,
        primary_key,
        order_by,
        partition_by,
        cluster_by,
        clustered_by,
        inherits,
        partition_of,
        for_values,
        strict,
        copy_grants,
        enable_schema_evolution,
        change_tracking,
        data_retention_time_in_days,
        max_data_extension_time_in_days,
        default_ddl_collation,
        with_aggregation_policy,
        with_row_access_policy,
        with_storage_lifecycle_policy,
        with_tags,
        external_volume,
        base_location,
        catalog,
        catalog_sync,
        storage_serialization_policy,
        target_lag,
        warehouse,
        refresh_mode,
        initialize,
        require_user,
        diststyle,
        distkey,
        sortkey,
        backup,
    } = t;
    refuse(*or_replace && *if_not_exists, "OR REPLACE together with IF NOT EXISTS", &["IF NOT EXISTS"], "write one of them")?;
    refuse(
        *temporary || global.is_some(),
        "CREATE TEMPORARY TABLE",
        &["TEMPORARY", "TEMP"],
        "CREATE TABLE, and DROP TABLE when done; a WITH query lasts for one statement",
    )?;
    let kinds = [
        ("EXTERNAL", *external),
        ("DYNAMIC", *dynamic),
        ("TRANSIENT", *transient),
        ("VOLATILE", *volatile),
        ("ICEBERG", *iceberg),
        ("SNAPSHOT", *snapshot),
    ];
    for (word, given) in kinds {
        refuse(
            given,
            format!("CREATE {word} TABLE in this form"),
            &["TABLE"],
            "write CREATE TABLE, or CREATE EXTERNAL TABLE … STORED AS … LOCATION …",
        )?;
    }
    columns.iter().try_for_each(column)?;
    constraints(table_constraints)?;
    refuse(primary_key.is_some(), "PRIMARY KEY", &["PRIMARY KEY"], "leave it out; CREATE ENTITY declares the key of feature views")?;
    placed(hive_distribution, hive_formats.as_ref())?;
    let files = "tables are kept in the warehouse; CREATE EXTERNAL TABLE … STORED AS … LOCATION … reads files of yours";
    refuse(location.is_some() || base_location.is_some(), "LOCATION of CREATE TABLE", &["LOCATION", "BASE_LOCATION"], files)?;
    refuse(file_format.is_some(), "STORED AS of CREATE TABLE", &["STORED AS"], files)?;
    let (what, words): (_, &'static [&'static str]) = match table_options {
        CreateTableOptions::None => ("", &[]),
        CreateTableOptions::With(_) => ("WITH (…) of CREATE TABLE", &["WITH"]),
        CreateTableOptions::Options(_) => ("OPTIONS of CREATE TABLE", &["OPTIONS"]),
        CreateTableOptions::Plain(list) if list.iter().any(|o| o.to_string().to_uppercase().starts_with("COMMENT")) => {
            ("COMMENT of CREATE TABLE", &["COMMENT"])
        }
        CreateTableOptions::Plain(_) => {
            ("an option of CREATE TABLE", &["ENGINE", "TABLESPACE", "CHARSET", "COLLATE", "AUTO_INCREMENT", "ROW_FORMAT"])
        }
        CreateTableOptions::TableProperties(_) => ("TBLPROPERTIES", &["TBLPROPERTIES"]),
    };
    refuse(*table_options != CreateTableOptions::None, what, words, "leave it out: a table has columns, and no options")?;
    refuse(like.is_some(), "CREATE TABLE … LIKE", &["LIKE"], "write CREATE TABLE b AS SELECT * FROM a LIMIT 0")?;
    refuse(clone.is_some() || version.is_some(), "CREATE TABLE … CLONE", &["CLONE"], "write CREATE TABLE b AS SELECT * FROM a")?;
    refuse(
        comment.is_some(),
        "COMMENT of CREATE TABLE",
        &["COMMENT"],
        "leave it out; schemas, views, entities and feature views take COMMENT",
    )?;
    let order = "leave it out: files are sorted and cut by the engine, and queries read those that they need";
    refuse(order_by.is_some() || sortkey.is_some(), "ORDER BY of CREATE TABLE", &["ORDER BY", "SORTKEY"], order)?;
    refuse(partition_by.is_some(), "PARTITION BY of CREATE TABLE", &["PARTITION BY", "PARTITIONED BY"], order)?;
    refuse(cluster_by.is_some() || clustered_by.is_some(), "CLUSTER BY of CREATE TABLE", &["CLUSTER BY", "CLUSTERED BY"], order)?;
    refuse(distkey.is_some() || diststyle.is_some(), "DISTKEY", &["DISTKEY", "DISTSTYLE"], order)?;
    refuse(
        inherits.is_some() || partition_of.is_some() || for_values.is_some(),
        "a table of another table",
        &["INHERITS", "PARTITION OF"],
        "write a view over both: CREATE VIEW … AS SELECT … UNION ALL SELECT …",
    )?;
    let others = [
        ("WITHOUT ROWID", *without_rowid),
        ("STRICT", *strict),
        ("ON COMMIT", on_commit.is_some()),
        ("ON CLUSTER", on_cluster.is_some()),
        ("COPY GRANTS", *copy_grants),
        ("ENABLE_SCHEMA_EVOLUTION", enable_schema_evolution.is_some()),
        ("CHANGE_TRACKING", change_tracking.is_some()),
        ("DATA_RETENTION_TIME_IN_DAYS", data_retention_time_in_days.is_some()),
        ("MAX_DATA_EXTENSION_TIME_IN_DAYS", max_data_extension_time_in_days.is_some()),
        ("DEFAULT_DDL_COLLATION", default_ddl_collation.is_some()),
        ("AGGREGATION POLICY", with_aggregation_policy.is_some()),
        ("ROW ACCESS POLICY", with_row_access_policy.is_some()),
        ("STORAGE LIFECYCLE POLICY", with_storage_lifecycle_policy.is_some()),
        ("TAG", with_tags.is_some()),
        ("EXTERNAL_VOLUME", external_volume.is_some()),
        ("CATALOG", catalog.is_some()),
        ("CATALOG_SYNC", catalog_sync.is_some()),
        ("STORAGE_SERIALIZATION_POLICY", storage_serialization_policy.is_some()),
        ("TARGET_LAG", target_lag.is_some()),
        ("WAREHOUSE", warehouse.is_some()),
        ("REFRESH_MODE", refresh_mode.is_some()),
        ("INITIALIZE", initialize.is_some()),
        ("REQUIRE USER", *require_user),
        ("BACKUP", backup.is_some()),
    ];
    for (word, given) in others {
        refuse(
            given,
            format!("{word} of CREATE TABLE"),
            &["STRICT", "ON COMMIT", "ON CLUSTER", "COPY GRANTS", "WITHOUT ROWID", "BACKUP"],
            "leave it out: a table has columns, and no options",
        )?;
    }
    Ok(())
}

fn placed(distribution: &HiveDistributionStyle, format: Option<&HiveFormat>) -> Verdict {
    let files = "tables are kept in the warehouse; CREATE EXTERNAL TABLE … STORED AS … LOCATION … reads files of yours";
    match distribution {
        HiveDistributionStyle::NONE => {}
        HiveDistributionStyle::PARTITIONED { columns: _ } => {
            refuse(
                true,
                "PARTITIONED BY of CREATE TABLE",
                &["PARTITIONED BY"],
                "leave it out: files are sorted and cut by the engine, and queries read those that they need",
            )?;
        }
        HiveDistributionStyle::SKEWED { columns: _, on: _, stored_as_directories: _ } => {
            refuse(true, "SKEWED BY", &["SKEWED BY"], "leave it out")?
        }
    }
    let Some(HiveFormat { row_format, serde_properties, storage, location }) = format else { return Ok(()) };
    refuse(row_format.is_some() || serde_properties.is_some(), "ROW FORMAT", &["ROW FORMAT", "SERDEPROPERTIES"], files)?;
    refuse(storage.is_some(), "STORED AS of CREATE TABLE", &["STORED AS"], files)?;
    refuse(location.is_some(), "LOCATION of CREATE TABLE", &["LOCATION"], files)
}

/// Constraints of a whole table.
pub(super) fn constraints(list: &[TableConstraint]) -> Verdict {
    let Some(first) = list.first() else { return Ok(()) };
    let hint = "leave it out, and look for wrong rows with a query";
    match first {
        TableConstraint::PrimaryKey(_) | TableConstraint::PrimaryKeyUsingIndex(_) => {
            refuse(true, "PRIMARY KEY", &["PRIMARY KEY"], "leave it out; CREATE ENTITY declares the key of feature views")
        }
        TableConstraint::Unique(_) | TableConstraint::UniqueUsingIndex(_) => refuse(true, "UNIQUE", &["UNIQUE"], hint),
        TableConstraint::ForeignKey(_) => refuse(true, "FOREIGN KEY", &["FOREIGN KEY"], hint),
        TableConstraint::Check(_) => refuse(true, "CHECK", &["CHECK"], hint),
        TableConstraint::Index(_) | TableConstraint::FulltextOrSpatial(_) => refuse(
            true,
            "an index",
            &["INDEX", "KEY", "FULLTEXT", "SPATIAL"],
            "leave it out: there are no indexes; feature views are sorted by key and time",
        ),
    }
}
