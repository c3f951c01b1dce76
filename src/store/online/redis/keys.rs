//! Names of the keys in Redis.
//!
//! ```text
//! remige:<warehouse>:<view, 8 hex digits>:<generation, 8 hex digits>:<entity key>   a row
//!                                        :cur                pointer, JSON
//!                                        :wm:<generation>    watermark, decimal
//!                                        :gens               set of generations that take writes
//!                                        :dying              set of generations being removed
//!                                        :next               last generation number given out
//!                                        :mk:<generation>{n} in a cluster: the watermark as one server knows it
//! remige:<warehouse>:views                                    set of views that hold keys, decimal
//! ```
//! In a cluster all of a view but its rows and marks end in `{<warehouse>:<view>}`: scripts need them on one server. Rows
//! are spread over all servers.

use super::super::OnlineView;
use super::map::slot;

#[derive(Debug)]
pub(super) struct Keys {
    view: String,
    /// What puts the keys beside the rows into one slot.
    tag: String,
}

impl Keys {
    pub fn new(view: &OnlineView, cluster: bool) -> Self {
        let warehouse = escaped(&view.warehouse_id);
        let id = view.online_id;
        let tag = if cluster { format!("{{{warehouse}:{id:08x}}}") } else { String::new() };
        Keys { view: format!("remige:{warehouse}:{id:08x}:"), tag }
    }

    /// Prefix of everything that belongs to the view.
    pub fn view(&self) -> &str {
        &self.view
    }
    pub fn generation(&self, generation: u32) -> String {
        format!("{}{generation:08x}:", self.view)
    }
    pub fn pointer(&self) -> String {
        format!("{}cur{}", self.view, self.tag)
    }
    pub fn watermark(&self, generation: u32) -> String {
        format!("{}wm:{generation:08x}{}", self.view, self.tag)
    }
    /// See `marks.rs`.
    pub fn mark(&self, generation: u32, n: u32) -> String {
        format!("{}mk:{generation:08x}{{{n}}}", self.view)
    }
    pub fn generations(&self) -> String {
        format!("{}gens{}", self.view, self.tag)
    }
    pub fn dying(&self) -> String {
        format!("{}dying{}", self.view, self.tag)
    }
    pub fn next(&self) -> String {
        format!("{}next{}", self.view, self.tag)
    }

    /// The slot of all but the rows, in a cluster.
    pub fn slot(&self) -> u16 {
        slot(self.tag.as_bytes())
    }

    /// Whether `key`, which begins with the view's prefix, is a row.
    pub fn is_row(&self, key: &[u8]) -> bool {
        key.get(self.view.len()..).is_some_and(|rest| rest.len() > 9 && rest[8] == b':' && rest[..8].iter().all(u8::is_ascii_hexdigit))
    }
}

/// A warehouse id as it stands in names.
fn escaped(id: &str) -> String {
    // A colon in the name would let one warehouse's prefix cover another's, a brace would put all rows into one slot.
    let mut out = String::with_capacity(id.len());
    for c in id.chars() {
        match c {
            '%' | ':' | '{' | '}' => out.push_str(&format!("%{:02X}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out
}

/// The set of views of a warehouse that hold keys.
pub(super) fn views_key(warehouse_id: &str) -> String {
    format!("remige:{}:views", escaped(warehouse_id))
}

/// Names of the rows of one generation, one after the other in one buffer.
pub(super) struct RowKeys {
    buffer: Vec<u8>,
    prefix: usize,
}

impl RowKeys {
    pub fn new(prefix: &str) -> Self {
        RowKeys { buffer: prefix.as_bytes().to_vec(), prefix: prefix.len() }
    }

    pub fn of(&mut self, key: &[u8]) -> &[u8] {
        self.buffer.truncate(self.prefix);
        self.buffer.extend_from_slice(key);
        &self.buffer
    }
}

/// `prefix*` as a pattern of SCAN.
pub(super) fn pattern(prefix: &str) -> String {
    let mut out = String::with_capacity(prefix.len() + 1);
    for c in prefix.chars() {
        if "*?[]\\^-".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('*');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_names() {
        let k = Keys::new(&OnlineView { warehouse_id: "a:b%".into(), online_id: 42 }, false);
        let row = RowKeys::new(&k.generation(7)).of(b"\x01k").to_vec();
        assert_eq!(row, b"remige:a%3Ab%25:0000002a:00000007:\x01k");
        assert_eq!(k.pointer(), "remige:a%3Ab%25:0000002a:cur");
        assert_eq!(k.watermark(7), "remige:a%3Ab%25:0000002a:wm:00000007");
        assert_eq!(k.generations(), "remige:a%3Ab%25:0000002a:gens");
        assert_eq!(views_key("a:b%"), "remige:a%3Ab%25:views");
        assert!(k.is_row(&row));
        for other in [k.pointer(), k.watermark(7), k.generations(), k.dying(), k.next()] {
            assert!(!k.is_row(other.as_bytes()), "{other}");
        }
        assert_eq!(pattern("a*[b]?"), "a\\*\\[b\\]\\?*");
    }

    #[test]
    fn golden_names_in_a_cluster() {
        let k = Keys::new(&OnlineView { warehouse_id: "{w}".into(), online_id: 42 }, true);
        assert_eq!(k.pointer(), "remige:%7Bw%7D:0000002a:cur{%7Bw%7D:0000002a}");
        let others = [k.pointer(), k.watermark(7), k.generations(), k.dying(), k.next()];
        for other in &others {
            assert!(other.starts_with(k.view()) && !k.is_row(other.as_bytes()) && slot(other.as_bytes()) == k.slot(), "{other}");
        }
        let mut rows = RowKeys::new(&k.generation(7));
        assert_eq!(rows.of(b"\x01k"), b"remige:%7Bw%7D:0000002a:00000007:\x01k");
        assert_eq!(k.mark(7, 3), "remige:%7Bw%7D:0000002a:mk:00000007{3}");
        let marks: std::collections::BTreeSet<u16> =
            (0..super::super::server_watermarks::MARKS).map(|n| slot(k.mark(7, n).as_bytes()) / 1024).collect();
        assert!(marks.len() == 16 && !k.is_row(k.mark(7, 3).as_bytes()), "each of up to 16 servers has some");
        let slots: std::collections::BTreeSet<u16> = (0..100u8).map(|i| slot(rows.of(&[i]))).collect();
        assert!(slots.len() > 90, "rows are spread");
    }
}
