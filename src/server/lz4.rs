//! How much an LZ4 frame can become, read from its headers.

const MAGIC: u32 = 0x184D_2204;

/// At most so many bytes come out of `data`; `None` where it is no LZ4 frame.
pub(super) fn most(mut data: &[u8]) -> Option<usize> {
    let mut sum = 0_usize;
    loop {
        sum = sum.saturating_add(frame(&mut data)?);
        // padding, or another frame
        match data.first_chunk::<4>() {
            Some(next) if u32::from_le_bytes(*next) == MAGIC => (),
            _ => return Some(sum),
        }
    }
}

fn frame(data: &mut &[u8]) -> Option<usize> {
    if number(data)? != MAGIC {
        return None;
    }
    let &[flags, block] = take(data, 2)? else { return None };
    let most = match (block >> 4) & 7 {
        4 => 64 << 10,
        5 => 256 << 10,
        6 => 1 << 20,
        7 => 4 << 20,
        _ => return None,
    };
    let set = |bit: u8| flags & bit != 0;
    // content size, dictionary, checksum of the header
    take(data, 8 * usize::from(set(8)) + 4 * usize::from(set(1)) + 1)?;
    let mut sum = 0_usize;
    loop {
        // a frame without its end is read as far as it goes
        let Some(head) = number(data) else { return Some(sum) };
        if head == 0 {
            break;
        }
        let length = (head & 0x7fff_ffff) as usize;
        sum = sum.saturating_add(if head >> 31 == 1 { length } else { most.min(length.saturating_mul(255)) });
        if take(data, length + 4 * usize::from(set(16))).is_none() {
            return Some(sum);
        }
    }
    if set(4) {
        take(data, 4);
    }
    Some(sum)
}

fn number(data: &mut &[u8]) -> Option<u32> {
    let (number, rest) = data.split_first_chunk::<4>()?;
    *data = rest;
    Some(u32::from_le_bytes(*number))
}

fn take<'a>(data: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, rest) = data.split_at_checked(n)?;
    *data = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(flags: u8, blocks: &[(u32, usize)]) -> Vec<u8> {
        let mut out = MAGIC.to_le_bytes().to_vec();
        out.extend([flags, 4 << 4, 0]);
        for (head, length) in blocks {
            out.extend(head.to_le_bytes());
            out.resize(out.len() + length, 0);
        }
        out.extend([0; 4]);
        out
    }

    #[test]
    fn blocks_are_counted() {
        let raw = 1 << 31;
        let two = bytes(0x40, &[(100, 100), (raw | 10, 10), (5000, 5000)]);
        assert_eq!(most(&two), Some(25_500 + 10 + (64 << 10)));
        let checked = bytes(0x50, &[(10, 14)]);
        assert_eq!(most(&checked), Some(2550));
        assert_eq!(most(&[two.clone(), two.clone()].concat()), Some(2 * (25_510 + (64 << 10))));
        assert_eq!(most(&[&two[..], &[0; 4]].concat()), most(&two));
        // what is cut off counts as if it were there
        assert_eq!(most(&two[..two.len() - 100]), most(&two));
        for no_frame in [vec![], vec![1, 2, 3, 4, 5, 6, 7], two[..5].to_vec()] {
            assert_eq!(most(&no_frame), None);
        }
    }
}
