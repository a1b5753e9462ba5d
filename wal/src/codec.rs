//! Little-endian numbers in byte slices, and rounding to blocks. Offsets come from layouts, never from the input.

use crate::BLOCK;

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

pub(crate) fn key_at(bytes: &[u8], at: usize) -> [u8; 16] {
    let mut key = [0; 16];
    key.copy_from_slice(&bytes[at..at + 16]);
    key
}

pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_key(bytes: &mut [u8], at: usize, key: &[u8; 16]) {
    bytes[at..at + 16].copy_from_slice(key);
}

/// The next multiple of [`BLOCK`] at or above `bytes`.
pub(crate) fn block_up(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK)
}

/// A length or offset inside a segment as the format stores it.
pub(crate) fn as_u32(value: usize) -> u32 {
    u32::try_from(value).expect("segments are below 4 GiB, and so is what lies in them")
}
