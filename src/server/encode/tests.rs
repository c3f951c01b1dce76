use std::sync::Arc;

use arrow_flight::decode::FlightRecordBatchStream;
use datafusion::arrow::array::*;
use datafusion::arrow::datatypes::*;
use futures::TryStreamExt;
use prost::Message;

use super::*;

fn odd_batch() -> RecordBatch {
    let dict: DictionaryArray<Int32Type> = vec![Some("x"), None, Some("x")].into_iter().collect();
    let mut run = PrimitiveRunBuilder::<Int32Type, Int64Type>::new();
    run.extend([Some(7), Some(7), None]);
    let mut list = GenericListViewBuilder::<i32, _>::new(StringViewBuilder::new());
    for values in [vec!["a", "b"], vec![], vec!["c"]] {
        for v in values {
            list.values().append_value(v);
        }
        list.append(true);
    }
    let halves: Float16Array = vec![Some(half(1.5)), None, Some(half(-2.0))].into_iter().collect();
    let short = Decimal64Array::from(vec![Some(125), None, Some(-5)]).with_precision_and_scale(10, 2).unwrap();
    let views = Arc::new(StringViewArray::from(vec!["p", "q", "a text that is longer than twelve bytes"]));
    let nested = StructArray::from(vec![(Arc::new(Field::new("v", DataType::Utf8View, false)), views.clone() as ArrayRef)]);
    RecordBatch::try_from_iter([
        ("text", views as ArrayRef),
        ("bytes", Arc::new(BinaryViewArray::from(vec![b"1".as_slice(), b"2", b"3"]))),
        ("dict", Arc::new(dict)),
        ("half", Arc::new(halves)),
        ("short", Arc::new(short)),
        ("run", Arc::new(run.finish())),
        ("list", Arc::new(list.finish())),
        ("nested", Arc::new(nested)),
        ("plain", Arc::new(Int64Array::from(vec![1, 2, 3]))),
    ])
    .unwrap()
}

fn half(v: f32) -> <Float16Type as ArrowPrimitiveType>::Native {
    <Float16Type as ArrowPrimitiveType>::Native::from_f32(v)
}

async fn over_the_wire(batches: Vec<RecordBatch>, schema: SchemaRef) -> (SchemaRef, Vec<RecordBatch>, usize) {
    let rows = futures::stream::iter(batches.into_iter().map(Ok::<_, DataFusionError>));
    let messages: Vec<FlightData> = encode(rows, schema, "".into()).try_collect().await.unwrap();
    let largest = messages.iter().map(Message::encoded_len).max().unwrap();
    let mut stream = FlightRecordBatchStream::new_from_flight_data(futures::stream::iter(messages.into_iter().map(Ok)));
    let mut out = vec![];
    while let Some(b) = stream.try_next().await.unwrap() {
        out.push(b);
    }
    (Arc::clone(stream.schema().unwrap()), out, largest)
}

#[tokio::test]
async fn odd_types_arrive_as_plain_ones_under_the_announced_schema() {
    let batch = odd_batch();
    let schema = wire_schema(&batch.schema());
    let (sent, rows, _) = over_the_wire(vec![batch], Arc::clone(&schema)).await;
    assert_eq!(sent, schema, "FlightInfo and DoGet must agree");
    let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    let nested = DataType::Struct(vec![Field::new("v", DataType::Utf8, true)].into());
    let types: Vec<&DataType> = sent.fields().iter().map(|f| f.data_type()).collect();
    assert_eq!(
        types,
        [
            &DataType::Utf8,
            &DataType::Binary,
            &DataType::Utf8,
            &DataType::Float32,
            &DataType::Decimal128(10, 2),
            &DataType::Int64,
            &list,
            &nested,
            &DataType::Int64
        ]
    );
    assert!(sent.fields().iter().all(|f| f.is_nullable()));
    let row = &rows[0];
    assert_eq!(row.column(2).as_string::<i32>().iter().collect::<Vec<_>>(), [Some("x"), None, Some("x")]);
    assert_eq!(row.column(3).as_primitive::<Float32Type>().iter().collect::<Vec<_>>(), [Some(1.5), None, Some(-2.0)]);
    assert_eq!(row.column(4).as_primitive::<Decimal128Type>().iter().collect::<Vec<_>>(), [Some(125), None, Some(-5)]);
    assert_eq!(row.column(5).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(7), Some(7), None]);
    assert_eq!(row.column(6).as_list::<i32>().value(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn no_rows_still_have_a_schema() {
    let schema = wire_schema(&odd_batch().schema());
    let (sent, rows, _) = over_the_wire(vec![], Arc::clone(&schema)).await;
    assert_eq!((sent, rows.len()), (schema, 0));
}

#[tokio::test]
async fn fat_rows_among_thin_ones_stay_below_four_mebibytes() {
    let fat = "f".repeat(300_000);
    let text: StringArray = (0..4000).map(|i| Some(if i < 60 { fat.as_str() } else { "t" })).collect();
    let mut lists = ListBuilder::new(StringBuilder::new());
    for i in 0..4000 {
        lists.values().append_value(if i > 3950 { fat.as_str() } else { "t" });
        lists.append(true);
    }
    let batch = RecordBatch::try_from_iter([("text", Arc::new(text) as ArrayRef), ("list", Arc::new(lists.finish()))]).unwrap();
    let schema = wire_schema(&batch.schema());
    let (_, rows, largest) = over_the_wire(vec![batch.clone()], schema).await;
    assert!(largest < 4 << 20, "{largest}");
    assert!(rows.len() < 100, "{} messages", rows.len());
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 4000);
    let first = rows[0].column(0).as_string::<i32>();
    assert_eq!(first.value(0), fat);
}

#[tokio::test]
async fn errors_in_the_middle_carry_their_code() {
    let rows = futures::stream::iter([Err::<RecordBatch, _>(DataFusionError::from(Error::unavailable("redis is away")))]);
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let e = encode(rows, schema, "SELECT 1".into()).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(e.code(), tonic::Code::Unavailable);
    assert!(e.message().contains("redis is away"));
}

#[tokio::test]
async fn a_panic_becomes_an_internal_error() {
    let rows = futures::stream::iter([1]).map(|_| -> Result<RecordBatch, DataFusionError> { panic!("boom") });
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let e = encode(rows, schema, "SELECT 1".into()).try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(e.code(), tonic::Code::Internal);
}
