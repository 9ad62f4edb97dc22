//! How fast shared memory is copied, beside `memcpy` between private buffers of the same size. Run
//! with `--release`.

use std::hint::black_box;
use std::time::Instant;

use bindery_mem::Pages;

const TOTAL_BYTES: usize = 1 << 30;

fn main() -> std::io::Result<()> {
    println!("{:>10}  {:>9}  {:>9}  {:>9}", "bytes", "read", "write", "memcpy   (GB/s)");
    for length in [64, 4096, 64 << 10, 2 << 20, 64 << 20] {
        let pages = Pages::anonymous(length)?;
        let (source, mut buffer) = (vec![1_u8; length], vec![0_u8; length]);
        pages.fill(0, length, 1);
        let read = gigabytes_per_second(length, || pages.read(0, black_box(&mut buffer)));
        let write = gigabytes_per_second(length, || pages.write(0, black_box(&source)));
        let plain = gigabytes_per_second(length, || {
            black_box(&mut buffer).copy_from_slice(black_box(&source));
        });
        println!("{length:>10}  {read:>9.1}  {write:>9.1}  {plain:>9.1}");
    }
    Ok(())
}

/// The best of a few rounds.
fn gigabytes_per_second(length: usize, mut copy: impl FnMut()) -> f64 {
    let copies = TOTAL_BYTES / length / 4;
    let mut best = f64::MAX;
    for _ in 0..4 {
        let began = Instant::now();
        for _ in 0..copies {
            copy();
        }
        best = best.min(began.elapsed().as_secs_f64());
    }
    (copies * length) as f64 / best / 1e9
}
