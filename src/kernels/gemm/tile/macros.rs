//! The loops of a micro-kernel of vector instructions.

/// Defines a tile by the initial value of its accumulators, how they are loaded and stored, how a
/// word of `a` is broadcast, how words of `b` are loaded, and the multiply-add. `NR`, `WIDTH` and
/// `LANES` are those of the module that uses it.
macro_rules! define_tile {
    ($name:ident, $features:literal, $zero:expr, $load:expr, $store:expr, $broadcast:expr, $load_b:expr, $fma:expr) => {
        #[target_feature(enable = $features)]
        #[allow(unsafe_code, reason = "loads and stores by pointer: see the blocks")]
        fn $name<const M: usize>(
            a: BlockA,
            top: usize,
            b: &[u32],
            c: &mut [u32],
            accumulate: bool,
            ahead: Prefetch,
        ) {
            let (c, _) = c.as_chunks_mut::<NR>();
            // That there are M rows is known when this is compiled: the sums then never leave the
            // registers.
            let c: &mut [_; M] = c.try_into().expect("as many rows of `c` as of `a`");
            let mut sums = [[$zero; WIDTH]; M];
            if accumulate {
                for (sums, c) in sums.iter_mut().zip(c.iter()) {
                    for (w, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: `c` has WIDTH · LANES words, of which these are LANES from w ·
                        // LANES on.
                        *sum = unsafe { $load(c.as_ptr().add(w * LANES).cast()) };
                    }
                }
            }
            let mut ahead = ahead.over(b.len() / NR);
            for (chunk, b) in b.chunks(KC * NR).enumerate() {
                let a: &[_; M] = a.chunk(chunk)[top..][..M].try_into().expect("M rows");
                // The rows of the next tile: so many words of each step are as many as it has
                // there.
                let mut rows = PrefetchSteps { at: a.as_ptr_range().end.cast(), stride: M };
                let (b, _) = b.as_chunks::<NR>();
                for (p, b) in b.iter().take(KC).enumerate() {
                    ahead.fetch();
                    rows.fetch_line();
                    let load = |w: usize| {
                        // SAFETY: as above, for `b`.
                        unsafe { $load_b(b.as_ptr().add(w * LANES).cast()) }
                    };
                    let b: [_; WIDTH] = std::array::from_fn(load);
                    for (sums, a) in sums.iter_mut().zip(a) {
                        let a = $broadcast(a[p]);
                        for (sum, &b) in sums.iter_mut().zip(&b) {
                            *sum = $fma(*sum, a, b);
                        }
                    }
                }
            }
            for (c, sums) in c.iter_mut().zip(&sums) {
                for (w, &sum) in sums.iter().enumerate() {
                    // SAFETY: as above; nothing else refers to `c` while it is borrowed.
                    unsafe { $store(c.as_mut_ptr().add(w * LANES).cast(), sum) };
                }
            }
        }
    };
}

/// Calls `$tile::<M>` for `$rows` rows, which are at most 12.
macro_rules! tile_of_height {
    ($tile:ident, $rows:expr, $arguments:tt, $($m:literal)*) => {
        match $rows {
            $($m => $tile::<$m> $arguments,)*
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
}
