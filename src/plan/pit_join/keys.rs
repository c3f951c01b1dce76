//! Which left column is the key, which is the instant: the rules of form C (sql/README.md, "Form C: features"), and of
//! ONLINE JOIN.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};

use super::node::PitJoinNode;
use super::syntax::Roles;
use crate::clock::{DAY, Micros};
use crate::error::{Error, Result, in_sql};
use crate::model::{Column as ModelColumn, FeatureView};
use crate::plan::feature_table::{SEQ, as_feature_table};
use crate::plan::online_join::parts::Parts;
use crate::plan::target::{Target, TargetItem};
use crate::plan::windows::WindowJoinNode;

/// The columns of a left side that do not come from another feature item.
pub fn label_columns(plan: &LogicalPlan) -> Vec<(Option<TableReference>, String, DataType)> {
    let own =
        |plan: &LogicalPlan| plan.schema().iter().map(|(q, f)| (q.cloned(), f.name().clone(), f.data_type().clone())).collect::<Vec<_>>();
    // the projection that a service or online join leaves: columns pass, expressions are features
    let passing = |exprs: &[Expr], inner: Vec<(Option<TableReference>, String, DataType)>| {
        let passes = |e: &Expr| matches!(e, Expr::Column(c) if inner.iter().any(|i| i.0 == c.relation && i.1 == c.name));
        own(plan).into_iter().zip(exprs).filter(|(_, e)| passes(e)).map(|(c, _)| c).collect()
    };
    if let Some(joined) = Parts::of(plan) {
        return passing(joined.outputs, label_columns(joined.left));
    }
    match plan {
        LogicalPlan::Extension(e) => match (e.node.as_any().downcast_ref::<PitJoinNode>(), window_join(plan)) {
            (Some(pit), _) => label_columns(&pit.labels),
            (_, Some(join)) => label_columns(&join.labels),
            _ => own(plan),
        },
        LogicalPlan::Join(j) => {
            let sides = [label_columns(&j.left), label_columns(&j.right)].concat();
            own(plan).into_iter().filter(|c| sides.iter().any(|s| s.0 == c.0 && s.1 == c.1)).collect()
        }
        LogicalPlan::Filter(f) => label_columns(&f.input),
        LogicalPlan::Projection(p) if is_pit(&p.input) => passing(&p.expr, label_columns(&p.input)),
        _ => own(plan),
    }
}

fn is_pit(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Extension(e) if e.node.as_any().is::<PitJoinNode>() || e.node.as_any().is::<WindowJoinNode>())
}

fn window_join(plan: &LogicalPlan) -> Option<&WindowJoinNode> {
    match plan {
        LogicalPlan::Extension(e) => e.node.as_any().downcast_ref(),
        _ => None,
    }
}

/// Columns of feature items in a FROM that `*` does not show: keys, timestamps and `_seq`.
pub fn hidden_columns(plan: &LogicalPlan, out: &mut Vec<(Option<TableReference>, String)>) {
    if let Some(joined) = Parts::of(plan) {
        hidden_columns(joined.left, out);
        let hides = |q: &TableReference, name: &str| {
            joined.node.items.iter().any(|i| *q == i.qualifier() && !i.view.features.iter().any(|f| f.name == name))
        };
        let all = plan.schema().iter().filter(|(q, f)| q.is_some_and(|q| hides(q, f.name())));
        out.extend(all.map(|(q, f)| (q.cloned(), f.name().clone())));
        return;
    }
    match plan {
        LogicalPlan::Extension(e) => {
            if let Some(pit) = e.node.as_any().downcast_ref::<PitJoinNode>() {
                hidden_columns(&pit.labels, out);
                for (view, item) in pit.views.iter().zip(&pit.items) {
                    let features: Option<Vec<String>> = feature_names(view);
                    for (q, f) in view.schema().iter() {
                        let hide = match &features {
                            Some(features) if item.features_only => !features.contains(f.name()),
                            Some(_) => f.name() == SEQ,
                            None => false,
                        };
                        if hide {
                            out.push((q.cloned(), f.name().clone()));
                        }
                    }
                }
            }
        }
        LogicalPlan::Join(j) => {
            hidden_columns(&j.left, out);
            hidden_columns(&j.right, out);
        }
        LogicalPlan::Filter(f) => hidden_columns(&f.input, out),
        LogicalPlan::Projection(p) if is_pit(&p.input) => {
            if let Some(join) = window_join(&p.input) {
                hidden_columns(&join.labels, out);
                let feature = |name: &str| join.view.features.iter().any(|f| f.name == name);
                let hides = |q: &TableReference, name: &str| *q == join.item.qualifier && !feature(name);
                let all = plan.schema().iter().filter(|(q, f)| q.is_some_and(|q| hides(q, f.name())));
                out.extend(all.map(|(q, f)| (q.cloned(), f.name().clone())));
                return;
            }
            hidden_columns(&p.input, out)
        }
        _ => {}
    }
}

