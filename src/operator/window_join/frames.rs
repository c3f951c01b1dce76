//! Which events of a key lie in a window, label by label.

use crate::clock::Micros;
use crate::model::window::Window;

/// For each label, in the order of their instants, the half-open range of events in its window. Events are in the order
/// of time. Both ends of the ranges only grow, so one pass over events and labels finds all of them.
pub fn frames(window: &Window, times: &[Micros], instants: &[Micros], out: &mut Vec<(u32, u32)>) {
    out.clear();
    let (mut from, mut to) = (0, 0);
    for t in instants {
        let (oldest, newest) = window.bounds(*t);
        while times.get(from).is_some_and(|e| *e < oldest) {
            from += 1;
        }
        while times.get(to).is_some_and(|e| *e <= newest) {
            to += 1;
        }
        out.push((from as u32, to.max(from) as u32));
    }
}
