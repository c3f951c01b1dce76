use std::io::Cursor;

use datafusion::arrow::array::{
    ArrayRef, BinaryArray, DictionaryArray, Float64Array, Int64Array, ListArray, NullArray, StringArray, TimestampMicrosecondArray,
    TimestampNanosecondArray,
};
use datafusion::arrow::datatypes::{Int32Type, Int64Type};
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;

use super::*;

fn sample() -> RecordBatch {
    let at = 1_700_000_000_000_000;
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef, true),
        ("text", Arc::new(StringArray::from(vec!["a,\"b\"", ""])), true),
        ("score", Arc::new(Float64Array::from(vec![Some(0.5), None])), true),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![at, at + 250_000]).with_timezone("Asia/Shanghai")), true),
        ("plain", Arc::new(TimestampNanosecondArray::from(vec![Some(at * 1000), None])), true),
        ("bytes", Arc::new(BinaryArray::from(vec![b"\x01\xff".as_slice(), b""])), true),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None])), true),
    ])
    .unwrap()
}

fn rows(batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    let schema = batches[0].schema();
    Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter(batches.into_iter().map(Ok))))
}

fn shown(batches: Vec<RecordBatch>, format: Format, limit: Option<u64>) -> (String, Printed) {
    let mut out = Vec::new();
    let printed = futures::executor::block_on(print(rows(batches), format, limit, &mut out)).unwrap();
    (String::from_utf8(out).unwrap(), printed)
}

#[test]
fn json_has_an_object_per_row_and_utc_times() {
    let (text, _) = shown(vec![sample()], Format::Json, None);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        r#"{"id":1,"text":"a,\"b\"","score":0.5,"at":"2023-11-14T22:13:20Z","plain":"2023-11-14T22:13:20Z","bytes":"01ff","list":[1,null]}"#
    );
    assert_eq!(lines[1], r#"{"id":null,"text":"","score":null,"at":"2023-11-14T22:13:20.250Z","plain":null,"bytes":"","list":null}"#);
    assert_eq!(lines.len(), 2);
}

#[test]
fn json_has_texts_for_what_is_no_number_and_for_keys() {
    use datafusion::arrow::array::{Float32Array, Float64Array, Int64Builder, MapBuilder};
    let mut map = MapBuilder::new(None, Int64Builder::new(), Int64Builder::new());
    for key in [7, 8, 9] {
        map.keys().append_value(key);
        map.values().append_value(key * 10);
        map.append(true).unwrap();
    }
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("d", Arc::new(Float64Array::from(vec![f64::NAN, f64::INFINITY, 1e300]))),
        ("f", Arc::new(Float32Array::from(vec![Some(f32::NEG_INFINITY), None, Some(0.1)]))),
        ("m", Arc::new(map.finish())),
    ];
    let (text, _) = shown(vec![RecordBatch::try_from_iter(columns).unwrap()], Format::Json, None);
    assert_eq!(
        text,
        "{\"d\":\"NaN\",\"f\":\"-Infinity\",\"m\":{\"7\":70}}\n\
         {\"d\":\"Infinity\",\"f\":null,\"m\":{\"8\":80}}\n\
         {\"d\":1e300,\"f\":0.1,\"m\":{\"9\":90}}\n"
    );
}

#[test]
fn json_refuses_two_columns_of_one_name() {
    let twice = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("a", DataType::Int64, true)]));
    let error = json::JsonPrinter::new(&twice).err().map(|e| e.to_string());
    assert!(error.as_deref().is_some_and(|e| e.contains("two columns named \"a\"")), "{error:?}");
}

#[test]
fn csv_tells_null_from_empty_text() {
    let (text, _) = shown(vec![sample()], Format::Csv, None);
    assert_eq!(
        text,
        "id,text,score,at,plain,bytes,list\n\
         1,\"a,\"\"b\"\"\",0.5,2023-11-14T22:13:20Z,2023-11-14T22:13:20,01ff,\"[1,null]\"\n\
         ,\"\",,2023-11-14T22:13:20.250Z,,\"\",\n"
    );
}

