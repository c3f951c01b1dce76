//! How finely the events of a record are kept: each in a cell as wide as the windows that may cut it allow.

use super::spec::Window;
use crate::clock::Micros;

fn floor(t: Micros, step: Micros) -> Micros {
    if step <= 1 { t } else { t.div_euclid(step).saturating_mul(step) }
}

/// Where the cell begins in which an event is kept; `None`: no window needs it at or after `newest`. `windows`: of one
/// family, whose steps divide one another. `newest`: the newest event that is due by `now`; later events are kept one by one.
///
/// A window whose older end moves in steps cuts between events only at multiples of its step, so its events may share cells
/// of that width. Events that its newer end has not reached yet are kept as finely as that end moves. Of several windows the
/// finest counts: its cells lie inside of those of the others. A cell is in a window exactly where its beginning is.
pub fn cell(windows: &[Window], newest: Option<Micros>, now: Micros, event: Micros) -> Option<Micros> {
    let Some(newest) = newest.filter(|_| event <= now) else { return Some(event) };
    let needed = windows.iter().filter_map(|w| {
        let (oldest, reached) = w.bounds(newest);
        (event >= oldest).then(|| match event > reached {
            true => w.grain,
            // without an older end nothing cuts what is in
            false if w.length.is_none() => Micros::MAX,
            false => w.step,
        })
    });
    needed.min().map(|width| match width {
        Micros::MAX => Micros::MIN,
        width => floor(event, width),
    })
}