/// The features of the view that a plan scans.
fn feature_names(plan: &LogicalPlan) -> Option<Vec<String>> {
    match plan {
        LogicalPlan::TableScan(s) => {
            let t = as_feature_table(&s.source)?;
            Some(t.view.features.iter().map(|f| f.name.clone()).collect())
        }
        LogicalPlan::SubqueryAlias(a) => feature_names(&a.input),
        // candidates that a predicate of ON has chosen
        LogicalPlan::Filter(f) => feature_names(&f.input),
        _ => None,
    }
}

/// The one left column of this name; an error that names the object and lists the columns otherwise.
pub fn by_name(left: &LogicalPlan, name: &str, what: &str) -> Result<Expr> {
    let columns = label_columns(left);
    let found: Vec<_> = columns.iter().filter(|(_, n, _)| n == name).collect();
    match found[..] {
        [(q, n, _)] => Ok(Expr::Column(Column::new(q.clone(), n))),
        [] => {
            let names: Vec<&str> = columns.iter().map(|(_, n, _)| n.as_str()).collect();
            let e = Error::not_found(format!("{what} {name:?} is not a column of the left side"));
            let listed = format!("its columns are {}; map another one with FOR ({name} = column)", names.join(", "));
            Err(match crate::error::nearest(name, names.iter().copied()) {
                Some(best) => e.with_hint(format!("did you mean FOR ({name} = {best})? {listed}")),
                None => e.with_hint(listed),
            })
        }
        _ => {
            let places: Vec<String> = found.iter().map(|(q, n, _)| Column::new(q.clone(), n).flat_name()).collect();
            Err(Error::invalid(format!("{what} {name:?} is ambiguous on the left side: {}", places.join(", ")))
                .with_hint(format!("say which one: FOR ({name} = {})", places[0])))
        }
    }
}

/// Which left expression stands for each key of a feature view, in the order of its keys: FOR, else ON
/// (`equal`), else the left column of the key's name.
pub fn view_keys(left: &LogicalPlan, view: &FeatureView, roles: &Roles, equal: Vec<(Expr, Expr)>) -> Result<Vec<Expr>> {
    let key_names = view.key_names();
    for (name, _, place) in roles {
        if !key_names.contains(&name.as_str()) {
            return Err(Error::not_found(format!("{name:?} is not a key of feature view {}", view.name))
                .suggest(name, key_names.iter().copied())
                .or_hint(&format!("its keys are {}", key_names.join(", ")))
                .or_span(*place));
        }
    }
    let mut by_on: Vec<(String, Expr)> = vec![];
    for (l, r) in equal {
        match &r {
            Expr::Column(col) if key_names.contains(&col.name.as_str()) => by_on.push((col.name.clone(), l)),
            _ => {
                return Err(Error::invalid(format!("ON {l} = {r}: {r} is not a key of feature view {}", view.name))
                    .with_hint(format!("its keys are {}; put other conditions into WHERE", key_names.join(", "))));
            }
        }
    }
    let one = |key: &&str| {
        let mapped = roles.iter().find(|(n, ..)| n == key).map(|(_, e, _)| e.clone());
        let on = by_on.iter().find(|(n, _)| n == key).map(|(_, e)| e.clone());
        match (mapped, on) {
            (Some(_), Some(_)) => Err(Error::invalid(format!("key {key:?} is mapped by FOR and by ON"))),
            (Some(e), None) | (None, Some(e)) => Ok(e),
            (None, None) => by_name(left, key, &format!("key of feature view {}", view.name.name)),
        }
    };
    key_names.iter().map(one).collect()
}