#[test]
fn csv_of_an_empty_result_is_its_header() {
    let (text, printed) = shown(vec![sample().slice(0, 0)], Format::Csv, None);
    assert_eq!((text.as_str(), printed.rows), ("id,text,score,at,plain,bytes,list\n", 0));
}

#[test]
fn tables_align_numbers_and_count_rows() {
    let two = RecordBatch::try_from_iter([
        ("n", Arc::new(Int64Array::from(vec![Some(7), None])) as ArrayRef),
        ("name", Arc::new(StringArray::from(vec!["x", "\u{1b}[31mred"]))),
    ])
    .unwrap();
    let (text, _) = shown(vec![two], Format::Table, None);
    assert_eq!(
        text,
        "┌──────┬───────────────┐\n\
         │ n    ┆ name          │\n\
         ╞══════╪═══════════════╡\n\
         │    7 ┆ x             │\n\
         │ NULL ┆ \\u{1b}[31mred │\n\
         └──────┴───────────────┘\n\
         (2 rows)\n"
    );
}

#[test]
fn nulls_of_every_encoding_are_nulls() {
    let dictionary: DictionaryArray<Int32Type> = [Some("x"), None].into_iter().collect();
    let batch =
        RecordBatch::try_from_iter_with_nullable([("d", Arc::new(dictionary) as ArrayRef, true), ("n", Arc::new(NullArray::new(2)), true)])
            .unwrap();
    assert_eq!(shown(vec![batch.clone()], Format::Csv, None).0, "d,n\nx,\n,\n");
    assert_eq!(shown(vec![batch.clone()], Format::Json, None).0, "{\"d\":\"x\",\"n\":null}\n{\"d\":null,\"n\":null}\n");
    assert_eq!(shown(vec![batch], Format::Table, None).0.matches("NULL").count(), 3);
}

fn numbers(from: i64, to: i64) -> RecordBatch {
    RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(from..to)) as ArrayRef)]).unwrap()
}

#[test]
fn long_tables_come_in_pages_and_lose_no_row() {
    let (text, printed) = shown(vec![numbers(0, 1500), numbers(1500, 2500)], Format::Table, None);
    assert_eq!(printed, Printed { rows: 2500, cut: false });
    assert_eq!(text.matches("│ n ").count() + text.matches("│    n ").count(), 3);
    for n in 0..2500 {
        assert!(text.contains(&format!(" {n} │")), "{n}");
    }
    assert!(text.ends_with("(2500 rows)\n"));
}

#[test]
fn a_limit_is_never_silent() {
    let (text, printed) = shown(vec![numbers(0, 5), numbers(5, 10)], Format::Table, Some(7));
    assert_eq!(printed, Printed { rows: 7, cut: true });
    assert!(text.ends_with("(first 7 rows)\n"));
    let (_, printed) = shown(vec![numbers(0, 5), numbers(5, 10)], Format::Table, Some(10));
    assert_eq!(printed, Printed { rows: 10, cut: false });
}

#[test]
fn arrow_streams_read_back() {
    let mut out = Vec::new();
    futures::executor::block_on(print(rows(vec![sample(), sample()]), Format::Arrow, None, &mut out)).unwrap();
    let back: Vec<RecordBatch> = StreamReader::try_new(Cursor::new(out), None).unwrap().map(Result::unwrap).collect();
    assert_eq!(back, vec![sample(), sample()]);
}

#[test]
fn a_closed_pipe_is_an_output_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for format in [Format::Table, Format::Csv, Format::Json, Format::Arrow] {
        let stop = futures::executor::block_on(print(rows(vec![sample()]), format, None, &mut Closed)).unwrap_err();
        assert!(matches!(stop, Stop::Output(e) if e.kind() == io::ErrorKind::BrokenPipe), "{format:?}");
    }
}
