//! Names of keys and scripts of the Redis store.
//!
//! ```text
//! remige:<warehouse>:<view, 8 hex digits>:<generation, 8 hex digits>:<entity key>   a row
//!                                        :cur                pointer, JSON
//!                                        :wm:<generation>    watermark, decimal
//!                                        :gens               set of generations that take writes
//!                                        :dying              set of generations being removed
//!                                        :next               last generation number given out
//! ```

use super::OnlineView;

pub(super) struct Keys {
    view: String,
}

impl Keys {
    pub fn new(view: &OnlineView) -> Self {
        // A colon in the name would let one warehouse's prefix cover another's.
        let warehouse = view.warehouse_id.replace('%', "%25").replace(':', "%3A");
        Keys { view: format!("remige:{warehouse}:{:08x}:", view.online_id) }
    }

    /// Prefix of everything that belongs to the view.
    pub fn view(&self) -> &str {
        &self.view
    }
    pub fn generation(&self, generation: u32) -> String {
        format!("{}{generation:08x}:", self.view)
    }
    pub fn row(&self, generation: u32, key: &[u8]) -> Vec<u8> {
        let mut out = self.generation(generation).into_bytes();
        out.extend_from_slice(key);
        out
    }
    pub fn pointer(&self) -> String {
        format!("{}cur", self.view)
    }
    pub fn watermark(&self, generation: u32) -> String {
        format!("{}wm:{generation:08x}", self.view)
    }
    pub fn generations(&self) -> String {
        format!("{}gens", self.view)
    }
    pub fn dying(&self) -> String {
        format!("{}dying", self.view)
    }
    pub fn next(&self) -> String {
        format!("{}next", self.view)
    }

    /// Whether `key`, which begins with the view's prefix, is a row.
    pub fn is_row(&self, key: &[u8]) -> bool {
        key.get(self.view.len()..).is_some_and(|rest| rest.len() > 9 && rest[8] == b':' && rest[..8].iter().all(u8::is_ascii_hexdigit))
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

/// Writes the rows that supersede what is stored (see `rule.rs`) and answers how many; -1: the
/// generation was dropped. KEYS: set of generations, rows; ARGV: generation, then per row value,
/// kind (`o` or `s`), expiry in ms or nothing.
/// Numbers are compared in halves of 32 bits (Lua's are doubles), never strings (they follow a locale).
pub(super) const PUT: &str = r"
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return -1 end
local function compare(a, b, from, words)
  local format = '>' .. string.rep('I4', words)
  local x, y = {struct.unpack(format, a, from)}, {struct.unpack(format, b, from)}
  for i = 1, words do
    if x[i] ~= y[i] then return x[i] < y[i] and -1 or 1 end
  end
  return 0
end
local function content_greater(a, b)
  for i = 35, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end
local written = 0
for i = 2, #KEYS do
  local at = 2 + (i - 2) * 3
  local new, kind, expiry = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local old = redis.call('GET', KEYS[i])
  local wins = true
  if old then
    if compare(old, new, 25, 2) >= 0 then
      wins = false
    elseif kind == 'o' and string.byte(old, 34) % 2 == 0 then
      local order = compare(new, old, 1, 6)
      wins = order > 0 or (order == 0 and content_greater(new, old))
    end
  end
  if wins then
    if expiry == '' then
      redis.call('SET', KEYS[i], new)
    else
      redis.call('SET', KEYS[i], new, 'PXAT', expiry)
    end
    written = written + 1
  end
end
return written
";

/// KEYS: set of generations, watermark; ARGV: generation, expected or nothing, new.
pub(super) const ADVANCE: &str = r"
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return -1 end
local now = redis.call('GET', KEYS[2]) or ''
if now ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[2], ARGV[3])
return 1
";

/// KEYS: set of generations, pointer; ARGV: generation, expected generation or nothing, pointer.
pub(super) const PUBLISH: &str = r"
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return -1 end
local now = redis.call('GET', KEYS[2])
local generation = now and string.format('%.0f', cjson.decode(now).generation) or ''
if generation ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[2], ARGV[3])
return 1
";

/// Moves a generation that is not current from the living to the dying. KEYS: set of generations,
/// dying, pointer, watermark; ARGV: generation. -1: it is current.
pub(super) const CONDEMN: &str = r"
local now = redis.call('GET', KEYS[3])
if now and string.format('%.0f', cjson.decode(now).generation) == ARGV[1] then return -1 end
if redis.call('SREM', KEYS[1], ARGV[1]) == 1 then redis.call('SADD', KEYS[2], ARGV[1]) end
redis.call('DEL', KEYS[4])
return 1
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_names() {
        let k = Keys::new(&OnlineView { warehouse_id: "a:b%".into(), online_id: 42 });
        assert_eq!(k.row(7, b"\x01k"), b"remige:a%3Ab%25:0000002a:00000007:\x01k");
        assert_eq!(k.pointer(), "remige:a%3Ab%25:0000002a:cur");
        assert_eq!(k.watermark(7), "remige:a%3Ab%25:0000002a:wm:00000007");
        assert_eq!(k.generations(), "remige:a%3Ab%25:0000002a:gens");
        assert!(k.is_row(&k.row(7, b"x")));
        for other in [k.pointer(), k.watermark(7), k.generations(), k.dying(), k.next()] {
            assert!(!k.is_row(other.as_bytes()), "{other}");
        }
        assert_eq!(pattern("a*[b]?"), "a\\*\\[b\\]\\?*");
    }
}
