//! Rows, [`LANES`] values at a time: how the row kernels see them.
//!
//! Values are copied out of memory before anything is written, and the last ones are padded to a
//! full chunk: then the compiler keeps them in a register. It often does not vectorise a loop that
//! reads one slice while it writes another, since the two might overlap; and it spills sums that a
//! second, shorter loop continues.

/// Lanes of the row kernels: a whole AVX-512 register, and a multiple of every narrower one.
pub(super) const LANES: usize = 16;

pub(super) type Lanes = [f32; LANES];

#[inline(always)]
pub(super) fn map(mut x: Lanes, f: impl Fn(f32) -> f32) -> Lanes {
    // Not `std::array::from_fn`, inside of which the instructions would not be known.
    for x in &mut x {
        *x = f(*x);
    }
    x
}

#[inline(always)]
pub(super) fn zip(mut x: Lanes, y: Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
    for (x, &y) in x.iter_mut().zip(&y) {
        *x = f(*x, y);
    }
    x
}

/// Combines the lanes pairwise: 16 → 8 → 4 → 2 → 1.
#[inline(always)]
pub(super) fn fold(mut lanes: Lanes, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = f(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Shows `see` the values of `row`, the last ones padded with `fill`.
#[inline(always)]
pub(super) fn for_each(row: &[f32], fill: f32, mut see: impl FnMut(Lanes)) {
    let (chunks, tail) = row.as_chunks();
    for &chunk in chunks {
        see(chunk);
    }
    if !tail.is_empty() {
        see(filled_up(tail, fill));
    }
}

/// Replaces the values of `row` by `f` of them, the last ones padded with `fill`.
#[inline(always)]
pub(super) fn update(row: &mut [f32], fill: f32, mut f: impl FnMut(Lanes) -> Lanes) {
    let (chunks, tail) = row.as_chunks_mut();
    for chunk in chunks {
        *chunk = f(*chunk);
    }
    if !tail.is_empty() {
        tail.copy_from_slice(&f(filled_up(tail, fill))[..tail.len()]);
    }
}

/// Replaces the values of `row` by `f` of them and the values of `other`, both padded.
#[inline(always)]
pub(super) fn update_with(
    row: &mut [f32],
    other: &[f32],
    fill: (f32, f32),
    mut f: impl FnMut(Lanes, Lanes) -> Lanes,
) {
    let ((chunks, tail), (others, last)) = (row.as_chunks_mut(), other.as_chunks());
    for (chunk, &other) in chunks.iter_mut().zip(others) {
        *chunk = f(*chunk, other);
    }
    if !tail.is_empty() {
        let new = f(filled_up(tail, fill.0), filled_up(last, fill.1));
        tail.copy_from_slice(&new[..tail.len()]);
    }
}

/// `Σ f(x)` over `row`, in [`LANES`] partial sums that are added pairwise at the end; `f(zero)` is
/// 0.
#[inline(always)]
pub(super) fn sum(row: &[f32], zero: f32, f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0; LANES];
    for_each(row, zero, |x| sums = zip(sums, x, |sum, x| sum + f(x)));
    fold(sums, |a, b| a + b)
}

/// `values`, LANES at most, padded with `fill`.
#[inline(always)]
pub(super) fn filled_up(values: &[f32], fill: f32) -> Lanes {
    let mut lanes = [fill; LANES];
    lanes[..values.len()].copy_from_slice(values);
    lanes
}

/// Lanes of 64-bit words: a whole AVX-512 register.
pub(super) const WORD_LANES: usize = 8;

/// `out[r] = −(bits in which row r differs from query)`; `rows`: groups of [`WORD_LANES`] rows,
/// each group `[query.len()][WORD_LANES]`.
#[inline(always)]
pub(super) fn negative_differing_bits(query: &[u64], rows: &[u64], out: &mut [f32]) {
    let (groups, _) = out.as_chunks_mut::<WORD_LANES>();
    if query.is_empty() {
        groups.as_flattened_mut().fill(0.0);
        return;
    }
    for (group, out) in rows.chunks_exact(query.len() * WORD_LANES).zip(groups) {
        let mut counts = [0_u64; WORD_LANES];
        for (words, &query) in group.as_chunks::<WORD_LANES>().0.iter().zip(query) {
            for (count, &word) in counts.iter_mut().zip(words) {
                *count += u64::from((word ^ query).count_ones());
            }
        }
        for (out, &count) in out.iter_mut().zip(&counts) {
            *out = -(count as i32 as f32);
        }
    }
}
