//! Copies between private bytes and memory that others write at the same time.
//!
//! The shared side is read and written with relaxed atomic operations: eight bytes at a time where
//! aligned, bytewise at the ragged ends. A plain `memcpy` that races with a writer is undefined
//! behaviour; these only give bytes from before, after, or some of each, which is what hardware
//! gives too. Relaxed atomic words compile to plain moves that LLVM still unrolls, so a large copy
//! runs at the speed of memory.
//!
//! Threads of this process may race here with accesses of another width to the same bytes. The Rust
//! reference leaves such mixtures among atomics open; LLVM and every supported processor define them
//! byte by byte, and accesses by other processes, which are the point of this memory, are outside
//! the language anyway.

#![expect(unsafe_code, reason = "UNSAFETY: turns addresses of a live mapping into atomics")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

const WORD_BYTES: usize = size_of::<u64>();

/// Copies `into.len()` bytes from shared memory at `from`.
///
/// # Safety
/// `from` is readable for `into.len()` bytes throughout the call, reached by atomics only.
pub(crate) unsafe fn read(from: NonNull<u8>, into: &mut [u8]) {
    let (head_bytes, word_bytes) = split(from, into.len());
    let (head, rest) = into.split_at_mut(head_bytes);
    let (words, tail) = rest.split_at_mut(word_bytes);
    // SAFETY: the three parts follow one another in the caller's range; the second begins aligned
    // and is whole words.
    unsafe {
        read_bytes(from, head);
        read_words(from.add(head_bytes), words);
        read_bytes(from.add(head_bytes + word_bytes), tail);
    }
}

/// Copies `from` to shared memory at `to`.
///
/// # Safety
/// `to` is writable for `from.len()` bytes throughout the call, reached by atomics only.
pub(crate) unsafe fn write(to: NonNull<u8>, from: &[u8]) {
    let (head_bytes, word_bytes) = split(to, from.len());
    let (head, rest) = from.split_at(head_bytes);
    let (words, tail) = rest.split_at(word_bytes);
    // SAFETY: as in `read`.
    unsafe {
        write_bytes(to, head);
        write_words(to.add(head_bytes), words);
        write_bytes(to.add(head_bytes + word_bytes), tail);
    }
}

/// Sets `length` bytes of shared memory at `to` to `byte`.
///
/// # Safety
/// `to` is writable for `length` bytes throughout the call, reached by atomics only.
pub(crate) unsafe fn fill(to: NonNull<u8>, length: usize, byte: u8) {
    let (head_bytes, word_bytes) = split(to, length);
    let word = u64::from_ne_bytes([byte; WORD_BYTES]);
    // SAFETY: as in `read`.
    unsafe {
        for index in (0..head_bytes).chain(head_bytes + word_bytes..length) {
            byte_at(to.add(index)).store(byte, Relaxed);
        }
        for offset in (head_bytes..head_bytes + word_bytes).step_by(WORD_BYTES) {
            word_at(to.add(offset)).store(word, Relaxed);
        }
    }
}

/// Bytes before the first aligned word, and bytes in whole words after them.
fn split(shared: NonNull<u8>, length: usize) -> (usize, usize) {
    let past = shared.addr().get() % WORD_BYTES;
    let head_bytes = ((WORD_BYTES - past) % WORD_BYTES).min(length);
    (head_bytes, (length - head_bytes) / WORD_BYTES * WORD_BYTES)
}

unsafe fn read_bytes(from: NonNull<u8>, into: &mut [u8]) {
    for (index, byte) in into.iter_mut().enumerate() {
        // SAFETY: `index` is inside the range the caller vouches for.
        *byte = unsafe { byte_at(from.add(index)) }.load(Relaxed);
    }
}

unsafe fn write_bytes(to: NonNull<u8>, from: &[u8]) {
    for (index, byte) in from.iter().enumerate() {
        // SAFETY: `index` is inside the range the caller vouches for.
        unsafe { byte_at(to.add(index)) }.store(*byte, Relaxed);
    }
}

/// `from` is aligned and `into` whole words.
unsafe fn read_words(from: NonNull<u8>, into: &mut [u8]) {
    let (words, _) = into.as_chunks_mut::<WORD_BYTES>();
    for (index, word) in words.iter_mut().enumerate() {
        // SAFETY: `index` words are inside the range the caller vouches for.
        *word = unsafe { word_at(from.add(index * WORD_BYTES)) }.load(Relaxed).to_ne_bytes();
    }
}

/// `to` is aligned and `from` whole words.
unsafe fn write_words(to: NonNull<u8>, from: &[u8]) {
    let (words, _) = from.as_chunks::<WORD_BYTES>();
    for (index, word) in words.iter().enumerate() {
        // SAFETY: `index` words are inside the range the caller vouches for.
        let shared = unsafe { word_at(to.add(index * WORD_BYTES)) };
        shared.store(u64::from_ne_bytes(*word), Relaxed);
    }
}

/// # Safety
/// `at` is mapped for as long as the result is used.
unsafe fn byte_at<'a>(at: NonNull<u8>) -> &'a AtomicU8 {
    // SAFETY: the caller's promise; a byte is always aligned.
    unsafe { AtomicU8::from_ptr(at.as_ptr()) }
}

/// # Safety
/// `at` is aligned to a word and mapped for as long as the result is used.
unsafe fn word_at<'a>(at: NonNull<u8>) -> &'a AtomicU64 {
    // SAFETY: the caller's promise.
    unsafe { AtomicU64::from_ptr(at.cast().as_ptr()) }
}
