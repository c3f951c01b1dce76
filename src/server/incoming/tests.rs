use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, DictionaryArray, Int64Array, LargeStringArray, ListArray, NullArray, StringArray, StringViewArray,
};
use datafusion::arrow::datatypes::{Int32Type, Schema};
use datafusion::arrow::ipc;
use datafusion::arrow::ipc::convert::IpcSchemaEncoder;
use datafusion::arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

use super::*;
use crate::error::Kind;
use crate::server::direct::rows;

const LIMIT: usize = 1 << 20;

fn stream(batch: &RecordBatch, codec: Option<CompressionType>) -> Vec<u8> {
    let options = IpcWriteOptions::default().try_with_compression(codec).unwrap();
    let mut writer = StreamWriter::try_new_with_options(vec![], &batch.schema(), options).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn one(column: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter([("x", column)]).unwrap()
}

fn mixed() -> RecordBatch {
    let words: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("b")].into_iter().collect();
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![Some(1), Some(2), None]))),
        ("word", Arc::new(words)),
        ("text", Arc::new(StringArray::from(vec!["x", "", "é"]))),
        ("view", Arc::new(StringViewArray::from(vec!["x", "a text that is no inline one", ""]))),
        ("list", Arc::new(lists)),
        ("none", Arc::new(NullArray::new(3))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// A stream of this message alone.
fn framed(header: &[u8], body: &[u8]) -> Vec<u8> {
    [&[0xff; 4][..], &(header.len() as i32).to_le_bytes(), header, body].concat()
}

/// The header of a record batch of one column.
fn header(rows: i64, node: (i64, i64), buffers: &[(i64, i64)], body: i64) -> Vec<u8> {
    let mut b = IpcSchemaEncoder::new().schema_to_fb(&Schema::empty());
    b.reset();
    let nodes = b.create_vector(&[ipc::FieldNode::new(node.0, node.1)]);
    let buffers: Vec<ipc::Buffer> = buffers.iter().map(|(from, length)| ipc::Buffer::new(*from, *length)).collect();
    let buffers = b.create_vector(&buffers);
    let mut batch = ipc::RecordBatchBuilder::new(&mut b);
    batch.add_length(rows);
    batch.add_nodes(nodes);
    batch.add_buffers(buffers);
    let batch = batch.finish();
    let mut message = ipc::MessageBuilder::new(&mut b);
    message.add_version(ipc::MetadataVersion::V5);
    message.add_header_type(MessageHeader::RecordBatch);
    message.add_header(batch.as_union_value());
    message.add_bodyLength(body);
    let message = message.finish();
    b.finish(message, None);
    b.finished_data().to_vec()
}

/// The header of a schema whose only column is of a type that there is not.
fn odd_schema(odd: usize) -> Vec<u8> {
    let mut b = IpcSchemaEncoder::new().schema_to_fb(&Schema::empty());
    b.reset();
    let name = b.create_string("x");
    let (kind, of) = match odd {
        0 => {
            let mut int = ipc::IntBuilder::new(&mut b);
            int.add_bitWidth(63);
            (ipc::Type::Int, int.finish().as_union_value())
        }
        1 => {
            let mut union = ipc::UnionBuilder::new(&mut b);
            union.add_mode(ipc::UnionMode(9));
            (ipc::Type::Union, union.finish().as_union_value())
        }
        _ => (ipc::Type::List, ipc::ListBuilder::new(&mut b).finish().as_union_value()),
    };
    let mut field = ipc::FieldBuilder::new(&mut b);
    field.add_name(name);
    field.add_type_type(kind);
    field.add_type_(of);
    let field = field.finish();
    let fields = b.create_vector(&[field]);
    let mut schema = ipc::SchemaBuilder::new(&mut b);
    schema.add_fields(fields);
    let schema = schema.finish();
    let mut message = ipc::MessageBuilder::new(&mut b);
    message.add_version(ipc::MetadataVersion::V5);
    message.add_header_type(MessageHeader::Schema);
    message.add_header(schema.as_union_value());
    let message = message.finish();
    b.finish(message, None);
    b.finished_data().to_vec()
}

#[test]
fn what_is_honest_is_read() {
    let batch = mixed();
    let read = rows(&stream(&batch, None), LIMIT).unwrap();
    assert_eq!(read.columns(), batch.columns());
}

#[test]
fn flipped_bits_are_an_error_or_another_value_and_no_more() {
    let honest = stream(&mixed(), None);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let mut refused = 0;
    for round in 0..4000 {
        let mut damaged = honest.clone();
        for _ in 0..=round % 3 {
            let at = next(damaged.len());
            damaged[at] ^= 1 << next(8);
        }
        refused += usize::from(rows(&damaged, LIMIT).is_err());
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn parameters_are_not_compressed() {
    let batch = one(Arc::new(Int64Array::from(vec![0; 1000])));
    for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let mut bytes = stream(&batch, Some(codec));
        let e = rows(&bytes, LIMIT).unwrap_err();
        assert!(e.kind() == Kind::Invalid && e.message().contains("must not be compressed") && e.hint().is_some(), "{e}");
        // with a length that nobody can allocate
        let at = bytes.windows(8).rposition(|w| w == 8000_u64.to_le_bytes()).unwrap();
        bytes[at..at + 8].copy_from_slice(&i64::MAX.to_le_bytes());
        assert!(rows(&bytes, LIMIT).is_err());
    }
}

#[test]
fn rows_of_an_ingest_may_be_compressed_within_the_limit() {
    let batch = one(Arc::new(StringArray::from(vec!["x".repeat(8000)])));
    for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let bytes = stream(&batch, Some(codec));
        let admitted = |bytes: &[u8], limit| admit_stream(bytes, &mut Incoming::rows(limit));
        admitted(&bytes, LIMIT).unwrap();
        let e = admitted(&bytes, 5000).unwrap_err();
        assert!(e.kind() == Kind::Exhausted && e.hint().unwrap().contains("max_message_bytes"), "{e}");
        let at = bytes.windows(8).rposition(|w| w == 8000_u64.to_le_bytes()).unwrap();
        for length in [i64::MAX, 1 << 40, -2] {
            let mut absurd = bytes.clone();
            absurd[at..at + 8].copy_from_slice(&length.to_le_bytes());
            assert!(admitted(&absurd, LIMIT).is_err(), "{length}");
        }
        // a small declared length does not hide what is behind it
        let mut short = bytes.clone();
        short[at..at + 8].copy_from_slice(&1_i64.to_le_bytes());
        assert_eq!(admitted(&short, 5000).is_err(), codec == CompressionType::LZ4_FRAME);
    }
}

#[test]
fn a_message_holds_what_it_declares() {
    let body = [0; 64];
    let admit = |header: &[u8]| Incoming::parameters(LIMIT).admit(header, &body);
    admit(&header(2, (2, 0), &[(0, 0), (0, 16)], 64)).unwrap();
    for (what, header) in [
        ("negative offset", header(2, (2, 0), &[(0, 0), (-8, 16)], 64)),
        ("negative length", header(2, (2, 0), &[(0, 0), (0, -16)], 64)),
        ("overflow", header(2, (2, 0), &[(0, 0), (i64::MAX, i64::MAX)], 64)),
        ("behind the body", header(2, (2, 0), &[(0, 0), (56, 16)], 64)),
        ("overlap", header(2, (2, 0), &[(0, 40), (8, 40)], 64)),
        ("rows", header(i64::MAX, (2, 0), &[(0, 0), (0, 16)], 64)),
        ("negative rows", header(-1, (2, 0), &[(0, 0), (0, 16)], 64)),
        ("values", header(2, (i64::MAX, 0), &[(0, 0), (0, 16)], 64)),
        ("nulls", header(2, (2, 3), &[(0, 0), (0, 16)], 64)),
        ("no header", b"nonsense".to_vec()),
    ] {
        let e = admit(&header).unwrap_err();
        assert!(matches!(e.kind(), Kind::Invalid | Kind::Exhausted) && e.hint().is_some(), "{what}: {e}");
    }
    for declared in [-1, 65, i64::MAX] {
        let bytes = framed(&header(2, (2, 0), &[(0, 0), (0, 16)], declared), &body);
        assert!(next_message(&mut &bytes[..]).is_err(), "{declared}");
    }
    assert!(next_message(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..]).is_err());
}

