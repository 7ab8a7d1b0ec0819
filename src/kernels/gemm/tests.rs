//! Every instruction set and precision against `f64`, and the promise that a row's bits depend on
//! nothing but the row.

use half::bf16;
use ndarray::{Array2, ArrayView1, s};

use super::*;
use crate::kernels::isa::Isa;
use crate::kernels::memory::Arena;
use crate::kernels::{Precision, assert_same_class, reference};

/// Those of this machine, and one with tiles that every machine has.
fn every_isa() -> Vec<Isa> {
    Isa::available().iter().copied().chain([Isa::portable()]).collect()
}

fn matrix(rows: usize, columns: usize, seed: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| ((i * 31 + j * 7 + seed) as f32).sin())
}

fn exact(a: &Array2<f32>, b: &Array2<f32>) -> Array2<f64> {
    reference::matmul(a.view(), b.view(), Epilogue::None)
}

/// The relative error of a product of factors that are split into two bf16: either misses up to
/// 2⁻¹⁸ of itself (bf16 rounds by up to 2⁻⁹, and so does the remainder), and the product of the two
/// lower halves, as small, is omitted.
const SPLIT: f64 = 3.0 / (1 << 18) as f64;

/// The exact product of what `a` and `b` are rounded to, and how far a result may be from it.
fn expected(
    isa: Isa,
    precision: Precision,
    a: &Array2<f32>,
    b: &Array2<f32>,
) -> (Array2<f64>, Array2<f64>) {
    let k = a.ncols() as f64;
    let round = |x: &Array2<f32>| match precision {
        Precision::Bf16 => reference::to_bf16(x.view()),
        _ => x.clone(),
    };
    let (a, b) = (round(a), round(b));
    // Each of k additions rounds a partial sum that is at most Σ|a·b|: by half an epsilon of it, k
    // times in the worst case, √k times if the roundings are independent. Twice that is allowed.
    let size = exact(&a.mapv(f32::abs), &b.mapv(f32::abs));
    let mut tolerance = &size * f64::from(f32::EPSILON) * k.sqrt();
    if precision == Precision::F32 && isa.splits_f32() {
        tolerance += &(size * SPLIT);
    }
    if precision == Precision::Int8 {
        // A value is off by half a step of its row, so a product by |a|·δb + |b|·δa + δa·δb.
        let largest = |row: ArrayView1<f32>| row.fold(0.0_f32, |max, x| max.max(x.abs()));
        let range = |row: ArrayView1<f32>| {
            let (low, high) = row.fold((f32::MAX, f32::MIN), |(l, h), &x| (l.min(x), h.max(x)));
            (high - low).max(0.0)
        };
        for ((i, j), tolerance) in tolerance.indexed_iter_mut() {
            let (row, column) = (a.row(i), b.row(j));
            let (da, db) = (range(row) / 510.0, largest(column) / 254.0);
            let (sa, sb) = (row.mapv(f32::abs).sum(), column.mapv(f32::abs).sum());
            let step = sa * db + sb * da + k as f32 * da * db;
            *tolerance += f64::from(step) * 1.001;
        }
    }
    (exact(&a, &b), tolerance)
}

#[test]
fn every_isa_agrees_with_f64_in_every_precision_for_shapes_around_the_tiles() {
    for &(m, n, k) in &[
        (1, 1, 1),
        (1, 768, 768),
        (2, 3, 5),
        (5, 15, 8),
        (6, 16, 191),
        (7, 17, 192),
        (11, 31, 193),
        (12, 32, 256),
        (13, 33, 384),
        (25, 65, 385),
        (65, 130, 301),
        (180, 100, 768),
        (50, 40, 3072),
        (3, 5, 0),
        (0, 5, 3),
        (3, 0, 5),
    ] {
        let (a, b) = (matrix(m, k, 1), matrix(n, k, 2));
        for precision in Precision::ALL {
            for isa in every_isa() {
                let (want, tolerance) = expected(isa, precision, &a, &b);
                let b = PackedMatrix::new(isa, precision, b.view());
                let mut got = Array2::from_elem((m, n), f32::NAN);
                matmul(a.view(), &b, &mut got.view_mut());
                for ((got, want), tolerance) in got.iter().zip(&want).zip(&tolerance) {
                    let distance = (f64::from(*got) - want).abs();
                    assert!(
                        distance <= *tolerance,
                        "{isa}, {precision}, {m}×{n}×{k}: {got} {want}, allowed {tolerance}"
                    );
                }
                let mut shared = Array2::from_elem((m, n), f32::NAN);
                par_matmul(&Team::gather(), a.view(), &b, shared.view_mut(), Epilogue::None);
                assert_eq!(got, shared, "{isa}, {precision}, {m}×{n}×{k}");
            }
        }
    }
}

