//! The bytes of our nodes, as protobuf. Both ends are of one version (`VERSION`): a message is no stored form.

use datafusion_proto::protobuf::{PhysicalExprNode, PhysicalPlanNode, Schema};

/// Told apart at the receiver. Change it with every change of a message.
pub const VERSION: u32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeMessage {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(oneof = "Node", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub node: Option<Node>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Node {
    #[prost(message, tag = "2")]
    PitJoin(PitJoinMessage),
    #[prost(message, tag = "3")]
    InLabelOrder(Empty),
    #[prost(message, tag = "4")]
    OnlineLookup(OnlineLookupMessage),
    #[prost(message, tag = "5")]
    OrderedScan(OrderedScanMessage),
    #[prost(message, tag = "6")]
    BoundRows(BoundRowsMessage),
    #[prost(message, tag = "7")]
    Portions(PortionsMessage),
    #[prost(message, tag = "8")]
    Guarded(Empty),
    #[prost(message, tag = "9")]
    SplitRepartition(SplitRepartitionMessage),
    #[prost(message, tag = "10")]
    WindowJoin(WindowJoinMessage),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}

/// Its inputs are the labels and the views.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PitJoinMessage {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<ItemMessage>,
    #[prost(uint64, optional, tag = "2")]
    pub label_fetch: Option<u64>,
    #[prost(message, optional, tag = "3")]
    pub projection: Option<Columns>,
    #[prost(string, tag = "4")]
    pub strategy: String,
    #[prost(uint64, optional, tag = "5")]
    pub chunk_rows: Option<u64>,
    #[prost(uint64, tag = "6")]
    pub parts: u64,
}

/// Its inputs are the labels and the events.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WindowJoinMessage {
    #[prost(message, optional, boxed, tag = "1")]
    pub item: Option<Box<ItemMessage>>,
    #[prost(string, repeated, tag = "2")]
    pub argument_names: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub arguments: Vec<PhysicalExprNode>,
    /// JSON of an `Aggregate` each.
    #[prost(string, repeated, tag = "4")]
    pub aggregates: Vec<String>,
    /// The columns behind those of the labels.
    #[prost(message, optional, tag = "5")]
    pub added: Option<Schema>,
    /// JSON of the longest `Window`, or of null.
    #[prost(string, tag = "6")]
    pub longest: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Columns {
    #[prost(uint64, repeated, tag = "1")]
    pub indices: Vec<u64>,
}

/// Label expressions are over the labels' columns, the others over the view's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ItemMessage {
    #[prost(message, repeated, tag = "1")]
    pub label_keys: Vec<PhysicalExprNode>,
    #[prost(message, repeated, tag = "2")]
    pub feature_keys: Vec<PhysicalExprNode>,
    #[prost(message, optional, tag = "3")]
    pub at: Option<PhysicalExprNode>,
    #[prost(message, optional, tag = "4")]
    pub time: Option<PhysicalExprNode>,
    #[prost(message, optional, tag = "5")]
    pub created: Option<PhysicalExprNode>,
    #[prost(message, optional, tag = "6")]
    pub seq: Option<PhysicalExprNode>,
    #[prost(message, optional, tag = "7")]
    pub known_by: Option<PhysicalExprNode>,
    /// JSON of a `MatchOp`.
    #[prost(string, tag = "8")]
    pub op: String,
    /// JSON of `TimeLines`.
    #[prost(string, tag = "9")]
    pub lines: String,
    #[prost(bool, tag = "10")]
    pub inner: bool,
    #[prost(string, tag = "11")]
    pub description: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct OnlineLookupMessage {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<LookupItemMessage>,
    /// Microseconds, UTC.
    #[prost(int64, tag = "2")]
    pub at: i64,
    #[prost(message, optional, tag = "3")]
    pub schema: Option<Schema>,
    #[prost(string, optional, tag = "4")]
    pub store: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LookupItemMessage {
    #[prost(string, tag = "1")]
    pub alias: String,
    /// JSON of a `FeatureView`, as in the registry.
    #[prost(string, tag = "2")]
    pub view: String,
    #[prost(uint64, repeated, tag = "3")]
    pub key_inputs: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    pub features: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct OrderedScanMessage {
    #[prost(message, optional, boxed, tag = "1")]
    pub scan: Option<Box<PhysicalPlanNode>>,
    /// Per file, in order: whether its bounds are sure.
    #[prost(bool, repeated, tag = "2")]
    pub sure: Vec<bool>,
}

/// The rows themselves: what is bound to a statement's parameters stands in the task of the machine that runs it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BoundRowsMessage {
    #[prost(message, optional, boxed, tag = "1")]
    pub rows: Option<Box<PhysicalPlanNode>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PortionsMessage {
    #[prost(uint64, repeated, tag = "1")]
    pub lists: Vec<u64>,
    #[prost(uint64, tag = "2")]
    pub limit: u64,
    #[prost(uint64, tag = "3")]
    pub rows: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SplitRepartitionMessage {
    #[prost(message, repeated, tag = "1")]
    pub keys: Vec<PhysicalExprNode>,
    #[prost(uint64, tag = "2")]
    pub partitions: u64,
}
