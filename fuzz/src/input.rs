//! Values from bytes, and back, so that seeds can be written down as values.
//!
//! An input that runs dry gives zeros to the value that is being read; [`Input::is_empty`] ends the list.

/// Bytes that are read as values from the front.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    /// Reads from the first byte on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// As many bytes as there are, at most `length`.
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(length.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    /// Exactly `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    /// Two bytes.
    pub fn word(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Four bytes.
    pub fn dword(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// Eight bytes.
    pub fn qword(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A length of one byte, and that many bytes.
    pub fn counted(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte());
        self.take(length).to_vec()
    }

    /// The index of one of `count` alternatives, from a byte.
    pub fn choice(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }
}

/// Bytes that [`Input`] reads back as the values written.
#[derive(Clone, Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
}

impl Output {
    /// All bytes so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Bytes as they are.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A length of one byte, and at most that many bytes.
    pub fn counted(&mut self, bytes: &[u8]) {
        let length = u8::try_from(bytes.len()).expect("a seed's bytes are few");
        self.bytes.push(length);
        self.put(bytes);
    }
}