#[test]
fn rows_of_nothing_count() {
    let nulls = stream(&one(Arc::new(NullArray::new(100_000))), None);
    assert!(rows(&nulls, LIMIT).is_ok());
    assert_eq!(rows(&nulls, 500_000).unwrap_err().kind(), Kind::Exhausted);
    // a few bytes each, one after another
    let few = stream(&one(Arc::new(NullArray::new(50_000))), None);
    let mut incoming = Incoming::parameters(500_000);
    admit_stream(&few, &mut incoming).unwrap();
    assert_eq!(admit_stream(&few, &mut incoming).unwrap_err().kind(), Kind::Exhausted);
}

#[test]
fn odd_schemas_are_an_error() {
    for odd in 0..3 {
        let e = rows(&framed(&odd_schema(odd), &[]), LIMIT).unwrap_err();
        assert!(e.kind() == Kind::Invalid && e.message().contains("damaged"), "{e}");
    }
}

#[test]
fn one_long_text_is_not_meant_too_often() {
    let long = "x".repeat(10_000);
    let texts = LargeStringArray::from(vec![long.as_str()]);
    let words = DictionaryArray::<Int32Type>::new(vec![0; 1000].into(), Arc::new(texts));
    let bytes = stream(&one(Arc::new(words)), None);
    assert!(bytes.len() < 20_000);
    assert_eq!(rows(&bytes, LIMIT).unwrap_err().kind(), Kind::Exhausted);
    assert!(rows(&bytes, 16 << 20).is_ok());
}
