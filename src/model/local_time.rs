//! Local times of a zone. Where the clocks are switched a local time means two instants or none; the later reading is
//! taken everywhere, so that nothing is known too early.

use chrono::{LocalResult, NaiveDateTime, TimeDelta, TimeZone};

use crate::clock::{HOUR, Micros, format_micros};
use crate::error::{Error, Result};

/// Hours back that are out of every gap; Samoa once skipped a whole day.
const OUT_OF_THE_GAP: [i64; 2] = [3, 27];

/// The local times that a switch of the clocks made doubtful.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doubtful {
    pub count: u64,
    /// A local time, and the instant that it was taken for.
    pub example: Option<(Micros, Micros)>,
}

impl Doubtful {
    pub fn add(&mut self, more: &Doubtful) {
        self.count += more.count;
        self.example = self.example.or(more.example);
    }

    /// What the user is told; `None` where there is nothing to tell.
    pub fn notice(&self, what: &str, zone: &str) -> Option<String> {
        let (local, instant) = self.example?;
        let local = format_micros(local);
        let local = local.trim_end_matches('Z').replace('T', " ");
        let (fall, are) = if self.count == 1 { ("local time falls", "is") } else { ("local times fall", "are") };
        Some(format!(
            "{what}: {} {fall} on a switch of the clocks in {zone} and {are} taken at the later reading, for example {local} as {}",
            self.count,
            format_micros(instant)
        ))
    }
}

/// The instant of a local time.
pub fn to_instant<Z: TimeZone>(local: Micros, zone: &Z, doubtful: &mut Doubtful) -> Result<Micros> {
    let out = || Error::invalid(format!("local time {} is out of range", format_micros(local)));
    let t: NaiveDateTime = chrono::DateTime::from_timestamp_micros(local).ok_or_else(out)?.naive_utc();
    let instant = match zone.from_local_datetime(&t) {
        LocalResult::Single(t) => return Ok(t.timestamp_micros()),
        LocalResult::Ambiguous(one, other) => one.timestamp_micros().max(other.timestamp_micros()),
        LocalResult::None => {
            let back = |hours: &i64| {
                let before = t.checked_sub_signed(TimeDelta::hours(*hours))?;
                Some(zone.from_local_datetime(&before).latest()?.timestamp_micros() + hours * HOUR)
            };
            OUT_OF_THE_GAP.iter().find_map(back).ok_or_else(out)?
        }
    };
    doubtful.add(&Doubtful { count: 1, example: Some((local, instant)) });
    Ok(instant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono_tz::Tz;

    #[test]
    fn local_times_of_both_switches() {
        let mut doubtful = Doubtful::default();
        let mut show = |zone: &str, year: i32, month, day, hour, minute| {
            let zone: Tz = zone.parse().unwrap();
            let local = chrono::NaiveDate::from_ymd_opt(year, month, day).unwrap().and_hms_opt(hour, minute, 0).unwrap();
            format_micros(to_instant(local.and_utc().timestamp_micros(), &zone, &mut doubtful).unwrap())
        };
        let york = "America/New_York";
        assert_eq!(show(york, 2013, 1, 1, 5, 0), "2013-01-01T10:00:00Z");
        assert_eq!(show(york, 2013, 3, 10, 2, 30), "2013-03-10T07:30:00Z");
        assert_eq!(show(york, 2013, 11, 3, 1, 30), "2013-11-03T06:30:00Z");
        assert_eq!(show("Pacific/Apia", 2011, 12, 30, 12, 0), "2011-12-30T22:00:00Z");
        assert_eq!(doubtful.count, 3);
        let told = doubtful.notice("t", york).unwrap();
        assert!(told.contains("3 local times") && told.contains("2013-03-10 02:30:00 as 2013-03-10T07:30:00Z"), "{told}");
    }
}
