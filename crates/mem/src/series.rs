//! Writing many atomic words at once.
//!
//! A compiler makes no vectors of atomic stores, but a processor writes every aligned word of a vector whole: those
//! with AVX promise it for 16 bytes. So runs of words are written two at a time there. Takes no lock.
//!
//! Source: Intel SDM volume 3, 10.1.1; AMD64 APM volume 2, 7.3.2.

#![expect(unsafe_code, reason = "UNSAFETY: vector stores to atomics, which only assembly can make")]

use std::sync::atomic::{AtomicU64, Ordering::Release};

/// Shorter runs are written word by word.
const WORDS_LEAST: usize = 8;

/// Stores `first` to the first word, and to each other `step` more than to the one before, modulo 2^64. Every store
/// is releasing, and no reader sees half of a word; in which order they become visible is open.
#[inline]
pub fn store_series(words: &[AtomicU64], first: u64, step: u64) {
    match words {
        [] => {}
        [only] => only.store(first, Release),
        _ if words.len() < WORDS_LEAST => store_each(words, first, step),
        _ => store_long(words, first, step),
    }
}

#[inline(never)]
fn store_each(words: &[AtomicU64], first: u64, step: u64) {
    let mut value = first;
    for word in words {
        word.store(value, Release);
        value = value.wrapping_add(step);
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
fn store_long(words: &[AtomicU64], first: u64, step: u64) {
    if !std::arch::is_x86_feature_detected!("avx") {
        return store_each(words, first, step);
    }
    let odd = usize::from(!words.as_ptr().addr().is_multiple_of(PAIR_BYTES));
    let (start, rest) = words.split_at(odd);
    store_each(start, first, step);
    let first = first.wrapping_add(step.wrapping_mul(odd as u64));
    let (pairs, end) = rest.split_at(rest.len() & !1);
    store_pairs(pairs, first, step);
    store_each(end, first.wrapping_add(step.wrapping_mul(pairs.len() as u64)), step);
}

#[cfg(not(target_arch = "x86_64"))]
fn store_long(words: &[AtomicU64], first: u64, step: u64) {
    store_each(words, first, step);
}

/// As [`store_series`], for an even number of words from a multiple of 16 on.
#[cfg(target_arch = "x86_64")]
fn store_pairs(words: &[AtomicU64], first: u64, step: u64) {
    use std::arch::x86_64::_mm_set_epi64x;

    debug_assert!(
        words.len().is_multiple_of(2) && words.as_ptr().addr().is_multiple_of(PAIR_BYTES)
    );
    if words.is_empty() {
        return;
    }
    let second = first.wrapping_add(step);
    let range = words.as_ptr_range();
    // SAFETY: writes the words of the slice and nothing else: pairs from its start, which is aligned as `movdqa` needs,
    // to its end, which an even number of words reaches. Each word is written whole, as by an atomic store, because
    // the processor has AVX (checked by the caller); what it stores is ordered after earlier stores, as releasing
    // needs, by the architecture. The compiler sees memory change and moves nothing across.
    unsafe {
        let values = _mm_set_epi64x(second.cast_signed(), first.cast_signed());
        let steps = step.wrapping_mul(2).cast_signed();
        let steps = _mm_set_epi64x(steps, steps);
        std::arch::asm!(
            "2:",
            "movdqa xmmword ptr [{at}], {values}",
            "paddq {values}, {steps}",
            "add {at}, 16",
            "cmp {at}, {end}",
            "jne 2b",
            at = inout(reg) range.start => _,
            end = in(reg) range.end,
            values = inout(xmm_reg) values => _,
            steps = in(xmm_reg) steps,
            options(nostack),
        );
    }
}

#[cfg(target_arch = "x86_64")]
const PAIR_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn writes_the_series_and_nothing_else() {
        const OTHER: u64 = 0x1234_5678;
        let words: Vec<AtomicU64> = (0..70).map(|_| AtomicU64::new(OTHER)).collect();
        for (first, step) in [(0, 0), (7, 1 << 12), (u64::MAX - 5, 3), (1, u64::MAX)] {
            for start in 0..5 {
                for end in start..words.len() {
                    words.iter().for_each(|word| word.store(OTHER, Relaxed));
                    store_series(&words[start..end], first, step);
                    for (index, word) in words.iter().enumerate() {
                        let index_in = index.wrapping_sub(start) as u64;
                        let expected = first.wrapping_add(step.wrapping_mul(index_in));
                        let inside = (start..end).contains(&index);
                        let expected = if inside { expected } else { OTHER };
                        assert_eq!(word.load(Relaxed), expected, "{index} of {start}..{end}");
                    }
                }
            }
        }
    }
}
