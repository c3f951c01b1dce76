use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array};
use datafusion::arrow::datatypes::Int64Type;

use super::*;

/// The bytes are a promise to clients: any change of them is a new type.
#[test]
fn golden_bytes() {
    let value = OnlineLookup { name: "s".into(), rows: bytes::Bytes::from_static(b"ipc"), status: true, at: Some(-1), schema: "x".into() };
    let any = Any { type_url: ONLINE_LOOKUP.into(), value: value.encode_to_vec().into() };
    let bytes = any.encode_to_vec();
    let mut want = vec![0x0a, 44];
    want.extend(b"type.googleapis.com/remige.v1.OnlineLookup");
    want[1] = (want.len() - 2) as u8;
    want.extend([0x12, 24, 0x0a, 1, b's', 0x12, 3]);
    want.extend(b"ipc");
    want.extend([0x18, 1, 0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0x2a, 1, b'x']);
    let length = want.len() - 42 - 2 - 2;
    want[45] = length as u8;
    assert_eq!(bytes, want);
}

#[test]
fn a_ticket_carries_the_rows() {
    let batch = RecordBatch::try_from_iter([("k", Arc::new(Int64Array::from(vec![7, 8])) as ArrayRef)]).unwrap();
    let request = LookupRequest { name: "s".into(), schema: None, status: false, at: None };
    let ticket = lookup_ticket(&request, &batch).unwrap();
    let any = Any::decode(ticket.ticket).unwrap();
    assert_eq!(any.type_url, ONLINE_LOOKUP);
    let value = OnlineLookup::decode(any.value).unwrap();
    assert_eq!((value.name.as_str(), value.status, value.at, value.schema.as_str()), ("s", false, None, ""));
    let read = rows(&value.rows, 10_000).unwrap();
    assert_eq!(read.column(0).as_primitive::<Int64Type>().values(), &[7, 8]);
    assert!(rows(b"", 10_000).unwrap_err().message().contains("no rows"));
}