/// Which left expression stands for each column that a service wants of its caller.
pub struct Callers<'a> {
    left: &'a LogicalPlan,
    roles: &'a Roles,
    target: &'a Target,
    wanted: Vec<ModelColumn>,
}

impl<'a> Callers<'a> {
    /// Refuses a FOR that names something else.
    pub fn new(left: &'a LogicalPlan, roles: &'a Roles, target: &'a Target) -> Result<Self> {
        let wanted = target.wanted()?;
        for (name, _, place) in roles {
            if !wanted.iter().any(|w| w.name == *name) {
                let all: Vec<&str> = wanted.iter().map(|w| w.name.as_str()).collect();
                return Err(Error::not_found(format!("{name:?} is not a column that feature service {} wants", target.name))
                    .suggest(name, all.iter().copied())
                    .or_hint(&format!("it wants {}", all.join(", ")))
                    .or_span(*place));
            }
        }
        Ok(Callers { left, roles, target, wanted })
    }

    fn named(&self, name: &str, what: &str) -> Result<Expr> {
        match self.roles.iter().find(|(n, ..)| n == name) {
            Some((_, e, _)) => Ok(e.clone()),
            None => by_name(self.left, name, &format!("{what} of feature service {}", self.target.name.name)),
        }
    }

    /// What stands for a key of one of the service's items.
    pub fn key(&self, item: &TargetItem, key: &str) -> Result<Expr> {
        self.named(item.callers_name(key), "key")
    }

    /// What stands for a column of a service's expression: the caller's where it is a key or a request
    /// column, else `of_item`'s.
    pub fn column(&self, c: &Column, of_item: &dyn Fn(&TargetItem) -> Result<Expr>) -> Result<Expr> {
        let Some(r) = &c.relation else {
            let e = self.named(&c.name, "request column")?;
            return Ok(match self.wanted.iter().find(|w| w.name == c.name) {
                Some(w) => Expr::Cast(datafusion::logical_expr::Cast::new(Box::new(e), w.data_type.arrow().clone())),
                None => e,
            });
        };
        match self.target.items.iter().find(|i| i.alias == r.table()) {
            Some(item) if item.view.keys.iter().any(|k| k.name == c.name) => self.key(item, &c.name),
            Some(item) => of_item(item),
            None => Err(Error::internal(format!("no item {r}"))),
        }
    }
}

