//! What there is: catalogs, schemas, tables, keys.

use std::sync::Arc;

use arrow_flight::sql::metadata::{GetCatalogsBuilder, GetDbSchemasBuilder, GetTablesBuilder};
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTableTypes, CommandGetTables, ProstMessageExt,
};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use datafusion::arrow::array::{ArrayRef, Int32Array, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use prost::Message;
use tonic::{Request, Response, Status};

use super::encode::{FlightStream, encode_batch, wire_schema};
use super::sessions::Caller;
use super::{CATALOG, Shared};
use crate::error::Result;
use crate::session::TableInfo;

const TABLE_TYPES: [&str; 3] = ["SYSTEM TABLE", "TABLE", "VIEW"];

/// FlightInfo of a metadata command: its ticket is the command itself.
pub(super) fn flight_info<M: ProstMessageExt>(
    command: &M,
    schema: &Schema,
    request: Request<FlightDescriptor>,
) -> Result<Response<FlightInfo>, Status> {
    let ticket = Ticket::new(command.as_any().encode_to_vec());
    let info = FlightInfo::new().try_with_schema(schema).map_err(crate::error::Error::from)?;
    Ok(Response::new(info.with_endpoint(FlightEndpoint::new().with_ticket(ticket)).with_descriptor(request.into_inner())))
}

pub(super) fn answer(batch: arrow_flight::error::Result<RecordBatch>) -> Result<Response<FlightStream>, Status> {
    Ok(Response::new(encode_batch(batch?)))
}

impl Shared {
    pub(super) fn catalogs(&self) -> Result<Response<FlightStream>, Status> {
        let mut builder = CommandGetCatalogs {}.into_builder();
        builder.append(CATALOG);
        answer(builder.build())
    }

    pub(super) async fn schemas(&self, command: CommandGetDbSchemas, caller: &Caller) -> Result<Response<FlightStream>, Status> {
        let mut builder: GetDbSchemasBuilder = command.into_builder();
        for schema in self.sessions.session(caller)?.schemas().await? {
            builder.append(CATALOG, schema);
        }
        answer(builder.build())
    }

    pub(super) fn table_types(&self) -> Result<Response<FlightStream>, Status> {
        let mut builder = CommandGetTableTypes {}.into_builder();
        TABLE_TYPES.iter().for_each(|t| builder.append(t));
        answer(builder.build())
    }

    pub(super) async fn tables(&self, command: CommandGetTables, caller: &Caller) -> Result<Response<FlightStream>, Status> {
        let with_columns = command.include_schema;
        let mut builder: GetTablesBuilder = command.into_builder();
        for table in self.sessions.session(caller)?.tables(with_columns).await? {
            let schema = if with_columns { table_schema(&table) } else { Schema::empty() };
            builder.append(CATALOG, &table.schema, &table.name, table.kind, &schema)?;
        }
        answer(builder.build())
    }

    pub(super) async fn primary_keys(&self, command: CommandGetPrimaryKeys, caller: &Caller) -> Result<Response<FlightStream>, Status> {
        let mut tables = match command.catalog.as_deref() {
            None | Some(CATALOG) => self.sessions.session(caller)?.tables(false).await?,
            Some(_) => vec![],
        };
        tables.retain(|t| t.name == command.table && command.db_schema.as_ref().is_none_or(|s| *s == t.schema));
        tables.sort_by(|a, b| a.schema.cmp(&b.schema));
        answer(Ok(key_rows(&tables)?))
    }
}

pub(super) fn catalogs_schema() -> SchemaRef {
    GetCatalogsBuilder::new().schema()
}

pub(super) fn table_types_schema() -> SchemaRef {
    CommandGetTableTypes {}.into_builder().schema()
}

/// Columns of a table as a query would return them, with what JDBC asks of each.
fn table_schema(table: &TableInfo) -> Schema {
    let Some(columns) = &table.columns else { return Schema::empty() };
    let fields = wire_schema(columns);
    let fields: Fields = fields.fields().iter().map(|f| Arc::new(with_column_metadata(f, table))).collect();
    Schema::new(fields)
}

fn with_column_metadata(field: &Field, table: &TableInfo) -> Field {
    let mut metadata = field.metadata().clone();
    let mut put = |key: &str, value: String| metadata.insert(format!("ARROW:FLIGHT:SQL:{key}"), value);
    put("CATALOG_NAME", CATALOG.into());
    put("DB_SCHEMA_NAME", table.schema.clone());
    put("TABLE_NAME", table.name.clone());
    put("TYPE_NAME", type_name(field.data_type()));
    if let DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) = field.data_type() {
        put("PRECISION", precision.to_string());
        put("SCALE", scale.to_string());
    }
    let text = matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8);
    put("IS_AUTO_INCREMENT", "0".into());
    put("IS_CASE_SENSITIVE", if text { "1" } else { "0" }.into());
    put("IS_READ_ONLY", if table.kind == "TABLE" { "0" } else { "1" }.into());
    put("IS_SEARCHABLE", "1".into());
    field.clone().with_metadata(metadata)
}

