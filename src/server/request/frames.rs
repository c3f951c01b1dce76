//! The messages in a body: a byte for compression, four for the length, then so many bytes.

use bytes::Bytes;

const HEADER: usize = 5;

/// Where in a message a body is.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; HEADER],
    /// Bytes of the header that have come.
    have: usize,
    /// Bytes of the message that have not.
    left: usize,
}

#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    /// A message of so many bytes begins: its header is whole.
    Begin(usize),
    /// Bytes of the message.
    Part(Bytes),
    /// The header goes on in the next chunk.
    More,
}

impl Frames {
    /// Takes the next piece off a chunk.
    pub fn cut(&mut self, chunk: &mut Bytes) -> Piece {
        if self.left > 0 {
            let part = chunk.split_to(chunk.len().min(self.left));
            self.left -= part.len();
            return Piece::Part(part);
        }
        let part = chunk.split_to(chunk.len().min(HEADER - self.have));
        self.header.iter_mut().skip(self.have).zip(&part).for_each(|(place, byte)| *place = *byte);
        self.have += part.len();
        if self.have < HEADER {
            return Piece::More;
        }
        let [_, length @ ..] = self.header;
        self.have = 0;
        self.left = u32::from_be_bytes(length) as usize;
        Piece::Begin(self.left)
    }

    /// Takes a whole message of at most so many bytes off a chunk, its header included, where one begins there and is all
    /// there.
    pub fn whole(&self, chunk: &mut Bytes, most: usize) -> Option<Bytes> {
        if self.in_the_middle() {
            return None;
        }
        let [_, length @ ..] = *chunk.first_chunk::<HEADER>()?;
        let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
        (length <= most && chunk.len() - HEADER >= length).then(|| chunk.split_to(HEADER + length))
    }

    /// The header of the message that has just begun.
    pub fn header(&self) -> Bytes {
        Bytes::copy_from_slice(&self.header)
    }

    pub fn left(&self) -> usize {
        self.left
    }

    pub fn in_the_middle(&self) -> bool {
        self.left > 0 || self.have > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_same_wherever_chunks_end() {
        let whole: Vec<u8> = [&[0, 0, 0, 0, 3][..], b"abc", &[0; 5], &[1, 0, 0, 0, 2], b"de"].concat();
        for size in 1..=whole.len() {
            let mut frames = Frames::default();
            let (mut begun, mut bytes) = (vec![], vec![]);
            for chunk in whole.chunks(size) {
                let mut chunk = Bytes::copy_from_slice(chunk);
                while !chunk.is_empty() {
                    match frames.cut(&mut chunk) {
                        Piece::Begin(n) => begun.push(n),
                        Piece::Part(part) => bytes.extend_from_slice(&part),
                        Piece::More => {}
                    }
                }
            }
            assert_eq!((begun, bytes.as_slice()), (vec![3, 0, 2], &b"abcde"[..]), "{size}");
            assert!(!frames.in_the_middle());
        }
    }

    #[test]
    fn small_messages_that_are_all_there_come_in_one_piece() {
        let bytes: Vec<u8> = [&[0, 0, 0, 0, 3][..], b"abc", &[0; 5], &[0, 0, 0, 0, 2], b"d"].concat();
        let mut frames = Frames::default();
        let mut chunk = Bytes::from(bytes.clone());
        assert_eq!(frames.whole(&mut chunk, 2), None, "larger than small");
        assert_eq!(frames.whole(&mut chunk, 3).as_deref(), Some(&bytes[..8]));
        assert_eq!(frames.whole(&mut chunk, 3).as_deref(), Some(&[0; 5][..]));
        assert_eq!(frames.whole(&mut chunk, 3), None, "not all there");
        assert_eq!(frames.whole(&mut chunk.slice(..4), 3), None, "not even its header");
        assert_eq!(frames.cut(&mut chunk), Piece::Begin(2));
        assert_eq!(frames.whole(&mut Bytes::from(vec![0; 9]), 3), None, "in the middle of another");
    }

    #[test]
    fn half_a_message_and_half_a_header_are_the_middle() {
        for cut in [&[0, 0][..], &[0, 0, 0, 0, 3], &[0, 0, 0, 0, 3, b'a']] {
            let mut frames = Frames::default();
            let mut chunk = Bytes::copy_from_slice(cut);
            while !chunk.is_empty() {
                frames.cut(&mut chunk);
            }
            assert!(frames.in_the_middle(), "{cut:?}");
        }
    }
}