#[test]
fn rows_that_are_hard_to_quantise() {
    // Constant rows, zeros, one outlier, and a range that does not include zero.
    let rows = [[0.0; 4], [3.0; 4], [-2.0; 4], [0.01, -0.02, 500.0, 0.03], [7.0, 7.5, 8.0, 9.0]];
    let a = Array2::from_shape_fn((5, 4), |(i, j)| rows[i][j]);
    let b = Array2::from_shape_fn((5, 4), |(i, j)| rows[4 - i][j] - 1.0);
    for isa in every_isa() {
        let (want, tolerance) = expected(isa, Precision::Int8, &a, &b);
        let b = PackedMatrix::new(isa, Precision::Int8, b.view());
        let mut got = Array2::<f32>::zeros((5, 5));
        matmul(a.view(), &b, &mut got.view_mut());
        for ((got, want), tolerance) in got.iter().zip(&want).zip(&tolerance) {
            assert!((f64::from(*got) - want).abs() <= tolerance + 1e-6, "{isa}: {got} {want}");
        }
    }
}

/// NaN and ∞ in either factor, at the edges of tiles and panels.
#[test]
fn nan_and_infinities_come_out_as_in_the_reference() {
    const SPECIAL: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let (m, n, k) = (14, 35, 200);
    let finite = (matrix(m, k, 1), matrix(n, k, 2));
    for (i, j, p) in [(0, 0, 0), (13, 34, 199), (6, 16, 192)] {
        for (x, y) in SPECIAL.into_iter().flat_map(|x| [(x, 1.0), (1.0, x), (x, 0.0), (0.0, x)]) {
            let (mut a, mut b) = finite.clone();
            (a[[i, p]], b[[j, p]]) = (x, y);
            let bias: Vec<f32> = (0..n).map(|j| j as f32).collect();
            for activation in [Activation::Identity, Activation::Gelu] {
                let epilogue = Epilogue::Bias(&bias, activation);
                let want = reference::matmul(a.view(), b.view(), epilogue);
                for isa in every_isa() {
                    for precision in Precision::ALL {
                        let product = |a: &Array2<f32>, b: &Array2<f32>| {
                            let b = PackedMatrix::new(isa, precision, b.view());
                            let mut out = Array2::<f32>::zeros((m, n));
                            par_matmul(&Team::alone(), a.view(), &b, out.view_mut(), epilogue);
                            out
                        };
                        let got = product(&a, &b);
                        let what = format!(
                            "{isa}, {precision}, {activation:?}: {x} · {y} at {i}, {j}, {p}"
                        );
                        if precision == Precision::Int8 {
                            // Integers have neither NaN nor ∞; but no other element may change.
                            let (mut a, mut b) = (a.clone(), b.clone());
                            a[[i, p]] = finite.0[[i, p]];
                            b[[j, p]] = finite.1[[j, p]];
                            let clean = product(&a, &b);
                            let outside = |(r, c): (usize, usize)| r != i && c != j;
                            for (at, got) in got.indexed_iter().filter(|&(at, _)| outside(at)) {
                                assert_eq!(*got, clean[at], "{what}, element {at:?}");
                            }
                        } else if isa.splits_f32() && precision == Precision::F32 {
                            // ∞ · (high + low) is NaN where the low half is 0.
                            for (got, want) in got.iter().zip(&want) {
                                assert_eq!(
                                    got.is_finite(),
                                    want.is_finite(),
                                    "{what}: {got} {want}"
                                );
                            }
                        } else {
                            let want = want.as_slice().expect("contiguous");
                            let got = got.as_slice().expect("contiguous");
                            assert_same_class(got, want, format_args!("{what}"));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn strided_views_and_memory_used_again() {
    let (a, b) = (matrix(10, 12, 1), matrix(20, 12, 2));
    let (a, b) = (a.slice(s![2..9, 4..8]), b.slice(s![3..8;2, 4..8]));
    let (a_owned, b_owned) = (a.to_owned(), b.to_owned());
    for isa in every_isa() {
        let (want, tolerance) = expected(isa, Precision::F32, &a_owned, &b_owned);
        let mut packed = PackedMatrix::empty(isa, Precision::F32);
        packed.repack(matrix(40, 50, 3).view());
        packed.repack(b);
        let mut wide = Array2::<f32>::zeros((9, 9));
        matmul(a, &packed, &mut wide.slice_mut(s![1..8, 2..5]));
        for ((i, j), want) in want.indexed_iter() {
            let distance = (f64::from(wide[[i + 1, j + 2]]) - want).abs();
            assert!(distance <= tolerance[[i, j]], "{isa}: off by {distance}");
        }
        assert_eq!(wide.row(0).sum() + wide.row(8).sum() + wide.column(5).sum(), 0.0);
    }
}

/// One column of `A` a hundred times as large as the others, one of none.
#[test]
fn balanced_columns_lose_less_to_integers() {
    let size = |j: usize| [1.0, 100.0, 1.0, 0.0][j % 4];
    let a = Array2::from_shape_fn((7, 64), |(i, j)| ((i * 31 + j * 7) as f32).sin() * size(j));
    let b = matrix(9, 64, 2);
    let magnitudes: Vec<f32> = (0..64).map(size).collect();
    let want = exact(&a, &b);
    for isa in every_isa() {
        let distance = |b: PackedMatrix| {
            let mut got = Array2::<f32>::zeros((7, 9));
            matmul(a.slice(s![.., ..;1]), &b, &mut got.view_mut());
            (got.mapv(f64::from) - &want).mapv(|x| x * x).sum().sqrt()
        };
        let plain = distance(PackedMatrix::new(isa, Precision::Int8, b.view()));
        let weights = |precision| {
            let (b, arena) = ([b.view()], Arena::default());
            PackedMatrix::weights(isa, precision, &b, Some(&magnitudes), false, &arena)
        };
        let balanced = distance(weights(Precision::Int8));
        assert!(balanced < 0.6 * plain, "{isa}: {balanced}, without {plain}");
        let f32 = distance(weights(Precision::F32));
        assert!(f32 < 0.05 * balanced, "{isa}: {f32}");
    }
}

/// One weight twenty times as large as the others of its row.
#[test]
fn a_large_weight_leaves_the_others_of_its_row_their_digits() {
    for k in [3072, 3333] {
        // Values that become integers without a rest, so that only weights are rounded.
        let a = Array2::from_shape_fn((7, k), |(i, j)| match j {
            0 => 0.0,
            1 => 255.0,
            _ => ((i * 31 + j * 7) % 256) as f32,
        });
        let mut b = matrix(9, k, 2);
        b[[4, k / 2]] = 20.0;
        let want = exact(&a, &b);
        for isa in every_isa() {
            let distance = |b: &PackedMatrix| {
                let mut got = Array2::<f32>::zeros((7, 9));
                matmul(a.view(), b, &mut got.view_mut());
                let difference = got.mapv(f64::from) - &want;
                difference.column(4).mapv(|x| x * x).sum().sqrt()
            };
            let plain = distance(&PackedMatrix::new(isa, Precision::Int8, b.view()));
            let arena = Arena::default();
            let b = PackedMatrix::weights(isa, Precision::Int8, &[b.view()], None, false, &arena);
            let spread = distance(&b);
            assert!(spread < 0.3 * plain, "{isa}, {k}: {spread}, in one integer {plain}");
            assert_eq!(b.peaks()[4], 20.0);
            let rounded = matrix(7, k, 1).mapv(bf16::from_f32);
            let mut of_bf16 = Array2::<f32>::zeros((7, 9));
            let mut of_f32 = of_bf16.clone();
            matmul(rounded.view(), &b, &mut of_bf16.view_mut());
            matmul(rounded.mapv(bf16::to_f32).view(), &b, &mut of_f32.view_mut());
            assert_eq!(of_bf16, of_f32, "{isa}, {k}");
        }
    }
}

#[test]
fn parts_that_name_a_column_that_is_not_there() {
    let (b, isa, arena) = (matrix(9, 3072, 2), Isa::available()[0], Arena::default());
    let magnitudes = Some(&[1.0; 3072][..]);
    let b = PackedMatrix::weights(isa, Precision::Int8, &[b.view()], magnitudes, true, &arena);
    let keep = |words: &[u32]| arena.words(words.len(), |kept| kept.copy_from_slice(words));
    let parts = || b.parts().map(keep);
    let of = |parts| PackedMatrix::from_parts(isa, Precision::Int8, (9, 3072), parts);
    assert_eq!(of(parts()).unwrap().parts(), b.parts());
    let mut wrong = parts();
    let [.., repeated, rest] = &mut wrong;
    *repeated = keep(&vec![3072; repeated.len()]);
    assert!(!rest.is_empty() && of(wrong).is_none());
    let mut wrong = parts();
    let [values, .., rest] = &mut wrong;
    *rest = keep(&values[1..]);
    assert!(of(wrong).is_none());
}

/// Weights with their rounding errors, and rows that are not rounded.
#[test]
fn integers_multiplied_in_full_are_nearly_the_weights() {
    for (m, n, k) in [(1, 40, 30), (7, 33, 70), (70, 9, 3072), (600, 70, 333)] {
        let (a, mut b) = (matrix(m, k, 1), matrix(n, k, 2));
        b[[n / 2, k / 2]] = 20.0;
        let want = exact(&a, &b);
        let magnitudes: Vec<f32> = (0..k).map(|j| 1.0 + (j % 5) as f32).collect();
        for (isa, magnitudes) in
            every_isa().into_iter().flat_map(|isa| [(isa, None), (isa, Some(&*magnitudes))])
        {
            let (what, arena) = (format!("{isa}, {m} × {n} × {k}"), Arena::default());
            let weights = |rest| {
                let b = [b.view()];
                PackedMatrix::weights(isa, Precision::Int8, &b, magnitudes, rest, &arena)
            };
            let multiply = |a: ArrayView2<f32>, b: Factor| {
                let mut got = Array2::<f32>::zeros((a.nrows(), n));
                par_matmul(&Team::gather(), a, b, got.view_mut(), Epilogue::None);
                got
            };
            let distance =
                |got: &Array2<f32>| (got.mapv(f64::from) - &want).mapv(|x| x * x).sum().sqrt();
            let (plain, b) = (weights(false), weights(true));
            let rounded = multiply(a.view(), Factor::from(&plain));
            // The integers are the same, and without the rest there is nothing to multiply in full.
            assert_eq!(multiply(a.view(), Factor::from(&b)), rounded, "{what}");
            assert_eq!(multiply(a.view(), plain.in_full()), rounded, "{what}");
            let full = multiply(a.view(), b.in_full());
            // The steps of the weights are 254 times as fine, and rows are not rounded at all.
            let (full_off, off) = (distance(&full), distance(&rounded));
            assert!(full_off < off / 100.0, "{what}: {full_off}, on integers {off}");
            let last = multiply(a.slice(s![m - 1.., ..]), b.in_full());
            assert_eq!(last.row(0), full.row(m - 1), "{what}: a row alone");
        }
    }
}

/// Deeper than 8-bit terms can be added up in 32 bits without overflow.
#[test]
fn a_product_too_deep_for_integers() {
    let k = 70_000;
    // All but one value at the top of its range, all weights at theirs.
    let a = Array2::from_shape_fn((1, k), |(_, p)| if p == 0 { 0.0 } else { 1.0 });
    let b = Array2::ones((1, k));
    for isa in every_isa() {
        let b = PackedMatrix::new(isa, Precision::Int8, b.view());
        let mut got = Array2::<f32>::zeros((1, 1));
        matmul(a.view(), &b, &mut got.view_mut());
        // In `f32` equal terms round the same way each time: by k · ε/2 of the sum in the worst
        // case. An overflow would be off by more than the sum itself.
        assert!((got[[0, 0]] - 69_999.0).abs() < 292.0, "{isa}: {got}");
    }
}

/// The promise that the whole crate rests on.
#[test]
fn a_row_has_the_same_bits_in_any_product_and_with_any_number_of_threads() {
    let (a, b) = (matrix(380, 768, 3), matrix(900, 768, 4));
    let every = |isa: Isa| Precision::ALL.map(|precision| (isa, precision));
    for (isa, precision) in every_isa().into_iter().flat_map(every) {
        let b = PackedMatrix::new(isa, precision, b.view());
        let mut whole = Array2::<f32>::zeros((380, 900));
        matmul(a.view(), &b, &mut whole.view_mut());
        for i in [0, 1, 7, 11, 12, 63, 64, 170, 379] {
            let mut row = Array2::<f32>::zeros((1, 900));
            matmul(a.slice(s![i..=i, ..]), &b, &mut row.view_mut());
            assert_eq!(row.row(0), whole.row(i), "{isa}, {precision}: row {i} alone");
        }
        for threads in [1, 2, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for m in [13, 380] {
                let mut shared = Array2::<f32>::zeros((m, 900));
                let rows = a.slice(s![..m, ..]);
                pool.install(|| {
                    par_matmul(&Team::gather(), rows, &b, shared.view_mut(), Epilogue::None)
                });
                let want = whole.slice(s![..m, ..]);
                assert_eq!(shared, want, "{isa}, {precision}: {threads} threads");
            }
        }
    }
}

/// The same of rows of bf16, into bf16, with bias and activation.
#[test]
fn a_row_of_bf16_has_the_same_bits_in_any_product_and_with_any_number_of_threads() {
    let (a, b) = (matrix(380, 770, 3).mapv(bf16::from_f32), matrix(333, 770, 4));
    let bias: Vec<f32> = (0..333).map(|j| (j as f32).cos()).collect();
    let epilogue = Epilogue::Bias(&bias, Activation::Gelu);
    let every = |isa: Isa| Precision::ALL.map(|precision| (isa, precision));
    for (isa, precision) in every_isa().into_iter().flat_map(every) {
        let b = PackedMatrix::new(isa, precision, b.view());
        let product = |threads: usize, rows: std::ops::Range<usize>| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut out = Array2::from_elem((rows.len(), 333), bf16::NAN);
            let a = a.slice(s![rows, ..]);
            pool.install(|| par_matmul(&Team::gather(), a, &b, out.view_mut(), epilogue));
            out
        };
        let whole = product(1, 0..380);
        for (threads, rows) in [(1, 11..12), (2, 0..13), (2, 0..380), (3, 5..200), (8, 0..380)] {
            let want = whole.slice(s![rows.clone(), ..]);
            assert_eq!(product(threads, rows.clone()), want, "{isa}, {precision}: {rows:?}");
        }
    }
}

#[test]
#[should_panic(expected = "a bias of 3 for 4 columns")]
fn a_bias_that_is_too_short() {
    let isa = Isa::available()[0];
    let (a, b) = (matrix(2, 5, 1), PackedMatrix::new(isa, Precision::F32, matrix(4, 5, 2).view()));
    let mut out = Array2::<f32>::zeros((2, 4));
    let epilogue = Epilogue::Bias(&[0.0; 3], Activation::Identity);
    par_matmul(&Team::alone(), a.view(), &b, out.view_mut(), epilogue);
}

#[test]
fn the_epilogue_sees_every_element_once() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let (a, b) = (Array2::<f32>::zeros((70, 200)), Array2::<f32>::zeros((130, 200)));
    let bias: Vec<f32> = (0..130).map(|j| j as f32 - 65.0).collect();
    for isa in every_isa() {
        let b = PackedMatrix::new(isa, Precision::F32, b.view());
        let mut out = Array2::<f32>::zeros((70, 130));
        let epilogue = Epilogue::Bias(&bias, Activation::Relu);
        pool.install(|| par_matmul(&Team::gather(), a.view(), &b, out.view_mut(), epilogue));
        for ((_, j), &x) in out.indexed_iter() {
            assert_eq!(x, bias[j].max(0.0), "{isa}");
        }
    }
}

#[test]
fn cuts_leave_no_empty_piece() {
    for isa in every_isa() {
        for (m, n) in [(1, 1), (1, 3072), (3, 2), (600, 768), (2048, 768), (5, 100_000), (13, 770)]
        {
            let b = PackedMatrix::new(isa, Precision::F32, Array2::<f32>::zeros((n, 64)).view());
            for threads in [1, 2, 3, 8, 64] {
                let mut out = Array2::<f32>::zeros((m, n));
                let pieces =
                    Cuts::new(Factor::from(&b), m, threads).rectangles(out.view_mut(), isa.nr());
                assert!(pieces.iter().all(|piece| !piece.out.is_empty()), "{isa} {m}×{n}");
                assert_eq!(pieces.iter().map(|piece| piece.out.len()).sum::<usize>(), m * n);
            }
        }
    }
}

/// Rows of bf16 are multiplied by their values, and results are rounded once.
#[test]
fn rows_of_bf16_are_their_values() {
    let round = |x: &Array2<f32>| x.mapv(bf16::from_f32);
    let widen = |x: &Array2<bf16>| x.mapv(bf16::to_f32);
    for &(m, n, k) in
        &[(1, 3, 5), (2, 3, 0), (0, 3, 2), (13, 33, 64), (30, 100, 387), (70, 32, 800)]
    {
        let (a, b) = (round(&matrix(m, k, 1)), round(&matrix(n, k, 2)));
        let (wide_a, wide_b, across) =
            (widen(&a), widen(&b), b.t().as_standard_layout().to_owned());
        let every = |isa: Isa| Precision::ALL.map(|precision| (isa, precision));
        for (isa, precision) in every_isa().into_iter().flat_map(every) {
            let what = format!("{isa}, {precision}, {m}×{n}×{k}");
            let packed = PackedMatrix::new(isa, precision, wide_b.view());
            let mut repacked = PackedMatrix::empty(isa, precision);
            repacked.repack(b.view());
            assert_eq!(packed.parts(), repacked.parts(), "{what}");
            repacked.repack_transposed(across.view());
            assert_eq!(packed.parts(), repacked.parts(), "{what}, transposed");

            let bias: Vec<f32> = (0..n).map(|j| (j as f32).cos()).collect();
            for epilogue in [Activation::Identity, Activation::Gelu]
                .map(|activation| Epilogue::Bias(&bias, activation))
            {
                let team = Team::gather();
                let mut want = Array2::<f32>::zeros((m, n));
                par_matmul(&team, wide_a.view(), &packed, want.view_mut(), epilogue);
                let mut got = Array2::<f32>::zeros((m, n));
                par_matmul(&team, a.view(), &packed, got.view_mut(), epilogue);
                assert_eq!(got, want, "{what}");
                // Rows whose values are not contiguous.
                let strided = a.t().as_standard_layout().to_owned();
                par_matmul(&team, strided.t(), &packed, got.view_mut(), epilogue);
                assert_eq!(got, want, "{what}, strided");
                // Columns of a wider array, and rows of it: nothing beside them changes.
                let mut wide = Array2::from_elem((m + 2, n + 2), bf16::NAN);
                let mut rounded = wide.slice_mut(s![1..=m, 1..=n]);
                par_matmul(&team, a.view(), &packed, rounded.view_mut(), epilogue);
                assert_eq!(rounded, round(&want), "{what}");
                assert_eq!(wide.iter().filter(|x| x.is_nan()).count(), 2 * (m + n + 2), "{what}");
            }
        }
    }
}

/// What [`LAYOUT`] 3 packs: instruction set, precision, hash of the packed matrices. If the packing
/// has to change, raise `LAYOUT` and put the new hashes here, under the new number.
const PACKED_BY_LAYOUT_3: [(&str, Precision, u64); 12] = [
    ("scalar", Precision::F32, 0x6953_b63b_0a50_d0cd),
    ("scalar", Precision::Bf16, 0x299a_2796_e00f_4f3c),
    ("scalar", Precision::Int8, 0x7662_2e82_a178_49de),
    ("avx2", Precision::F32, 0xd0c9_f6e4_f9bb_eaff),
    ("avx2", Precision::Bf16, 0xd2fc_bd88_b25d_d4b3),
    ("avx2", Precision::Int8, 0x451d_3efd_2a54_512e),
    ("avx512", Precision::F32, 0x4852_4746_11e9_d4db),
    ("avx512", Precision::Bf16, 0x17ac_86cb_e34e_240c),
    ("avx512", Precision::Int8, 0x1740_2bba_a238_1999),
    ("amx", Precision::F32, 0xdcd6_80c7_f838_56f7),
    ("amx", Precision::Bf16, 0x3ac4_d665_ba31_50ea),
    ("amx", Precision::Int8, 0x9389_890b_da14_eac0),
];

#[test]
fn a_change_of_what_is_packed_comes_with_a_new_layout() {
    const { assert!(LAYOUT == 3, "the hashes below are those of layout 3") };
    // Numbers of which every machine has the same bits, and of some size for each of the three
    // formats.
    let number = |i: usize, j: usize| ((i * 37 + j * 101 + i * j) % 1021) as f32 / 64.0 - 7.0;
    let hash = |isa: Isa, precision: Precision| {
        let mut bytes = Vec::new();
        for (n, k) in [(70, 130), (3, 64), (33, 7)] {
            let b = Array2::from_shape_fn((n, k), |(i, j)| number(i, j));
            let magnitudes: Vec<f32> = (0..k).map(|j| 1.0 + number(j, 3).abs()).collect();
            for magnitudes in [None, Some(&*magnitudes)] {
                let arena = Arena::default();
                let rest = magnitudes.is_some();
                let b = [b.view()];
                let packed = PackedMatrix::weights(isa, precision, &b, magnitudes, rest, &arena);
                for part in packed.parts() {
                    bytes.extend((part.len() as u64).to_le_bytes());
                    bytes.extend(part.iter().flat_map(|word| word.to_le_bytes()));
                }
            }
        }
        xxhash_rust::xxh3::xxh3_64(&bytes)
    };
    #[allow(unused_mut, reason = "nothing is added on other architectures")]
    let mut tiers = Isa::available().to_vec();
    #[cfg(target_arch = "x86_64")]
    tiers.extend(Isa::amx_to_pack().filter(|amx| !tiers.contains(amx)));
    let names: Vec<&str> = tiers.iter().map(|isa| isa.name()).collect();
    println!("packed for {}", names.join(", "));
    let mut changed = Vec::new();
    for (name, precision, want) in PACKED_BY_LAYOUT_3 {
        let Some(&isa) = tiers.iter().find(|isa| isa.name() == name) else { continue };
        let found = hash(isa, precision);
        if found != want {
            changed.push(format!("{name} {precision}: {found:#018x}"));
        }
    }
    assert!(changed.is_empty(), "packed otherwise than by layout {LAYOUT}: {changed:#?}");
}
