//! What Redis does in one step. Scripts may be run twice.

use std::sync::Arc;

use redis::{Cmd, cmd};

pub(super) struct Script {
    pub code: String,
    hash: String,
}

impl Script {
    fn new(code: String) -> Arc<Script> {
        let hash = redis::Script::new(&code).get_hash().to_string();
        Arc::new(Script { code, hash })
    }

    /// A call, to which as many keys and then the arguments are to be added.
    pub fn call(&self, keys: usize) -> Cmd {
        let mut command = cmd("EVALSHA");
        command.arg(&self.hash).arg(keys);
        command
    }
}

pub(super) struct Scripts {
    /// KEYS and ARGV begin with the set of generations and the generation. -1: it was dropped.
    pub put: Arc<Script>,
    /// For one row, on a server that may not have the set of generations.
    pub put_one: Arc<Script>,
    pub advance: Arc<Script>,
    pub publish: Arc<Script>,
    pub condemn: Arc<Script>,
}

impl Default for Scripts {
    fn default() -> Self {
        let guard = "if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return -1 end";
        Scripts {
            put: Script::new(format!("{guard}\nlocal first = 2{PUT}")),
            put_one: Script::new(format!("local first = 1{PUT}")),
            advance: Script::new(ADVANCE.into()),
            publish: Script::new(PUBLISH.into()),
            condemn: Script::new(CONDEMN.into()),
        }
    }
}

impl Scripts {
    pub fn all(&self) -> Vec<Arc<Script>> {
        [&self.put, &self.put_one, &self.advance, &self.publish, &self.condemn].map(Arc::clone).to_vec()
    }
}

/// Writes the rows that supersede what is stored (see `rule.rs`) and answers how many; KEYS: rows,
/// from `first` on; ARGV: per row value, kind (`o`, `s` or `r`), expiry in ms or nothing.
/// Numbers are compared in halves of 32 bits (Lua's are doubles), never strings (they follow a locale).
const PUT: &str = r"
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
for i = first, #KEYS do
  local at = first + (i - first) * 3
  local new, kind, expiry = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local old = redis.call('GET', KEYS[i])
  local wins = true
  if old and kind == 'r' and #old < 32 then old = false end
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

/// KEYS: set of generations, watermark; ARGV: generation, expected or nothing, new, and whether the
/// answer to an earlier call was lost: then it may have done it.
const ADVANCE: &str = r"
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return -1 end
local now = redis.call('GET', KEYS[2]) or ''
if ARGV[4] == '1' and now == ARGV[3] then return 1 end
if now ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[2], ARGV[3])
return 1
";

/// KEYS: set of generations, pointer; ARGV: generation, expected generation or nothing, pointer, and
/// as above.
const PUBLISH: &str = r"
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return -1 end
local now = redis.call('GET', KEYS[2])
if ARGV[4] == '1' and now == ARGV[3] then return 1 end
local generation = now and string.format('%.0f', cjson.decode(now).generation) or ''
if generation ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[2], ARGV[3])
return 1
";

/// Moves a generation that is not current from the living to the dying. KEYS: set of generations,
/// dying, pointer, watermark; ARGV: generation. -1: it is current.
const CONDEMN: &str = r"
local now = redis.call('GET', KEYS[3])
if now and string.format('%.0f', cjson.decode(now).generation) == ARGV[1] then return -1 end
if redis.call('SREM', KEYS[1], ARGV[1]) == 1 then redis.call('SADD', KEYS[2], ARGV[1]) end
redis.call('DEL', KEYS[4])
return 1
";
