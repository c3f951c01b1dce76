//! Groups of text and binary keys. Short ones are compared as numbers, without another trip to memory.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::group::NO_GROUP;

/// A key of up to 15 bytes, with its length in the last.
type Short = u128;

/// Maps byte strings to groups, which are numbered from 0 on as they are inserted.
#[derive(Debug, Default)]
pub struct ByteKeys {
    short: HashTable<(Short, u32)>,
    long: HashTable<Long>,
    /// The keys one after the other, and where each ends.
    seen: Vec<u8>,
    ends: Vec<usize>,
    hasher: DefaultHashBuilder,
}

/// A key that stands in `seen`.
#[derive(Debug, Clone, Copy)]
struct Long {
    start: usize,
    len: u32,
    group: u32,
}

impl Long {
    fn of(self, seen: &[u8]) -> &[u8] {
        &seen[self.start..self.start + self.len as usize]
    }
}

#[inline]
fn short(key: &[u8]) -> Option<Short> {
    let mut bytes = [0u8; 16];
    bytes[..15].get_mut(..key.len())?.copy_from_slice(key);
    bytes[15] = key.len() as u8;
    Some(u128::from_le_bytes(bytes))
}

impl ByteKeys {
    /// The group of a key; a new key gets the one that `new` makes.
    pub fn insert(&mut self, key: &[u8], new: impl FnOnce() -> u32) -> u32 {
        let hasher = &self.hasher;
        match short(key) {
            Some(number) => {
                let hash = hasher.hash_one(number);
                if let Some(known) = self.short.find(hash, |e| e.0 == number) {
                    return known.1;
                }
                let group = new();
                self.short.insert_unique(hash, (number, group), |e| hasher.hash_one(e.0));
                self.seen.extend_from_slice(key);
                self.ends.push(self.seen.len());
                group
            }
            None => {
                let hash = hasher.hash_one(key);
                if let Some(known) = self.long.find(hash, |e| e.of(&self.seen) == key) {
                    return known.group;
                }
                let entry = Long { start: self.seen.len(), len: key.len() as u32, group: new() };
                self.seen.extend_from_slice(key);
                self.ends.push(self.seen.len());
                self.long.insert_unique(hash, entry, |e| hasher.hash_one(e.of(&self.seen)));
                entry.group
            }
        }
    }

    /// The group of a key, or `NO_GROUP`.
    #[inline]
    pub fn find(&self, key: &[u8]) -> u32 {
        match short(key) {
            Some(key) => self.short.find(self.hasher.hash_one(key), |e| e.0 == key).map_or(NO_GROUP, |e| e.1),
            None => self.long.find(self.hasher.hash_one(key), |e| e.of(&self.seen) == key).map_or(NO_GROUP, |e| e.group),
        }
    }

    /// All keys, in the order of their groups.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.seen[start..*end])
    }

    /// Bytes of all keys together.
    pub fn bytes(&self) -> usize {
        self.seen.len()
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        self.seen.capacity() + self.ends.capacity() * size_of::<usize>() + self.short.allocation_size() + self.long.allocation_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn like_a_map(keys in prop::collection::vec(prop::collection::vec(0u8..3, 0..40), 0..120), asked in prop::collection::vec(prop::collection::vec(0u8..3, 0..18), 0..40)) {
            let (mut index, mut map) = (ByteKeys::default(), HashMap::new());
            for key in &keys {
                let next = map.len() as u32;
                let group = *map.entry(key.clone()).or_insert(next);
                prop_assert_eq!(index.insert(key, || next), group);
            }
            for key in keys.iter().chain(&asked) {
                prop_assert_eq!(index.find(key), map.get(key).copied().unwrap_or(NO_GROUP));
            }
            let in_order: Vec<_> = index.iter().enumerate().map(|(group, key)| (key.to_vec(), group as u32)).collect();
            prop_assert_eq!(in_order.len(), map.len());
            prop_assert!(in_order.iter().all(|(key, group)| map.get(key) == Some(group)));
        }
    }

    #[test]
    fn lengths_around_the_limit() {
        let mut index = ByteKeys::default();
        let keys: Vec<Vec<u8>> = (0..40).map(|n| vec![0; n]).collect();
        for (group, key) in keys.iter().enumerate() {
            index.insert(key, || group as u32);
        }
        assert!(keys.iter().enumerate().all(|(group, key)| index.find(key) == group as u32));
        assert_eq!((index.short.len(), index.long.len()), (16, 24));
    }
}
