//! The point-in-time rule as nested loops over plain values: what the operator is tested against.
//! It shares no code with the operator.

use crate::plan::pit_join::MatchOp;

#[derive(Debug, Clone)]
pub struct Label {
    pub keys: Vec<Option<u8>>,
    pub at: Option<i128>,
    pub known_by: Option<i128>,
}

#[derive(Debug, Clone)]
pub struct Row {
    pub keys: Vec<Option<u8>>,
    pub time: Option<i128>,
    pub created: Option<i128>,
    /// What decides between rows with equal time and created, most significant first.
    pub tie: Vec<Option<i128>>,
}

#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub op: MatchOp,
    pub ttl: Option<i128>,
    pub known_by: bool,
}

/// For every label the row that wins.
pub fn winners(labels: &[Label], rows: &[Row], rule: Rule) -> Vec<Option<usize>> {
    labels.iter().map(|l| (0..rows.len()).filter(|r| counts(l, &rows[*r], rule)).max_by_key(|r| rank(&rows[*r], rule))).collect()
}

fn counts(label: &Label, row: &Row, rule: Rule) -> bool {
    let (Some(at), Some(time)) = (label.at, row.time) else { return false };
    let same_key = label.keys.iter().zip(&row.keys).all(|(a, b)| a.is_some() && a == b);
    let side = match rule.op {
        MatchOp::AtOrBefore => at >= time,
        MatchOp::Before => at > time,
        MatchOp::AtOrAfter => at <= time,
        MatchOp::After => at < time,
    };
    let near = rule.ttl.is_none_or(|ttl| (at - time).abs() <= ttl);
    let known = !rule.known_by || matches!((row.created, label.known_by), (Some(c), Some(k)) if c <= k);
    same_key && side && near && known
}

fn rank(row: &Row, rule: Rule) -> (Option<i128>, Option<i128>, Vec<Option<i128>>) {
    let ahead = matches!(rule.op, MatchOp::AtOrAfter | MatchOp::After);
    (row.time.map(|t| if ahead { -t } else { t }), row.created, row.tie.clone())
}
