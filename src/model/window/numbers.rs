//! Numbers as bytes: seven bits to a byte, the low ones first, the high bit set where more follow.

use crate::error::{Error, Result};

pub fn put_unsigned(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Small numbers of either sign are short.
pub fn put_signed(n: i64, out: &mut Vec<u8>) {
    put_unsigned(((n << 1) ^ (n >> 63)) as u64, out);
}

pub fn put_sized(bytes: &[u8], out: &mut Vec<u8>) {
    put_unsigned(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// What is left to read of a record. Every read is checked: the bytes come from outside.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn damaged(&self, what: &str) -> Error {
        Error::internal(format!("an online record is damaged: {what} cannot be read"))
            .with_hint("MATERIALIZE FEATURE VIEW … FULL writes it again")
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.0.split_first().ok_or_else(|| self.damaged("a byte"))?;
        self.0 = rest;
        Ok(*first)
    }

    pub fn unsigned(&mut self) -> Result<u64> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return Err(self.damaged("a number"));
            }
            n |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(self.damaged("a number"))
    }

    pub fn signed(&mut self) -> Result<i64> {
        let n = self.unsigned()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    /// A number of things of which each takes a byte at least.
    pub fn count(&mut self) -> Result<usize> {
        let n = self.unsigned()?;
        usize::try_from(n).ok().filter(|n| *n <= self.0.len()).ok_or_else(|| self.damaged("a count"))
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n).ok_or_else(|| self.damaged("a value"))?;
        self.0 = tail;
        Ok(head)
    }

    pub fn sized(&mut self) -> Result<&'a [u8]> {
        let n = self.count()?;
        self.take(n)
    }
}
