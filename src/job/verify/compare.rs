//! The rows of the two sides, value for value.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, DynComparator, StringArray, make_comparator};
use datafusion::arrow::compute::{SortOptions, cast};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::{Error, Result};
use crate::plan::online_lookup::{NOT_FOUND, NULL_VALUE, OUTSIDE_MAX_AGE, PRESENT};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A live row offline, none online.
    Missing,
    /// A row online, none offline.
    Extra,
    Differs,
}

/// What is wrong with one key.
#[derive(Debug, Clone)]
pub struct Finding {
    pub fault: Fault,
    pub text: String,
}

/// Aligned rows, one per key.
pub struct Sides<'a> {
    /// Columns that name the row.
    pub keys: &'a [ArrayRef],
    /// Names of the columns compared.
    pub names: &'a [String],
    pub offline: &'a [ArrayRef],
    /// `None`: none of the rows could be read.
    pub online: Option<&'a [ArrayRef]>,
    /// Why a row could not be read online.
    pub unreadable: &'a [Option<String>],
}

/// How a view's rows were found, beside its features.
pub struct Found<'a> {
    /// Offline: the newest event timestamp at or before the instant, whatever the TTL.
    pub newest: &'a ArrayRef,
    /// Offline: the event timestamp of the live row.
    pub live: &'a ArrayRef,
    /// Online.
    pub status: &'a ArrayRef,
    pub event: &'a ArrayRef,
}

struct Compared {
    offline: ArrayRef,
    online: ArrayRef,
    order: DynComparator,
}

impl Compared {
    fn new(offline: &ArrayRef, online: &ArrayRef) -> Result<Self> {
        let online = match online.data_type() == offline.data_type() {
            true => online.clone(),
            false => cast(online, offline.data_type())?,
        };
        let order = make_comparator(offline, &online, SortOptions::default())?;
        Ok(Compared { offline: offline.clone(), online, order })
    }

    fn equal(&self, i: usize) -> bool {
        (self.order)(i, i).is_eq()
    }

    fn shown(&self, name: &str, i: usize) -> Result<String> {
        Ok(format!("{name} online {}, offline {}", shown(&self.online, i)?, shown(&self.offline, i)?))
    }
}

fn shown(values: &ArrayRef, i: usize) -> Result<String> {
    let options = FormatOptions::default().with_null("NULL");
    Ok(ArrayFormatter::try_new(values, &options)?.value(i).to_string())
}

/// `(1001, JFK)`
fn key(keys: &[ArrayRef], i: usize) -> Result<String> {
    Ok(format!("({})", keys.iter().map(|k| shown(k, i)).collect::<Result<Vec<_>>>()?.join(", ")))
}

