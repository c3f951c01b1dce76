//! Groups of integer keys: a plain table where the keys lie close together, as surrogate keys do, else a hash table.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::group::NO_GROUP;

/// A plain table has at most so many places per known key and row that may bring another.
const PLACES_PER_KEY: usize = 8;

/// Maps integers to groups.
#[derive(Debug, Default)]
pub struct IntegerKeys {
    /// Groups of the keys from `first` on.
    near: Vec<u32>,
    first: i64,
    far: HashTable<(i64, u32)>,
    hasher: DefaultHashBuilder,
    groups: usize,
}

impl IntegerKeys {
    /// Makes room for the keys of a batch; without it `insert` is as right, and slower.
    pub fn expect(&mut self, keys: impl Iterator<Item = i64>) {
        let (count, bounds) = keys.fold((0usize, None), |(count, bounds), key| {
            let (least, greatest) = bounds.unwrap_or((key, key));
            (count + 1, Some((key.min(least), key.max(greatest))))
        });
        let Some((mut least, mut greatest)) = bounds else { return };
        if !self.near.is_empty() {
            least = least.min(self.first);
            greatest = greatest.max(self.first.saturating_add(self.near.len() as i64 - 1));
        }
        let places = i128::from(greatest) - i128::from(least) + 1;
        let room = PLACES_PER_KEY * (self.groups + count);
        let have = self.near.len();
        if places > room as i128 || places as usize <= have {
            return;
        }
        // Half as many again on the side where keys come, so that keys in order do not move all others every time.
        let spare = (have / 2).min(room - places as usize) as u64;
        if have > 0 && least < self.first {
            least = least.saturating_sub_unsigned(spare);
        } else {
            greatest = greatest.saturating_add_unsigned(spare);
        }
        let places = greatest.abs_diff(least) as usize + 1;
        if places - have < have / 2 {
            return;
        }
        let mut near = vec![NO_GROUP; places];
        if have > 0 {
            let before = self.first.abs_diff(least) as usize;
            near[before..before + have].copy_from_slice(&self.near);
        }
        self.near = near;
        self.first = least;
        let near = &mut self.near;
        self.far.retain(|(key, group)| match near.get_mut(place(least, *key)) {
            Some(place) => {
                *place = *group;
                false
            }
            None => true,
        });
    }

    /// The group of a key; a new key gets the one that `new` makes.
    pub fn insert(&mut self, key: i64, new: impl FnOnce() -> u32) -> u32 {
        let groups = &mut self.groups;
        let new = || {
            *groups += 1;
            new()
        };
        if let Some(group) = self.near.get_mut(place(self.first, key)) {
            if *group == NO_GROUP {
                *group = new();
            }
            return *group;
        }
        let hasher = &self.hasher;
        self.far.entry(hasher.hash_one(key), |e| e.0 == key, |e| hasher.hash_one(e.0)).or_insert_with(|| (key, new())).get().1
    }

    /// The group of a key, or `NO_GROUP`.
    #[inline]
    pub fn find(&self, key: i64) -> u32 {
        if let Some(group) = self.near.get(place(self.first, key)) {
            return *group;
        }
        if self.far.is_empty() {
            return NO_GROUP;
        }
        self.far.find(self.hasher.hash_one(key), |e| e.0 == key).map_or(NO_GROUP, |e| e.1)
    }

    /// All keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = i64> {
        let near = self.near.iter().enumerate().filter(|(_, group)| **group != NO_GROUP).map(|(i, _)| self.first + i as i64);
        near.chain(self.far.iter().map(|e| e.0))
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        self.near.capacity() * size_of::<u32>() + self.far.allocation_size()
    }
}

/// Out of any table's range for a key below `first`.
#[inline]
fn place(first: i64, key: i64) -> usize {
    usize::try_from(key.wrapping_sub(first) as u64).map_or(usize::MAX, |p| if key < first { usize::MAX } else { p })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn like_a_map(
            batches in prop::collection::vec(
                (any::<bool>(), prop::collection::vec(prop_oneof![
                    5 => -300i64..300,
                    2 => 1000i64..1400,
                    1 => prop::sample::select(vec![i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX]),
                    1 => any::<i64>(),
                ], 0..80)),
                0..12,
            )
        ) {
            let (mut keys, mut map) = (IntegerKeys::default(), HashMap::new());
            for (announced, batch) in &batches {
                if *announced {
                    keys.expect(batch.iter().copied());
                }
                for key in batch {
                    let next = map.len() as u32;
                    let group = *map.entry(*key).or_insert(next);
                    prop_assert_eq!(keys.insert(*key, || next), group);
                }
                for key in batches.iter().flat_map(|b| &b.1) {
                    prop_assert_eq!(keys.find(*key), map.get(key).copied().unwrap_or(NO_GROUP));
                }
            }
            let mut all: Vec<i64> = keys.iter().collect();
            let mut expected: Vec<i64> = map.into_keys().collect();
            all.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(all, expected);
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        for keys in [[i64::MAX, i64::MAX - 1], [i64::MIN, i64::MIN + 1]] {
            let mut index = IntegerKeys::default();
            index.expect(keys.into_iter());
            for (group, key) in keys.into_iter().enumerate() {
                assert_eq!(index.insert(key, || group as u32), group as u32);
            }
            let mut all: Vec<i64> = index.iter().collect();
            all.sort_unstable_by_key(|k| k.abs_diff(keys[0]));
            assert_eq!(all, keys);
            assert!(index.far.is_empty());
        }
    }

    #[test]
    fn close_keys_need_no_hashing_in_any_order() {
        for keys in [(0..5000i64).collect::<Vec<_>>(), (0..5000).rev().collect(), (0..5000).map(|i| i * 2477 % 5000 - 9000).collect()] {
            let mut index = IntegerKeys::default();
            let mut next = 0;
            for batch in keys.chunks(100) {
                index.expect(batch.iter().copied());
                for key in batch {
                    index.insert(*key, || {
                        next += 1;
                        next - 1
                    });
                }
            }
            assert!(index.far.is_empty() && index.near.len() <= PLACES_PER_KEY * keys.len());
        }
    }
}
