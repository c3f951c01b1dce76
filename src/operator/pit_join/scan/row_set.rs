//! Sets of feature rows by number.

use datafusion::arrow::buffer::Buffer;

/// In place of a row's number or rank: no row.
pub const NO_ROW: u32 = u32::MAX;

/// Numbers of rows as bits, with the rank of each among them.
#[derive(Debug)]
pub struct RowSet {
    words: Vec<u64>,
    /// Members before each word.
    before: Vec<u32>,
}

impl RowSet {
    /// `rows`: how many there are; `members`: numbers below that, each any number of times.
    pub fn new(rows: usize, members: impl Iterator<Item = usize>) -> Self {
        let mut words = Self::no_bits(rows);
        for row in members {
            words[row / 64] |= 1 << (row % 64);
        }
        Self::of(words)
    }

    /// No member among `rows` rows: row `n` is bit `n % 64` of word `n / 64`.
    pub fn no_bits(rows: usize) -> Vec<u64> {
        vec![0; rows.div_ceil(64)]
    }

    /// All that any of `parts` has.
    pub fn union(rows: usize, parts: Vec<Vec<u64>>) -> Self {
        let mut parts = parts.into_iter();
        let mut words = parts.next().unwrap_or_else(|| Self::no_bits(rows));
        for part in parts {
            words.iter_mut().zip(part).for_each(|(w, p)| *w |= p);
        }
        Self::of(words)
    }

    fn of(words: Vec<u64>) -> Self {
        let mut count = 0;
        let before = words
            .iter()
            .map(|w| {
                let before = count;
                count += w.count_ones();
                before
            })
            .collect();
        RowSet { words, before }
    }

    /// How many members come before this one.
    pub fn rank(&self, row: usize) -> u32 {
        let below = self.words[row / 64] & ((1 << (row % 64)) - 1);
        self.before[row / 64] + below.count_ones()
    }

    /// Bytes that a set of rows below `rows` takes.
    pub fn size_for(rows: usize) -> usize {
        rows.div_ceil(64) * (size_of::<u64>() + size_of::<u32>())
    }

    /// The members as bits: row `n` is bit `n`.
    pub fn into_bits(self) -> Buffer {
        Buffer::from_vec(self.words)
    }
}