impl Sides<'_> {
    fn columns(&self) -> Result<Vec<Compared>> {
        let Some(online) = self.online else { return Ok(vec![]) };
        if online.len() != self.offline.len() || self.names.len() != self.offline.len() {
            return Err(Error::internal("VERIFY: the two sides have different columns"));
        }
        self.offline.iter().zip(online).map(|(a, b)| Compared::new(a, b)).collect()
    }

    fn first_difference(&self, columns: &[Compared], i: usize) -> Result<Option<String>> {
        match columns.iter().zip(self.names).find(|(c, _)| !c.equal(i)) {
            Some((c, name)) => Ok(Some(format!("{} {}", key(self.keys, i)?, c.shown(name, i)?))),
            None => Ok(None),
        }
    }

    fn each(&self, mut one: impl FnMut(usize) -> Result<Option<Finding>>) -> Result<Vec<Option<Finding>>> {
        let row = |(i, unreadable): (usize, &Option<String>)| match unreadable {
            Some(why) => Ok(Some(Finding { fault: Fault::Differs, text: format!("{} {why}", key(self.keys, i)?) })),
            None => one(i),
        };
        self.unreadable.iter().enumerate().map(row).collect()
    }

    /// For the outputs of a service: values alone.
    pub fn outputs(&self) -> Result<Vec<Option<Finding>>> {
        let columns = self.columns()?;
        self.each(|i| Ok(self.first_difference(&columns, i)?.map(|text| Finding { fault: Fault::Differs, text })))
    }

    /// For a feature view: statuses, event timestamps and values.
    pub fn view(&self, found: Option<&Found<'_>>) -> Result<Vec<Option<Finding>>> {
        let columns = self.columns()?;
        let Some(found) = found else { return self.each(|_| Err(Error::internal("VERIFY: an answer has no status"))) };
        let status: &StringArray =
            found.status.as_string_opt().ok_or_else(|| Error::internal("VERIFY: the status of a lookup is no text"))?;
        let event = Compared::new(found.live, found.event)?;
        self.each(|i| {
            let expected = match (found.live.is_valid(i), found.newest.is_valid(i)) {
                (true, _) if self.offline.iter().all(|c| c.is_null(i)) => NULL_VALUE,
                (true, _) => PRESENT,
                (false, true) => OUTSIDE_MAX_AGE,
                (false, false) => NOT_FOUND,
            };
            let have = status.value(i);
            // a store may let go of rows that are too old
            let forgotten = expected == OUTSIDE_MAX_AGE && have == NOT_FOUND;
            if have == expected || forgotten {
                let differs = match event.equal(i) {
                    true => self.first_difference(&columns, i)?,
                    false => Some(format!("{} {}", key(self.keys, i)?, event.shown("event timestamp", i)?)),
                };
                return Ok(differs.map(|text| Finding { fault: Fault::Differs, text }));
            }
            let fault = match (have, expected) {
                (NOT_FOUND, _) => Fault::Missing,
                (_, NOT_FOUND) => Fault::Extra,
                _ => Fault::Differs,
            };
            // two live rows: their values say more
            let live = |s: &str| s == PRESENT || s == NULL_VALUE;
            let text = match live(have) && live(expected) {
                true => self.first_difference(&columns, i)?,
                false => None,
            };
            let status = || Ok::<_, Error>(format!("{} status online {have}, offline {expected}", key(self.keys, i)?));
            Ok(Some(Finding { fault, text: text.map_or_else(status, Ok)? }))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Float64Array, Int64Array, TimestampMicrosecondArray};

    use super::*;

    fn numbers(v: &[Option<i64>]) -> ArrayRef {
        Arc::new(Int64Array::from(v.to_vec()))
    }

    fn times(v: &[Option<i64>]) -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(v.to_vec()).with_timezone("UTC"))
    }

    /// One key: (offline newest, live, value) against (online status, event, value).
    fn one(offline: (Option<i64>, Option<i64>, Option<i64>), online: (&str, Option<i64>, Option<i64>)) -> Option<(Fault, String)> {
        let (newest, live) = (times(&[offline.0]), times(&[offline.1]));
        let (status, event): (ArrayRef, _) = (Arc::new(StringArray::from(vec![online.0])), times(&[online.1]));
        let sides = Sides {
            keys: &[numbers(&[Some(7)])],
            names: &["x".to_string()],
            offline: &[numbers(&[offline.2])],
            online: Some(&[numbers(&[online.2])]),
            unreadable: &[None],
        };
        let found = Found { newest: &newest, live: &live, status: &status, event: &event };
        sides.view(Some(&found)).unwrap().remove(0).map(|f| (f.fault, f.text))
    }

    #[test]
    fn every_status_is_told_from_every_other() {
        // offline and online of one and the same state
        let states = [
            ((Some(5), Some(5), Some(1)), (PRESENT, Some(5), Some(1))),
            ((Some(5), Some(5), None), (NULL_VALUE, Some(5), None)),
            ((Some(5), None, None), (OUTSIDE_MAX_AGE, None, None)),
            ((None, None, None), (NOT_FOUND, None, None)),
        ];
        for (i, (offline, _)) in states.into_iter().enumerate() {
            for (j, (_, online)) in states.into_iter().enumerate() {
                let same = i == j || (i, j) == (2, 3);
                assert_eq!(one(offline, online).is_none(), same, "{offline:?} {online:?}");
            }
        }
        assert_eq!(one(states[0].0, states[3].1), Some((Fault::Missing, "(7) status online NOT_FOUND, offline PRESENT".into())));
        assert_eq!(one(states[3].0, states[0].1), Some((Fault::Extra, "(7) status online PRESENT, offline NOT_FOUND".into())));
        assert_eq!(one(states[0].0, states[1].1), Some((Fault::Differs, "(7) x online NULL, offline 1".into())));
    }

    #[test]
    fn values_and_event_timestamps_are_compared() {
        let offline = (Some(5), Some(5), Some(1));
        assert_eq!(one(offline, (PRESENT, Some(5), Some(2))), Some((Fault::Differs, "(7) x online 2, offline 1".into())));
        let (fault, text) = one(offline, (PRESENT, Some(4), Some(1))).unwrap();
        assert!(fault == Fault::Differs && text.starts_with("(7) event timestamp online 1970"), "{text}");
    }

    #[test]
    fn floats_are_equal_by_their_bits() {
        let sides = |a: f64, b: f64| {
            let (a, b): (ArrayRef, ArrayRef) = (Arc::new(Float64Array::from(vec![a])), Arc::new(Float64Array::from(vec![b])));
            let (offline, online) = ([a], [b]);
            let sides = Sides { keys: &[], names: &["x".into()], offline: &offline, online: Some(&online), unreadable: &[None] };
            sides.outputs().unwrap()[0].is_none()
        };
        assert!(sides(f64::NAN, f64::NAN) && sides(1.5, 1.5));
        assert!(!sides(0.0, -0.0) && !sides(f64::NAN, 1.0));
    }

    #[test]
    fn a_row_that_cannot_be_read_is_a_finding() {
        let unreadable = [Some("online row is damaged".to_string())];
        let sides = Sides { keys: &[numbers(&[Some(7)])], names: &[], offline: &[], online: None, unreadable: &unreadable };
        assert_eq!(sides.view(None).unwrap()[0].as_ref().unwrap().text, "(7) online row is damaged");
    }
}