/// The instant per left row where AT is not written: the column named like the view's event timestamp or
/// `event_timestamp`, else the only timestamp column.
pub fn default_instant(left: &LogicalPlan, event_timestamp: &str, target: &str) -> Result<Expr> {
    let columns = label_columns(left);
    let is_time = |t: &DataType| matches!(t, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
    for wanted in [event_timestamp, "event_timestamp"] {
        let found: Vec<_> = columns.iter().filter(|(_, n, t)| n == wanted && is_time(t)).collect();
        match found[..] {
            [(q, n, _)] => return Ok(Expr::Column(Column::new(q.clone(), n))),
            [] => {}
            _ => return Err(ambiguous(target, found.iter().map(|(q, n, _)| Column::new(q.clone(), n).flat_name()).collect())),
        }
    }
    let times: Vec<_> = columns.iter().filter(|(_, _, t)| matches!(t, DataType::Timestamp(..))).collect();
    match times[..] {
        [(q, n, _)] => Ok(Expr::Column(Column::new(q.clone(), n))),
        [] => {
            let names: Vec<String> = columns.iter().map(|(_, n, t)| format!("{n} ({})", in_sql(&t.to_string()))).collect();
            Err(Error::invalid(format!("ASOF JOIN {target} needs an instant per left row, and no left column is a timestamp"))
                .with_hint(format!("write AT with an expression of type TIMESTAMP; the left columns are {}", names.join(", "))))
        }
        _ => Err(ambiguous(target, times.iter().map(|(q, n, _)| Column::new(q.clone(), n).flat_name()).collect())),
    }
}

fn ambiguous(target: &str, candidates: Vec<String>) -> Error {
    Error::invalid(format!("ASOF JOIN {target}: the instant is ambiguous, it could be {}", candidates.join(" or ")))
        .with_hint(format!("say which one: ASOF JOIN {target} AT {}", candidates[0]))
}

/// Checks that an instant is one: a timestamp or date; texts that are constants are read, others refused.
pub fn check_instant(expr: Expr, schema: &DFSchema, clause: &str) -> Result<Expr> {
    use datafusion::scalar::ScalarValue as S;
    if let Expr::Literal(S::Utf8(Some(text)) | S::Utf8View(Some(text)) | S::LargeUtf8(Some(text)), _) = &expr {
        let at = crate::sql::instant::parse_instant(text)?;
        return Ok(Expr::Literal(S::TimestampMicrosecond(Some(at.micros), Some("UTC".into())), None));
    }
    match expr.get_type(schema)? {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Ok(expr),
        DataType::Null => Ok(Expr::Cast(datafusion::logical_expr::Cast::new(
            Box::new(expr),
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ))),
        t => Err(Error::invalid(format!("{clause} wants a timestamp or date, but {expr} is {}", in_sql(&t.to_string())))
            .with_hint(format!("write {clause} CAST({expr} AS TIMESTAMP), or to_timestamp(…) with its format"))),
    }
}

/// `WITHIN`: a constant interval of fixed length, in microseconds.
pub fn interval_micros(expr: &Expr) -> Result<Micros> {
    use datafusion::scalar::ScalarValue as S;
    let bad = |why: String| Error::invalid(why).with_hint("write for example WITHIN INTERVAL '7 days'");
    let Expr::Literal(value, _) = expr else {
        return Err(bad(format!("WITHIN wants a constant interval, not {expr}")));
    };
    let micros = match value {
        S::IntervalMonthDayNano(Some(v)) if v.months == 0 => v.days as i128 * DAY as i128 + (v.nanoseconds / 1000) as i128,
        S::IntervalDayTime(Some(v)) => v.days as i128 * DAY as i128 + v.milliseconds as i128 * 1000,
        S::IntervalMonthDayNano(Some(_)) | S::IntervalYearMonth(Some(_)) => {
            return Err(
                bad("WITHIN: months and years have no fixed length".into()).with_hint("write days, for example WITHIN INTERVAL '30 days'")
            );
        }
        S::DurationMicrosecond(Some(v)) => *v as i128,
        S::DurationMillisecond(Some(v)) => *v as i128 * 1000,
        S::DurationSecond(Some(v)) => *v as i128 * 1_000_000,
        S::DurationNanosecond(Some(v)) => (*v / 1000) as i128,
        S::Utf8(Some(text)) | S::Utf8View(Some(text)) => return crate::sql::cursor::parse_interval(text),
        other => return Err(bad(format!("WITHIN wants an interval, not {other}"))),
    };
    if micros < 0 {
        return Err(bad("WITHIN: the interval is negative".into()));
    }
    Ok(Micros::try_from(micros).unwrap_or(Micros::MAX))
}
