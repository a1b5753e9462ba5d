//! Reading and writing fields: a cursor over borrowed bytes, and its mirror over a growing buffer.

use super::Code;

/// A cursor over one frame's body. Every read that does not fit is [`Code::Malformed`].
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Code> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Code::Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Code> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Code::Malformed)?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Code> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> Result<u16, Code> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, Code> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, Code> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Sixteen bytes, big-endian: a message id.
    pub fn id(&mut self) -> Result<u128, Code> {
        Ok(u128::from_be_bytes(self.array()?))
    }

    /// A length byte and that much UTF-8.
    pub fn str8(&mut self) -> Result<&'a str, Code> {
        let len = usize::from(self.u8()?);
        std::str::from_utf8(self.bytes(len)?).map_err(|_| Code::Malformed)
    }

    /// A two-byte length and that much UTF-8.
    pub fn str16(&mut self) -> Result<&'a str, Code> {
        let len = usize::from(self.u16()?);
        std::str::from_utf8(self.bytes(len)?).map_err(|_| Code::Malformed)
    }

    /// A name of 1 to `max` bytes behind a length byte.
    pub fn name(&mut self, max: usize) -> Result<&'a str, Code> {
        let name = self.str8()?;
        if name.is_empty() || name.len() > max { Err(Code::Malformed) } else { Ok(name) }
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Fails if anything is left.
    pub fn end(self) -> Result<(), Code> {
        if self.rest.is_empty() { Ok(()) } else { Err(Code::Malformed) }
    }
}

/// Appends fields to a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Sixteen bytes, big-endian: a message id.
    pub fn id(&mut self, value: u128) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// A length byte and the text, which the caller keeps within 255 bytes.
    pub fn str8(&mut self, text: &str) -> &mut Self {
        let len = u8::try_from(text.len()).expect("a short string has at most 255 bytes");
        self.u8(len).bytes(text.as_bytes())
    }

    /// A two-byte length and the text, which the caller keeps within 65,535 bytes.
    pub fn str16(&mut self, text: &str) -> &mut Self {
        let len = u16::try_from(text.len()).expect("a string has at most 65,535 bytes");
        self.u16(len).bytes(text.as_bytes())
    }
}

/// A checked list of names: iterating cannot fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Names<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Names<'a> {
    /// Reads a two-byte count and that many names of 1 to `name_bytes_max` bytes; the count is within `range`.
    pub fn read(
        reader: &mut Reader<'a>,
        range: std::ops::RangeInclusive<usize>,
        name_bytes_max: usize,
    ) -> Result<Self, Code> {
        let count = reader.u16()?;
        if !range.contains(&usize::from(count)) {
            return Err(Code::Malformed);
        }
        let all = reader.rest;
        for _ in 0..count {
            reader.name(name_bytes_max)?;
        }
        Ok(Self { count, bytes: &all[..all.len() - reader.rest.len()] })
    }

    /// The list that stands in `bytes`: a two-byte count and the names, which the caller has checked.
    pub fn of_bytes(bytes: &'a [u8]) -> Self {
        let (count, bytes) = bytes.split_first_chunk().expect("a list starts with its count");
        Self { count: u16::from_le_bytes(*count), bytes }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The names with their length bytes, as they stood in the frame.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Each name, in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || if reader.is_empty() { None } else { reader.str8().ok() })
    }
}