fn type_name(t: &DataType) -> String {
    crate::model::types::ColumnType::stored(t).map_or_else(|_| t.to_string(), |t| t.to_string())
}

pub(super) fn primary_keys_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

fn key_rows(tables: &[TableInfo]) -> Result<RecordBatch> {
    struct Key<'a> {
        table: &'a TableInfo,
        column: &'a str,
        number: i32,
    }
    let keys: Vec<Key> = tables
        .iter()
        .flat_map(|table| table.primary_key.iter().zip(1..).map(move |(column, number)| Key { table, column, number }))
        .collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(keys.iter().map(|_| Some(CATALOG)).collect::<StringArray>()),
        Arc::new(keys.iter().map(|k| Some(&k.table.schema)).collect::<StringArray>()),
        Arc::new(keys.iter().map(|k| Some(&k.table.name)).collect::<StringArray>()),
        Arc::new(keys.iter().map(|k| Some(k.column)).collect::<StringArray>()),
        Arc::new(StringArray::new_null(keys.len())),
        Arc::new(keys.iter().map(|k| k.number).collect::<Int32Array>()),
    ];
    Ok(RecordBatch::try_new(primary_keys_schema(), columns)?)
}

/// Of exported, imported and cross-referenced keys; there are no foreign keys.
pub(super) fn foreign_keys_schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let mut fields = vec![];
    for side in ["pk", "fk"] {
        fields.push(text(&format!("{side}_catalog_name"), true));
        fields.push(text(&format!("{side}_db_schema_name"), true));
        fields.push(text(&format!("{side}_table_name"), false));
        fields.push(text(&format!("{side}_column_name"), false));
    }
    fields.push(Field::new("key_sequence", DataType::Int32, false));
    fields.push(text("fk_key_name", true));
    fields.push(text("pk_key_name", true));
    fields.push(Field::new("update_rule", DataType::UInt8, false));
    fields.push(Field::new("delete_rule", DataType::UInt8, false));
    Arc::new(Schema::new(fields))
}

pub(super) fn foreign_keys() -> Result<Response<FlightStream>, Status> {
    answer(Ok(RecordBatch::new_empty(foreign_keys_schema())))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::AsArray;

    use super::*;

    fn view() -> TableInfo {
        TableInfo {
            schema: "public".into(),
            name: "v".into(),
            kind: "VIEW",
            comment: None,
            columns: Some(Arc::new(Schema::new(vec![
                Field::new("k", DataType::Utf8View, false),
                Field::new("d", DataType::Decimal64(10, 2), true),
            ]))),
            primary_key: vec!["k".into(), "l".into()],
        }
    }

    #[test]
    fn keys_are_numbered_in_order() {
        let b = key_rows(&[view()]).unwrap();
        assert_eq!(b.column(3).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["k", "l"]);
        assert_eq!(b.column(5).as_primitive::<datafusion::arrow::datatypes::Int32Type>().values(), &[1, 2]);
        assert_eq!(foreign_keys_schema().fields().len(), 13);
    }

    #[test]
    fn columns_are_described_as_they_cross_the_wire() {
        let s = table_schema(&view());
        assert_eq!(s.field(0).data_type(), &DataType::Utf8);
        assert_eq!(s.field(0).metadata()["ARROW:FLIGHT:SQL:TYPE_NAME"], "VARCHAR");
        assert_eq!(s.field(1).metadata()["ARROW:FLIGHT:SQL:PRECISION"], "10");
        assert_eq!(s.field(1).metadata()["ARROW:FLIGHT:SQL:TABLE_NAME"], "v");
    }
}
