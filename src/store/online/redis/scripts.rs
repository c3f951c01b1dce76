//! What Redis does in one step. Scripts may be run twice.

use std::sync::Arc;

use redis::{Arg, Cmd, cmd};

pub(super) struct Script {
    pub code: String,
    hash: String,
}

impl Script {
    fn new(code: String) -> Arc<Script> {
        let hash = redis::Script::new(&code).get_hash().to_string();
        Arc::new(Script { code, hash })
    }

    /// The same call with the whole script in it; `None`: it calls another one.
    pub fn whole(&self, call: &Cmd) -> Option<Cmd> {
        let mut words = call.args_iter().map(|word| match word {
            Arg::Simple(word) => word,
            _ => &[],
        });
        if words.next() != Some(b"EVALSHA") || words.next() != Some(self.hash.as_bytes()) {
            return None;
        }
        let mut whole = cmd("EVAL");
        whole.arg(&self.code);
        words.for_each(|word| {
            whole.arg(word);
        });
        Some(whole)
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
/// from `first` on; ARGV: per row value, kind (`o`, `s`, or `x`: an offer past its expiry), expiry in ms or nothing.
/// What is past its expiry is not written, but no older row stays for it; tombstones do.
/// Numbers are compared in halves of 32 bits (Lua's are doubles), never strings (they follow a locale).
/// A command costs a script more than a row does: many rows are read by one, and written by one.
const PUT: &str = r"
local step = 1000
local function content_greater(a, b)
  for i = 35, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end
local function older(old, new)
  local a, b = struct.unpack('>I4I4', old, 25)
  local c, d = struct.unpack('>I4I4', new, 25)
  return a < c or (a == c and b < d)
end
local function precedes(old, new)
  local x, y = {struct.unpack('>I4I4I4I4I4I4', old)}, {struct.unpack('>I4I4I4I4I4I4', new)}
  for i = 1, 6 do
    if x[i] ~= y[i] then return x[i] < y[i] end
  end
  return content_greater(new, old)
end
local written, mine = 0, {}
for from = first, #KEYS, step do
  local to = math.min(from + step - 1, #KEYS)
  local stored = redis.call('MGET', unpack(KEYS, from, to))
  local plain, n = {}, 0
  for i = from, to do
    local key, at = KEYS[i], first + (i - first) * 3
    local new, kind, expiry = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local old = mine[key] or stored[i - from + 1]
    -- the shortest row has 38 bytes
    if not old or #old < 38
        or (older(old, new) and (kind == 's' or string.byte(old, 34) % 2 == 1 or precedes(old, new))) then
      if mine[key] and n > 0 then
        redis.call('MSET', unpack(plain))
        plain, n = {}, 0
      end
      if kind ~= 'x' then
        mine[key] = new
        written = written + 1
        if expiry == '' then
          plain[n + 1], plain[n + 2] = key, new
          n = n + 2
        else
          redis.call('SET', key, new, 'PXAT', expiry)
        end
      elseif old and #old >= 38 and string.byte(old, 34) % 2 == 0 then
        redis.call('DEL', key)
        mine[key] = ''
      end
    end
  end
  if n > 0 then redis.call('MSET', unpack(plain)) end
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

/// KEYS: set of generations, pointer, watermark of the expected generation; ARGV: generation, expected generation or
/// nothing, pointer, greatest watermark that the expected generation may have or nothing, and as above. Watermarks
/// are versions of a table: far below the 2^53 up to which Lua's numbers are exact.
const PUBLISH: &str = r"
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then return -1 end
local now = redis.call('GET', KEYS[2])
if ARGV[5] == '1' and now == ARGV[3] then return 1 end
local generation = now and string.format('%.0f', cjson.decode(now).generation) or ''
if generation ~= ARGV[2] then return 0 end
if ARGV[4] ~= '' and generation ~= '' and tonumber(redis.call('GET', KEYS[3]) or '0') > tonumber(ARGV[4]) then return 0 end
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
