//! The scalar tier: no tiles, but products by the crate `matrixmultiply`.

use super::element::Element;
use super::epilogue::ApplyEpilogue;
use super::format::{Format, encode_as, expand};
use super::pack_a::{PackA, RowSizes};
use super::packed::Factor;
use super::product::{Multiply, Rectangle, Workspace, contiguous};
use super::tier::Tier;
use crate::kernels::lanes::LANES;
use crate::kernels::simd::Scalar;

impl Tier for Scalar {
    fn nr(self) -> usize {
        1
    }

    fn k_step(self) -> usize {
        1
    }

    fn multiplies(self, format: Format) -> bool {
        format == Format::F32
    }

    fn row_sizes(self, _: Factor) -> Option<RowSizes> {
        None
    }

    fn pack_a<A: Element>(self, mut pack: PackA<A>) {
        let k = pack.b.words() * pack.b.format.values_per_word();
        let format = pack.b.rows_as();
        pack.rows.words.resize(pack.count * k);
        pack.rows.quantization.clear();
        pack.for_each_row(|words, i, row, scaling| {
            encode_as(self, Format::F32, format, scaling, row, &mut words[i * k..(i + 1) * k]);
        });
    }

    #[allow(unsafe_code, reason = "matrixmultiply takes pointers: see the block")]
    fn product<C: Element>(self, product: Multiply<C>, workspace: &mut Workspace) {
        let Multiply { b, epilogue, blocks, rectangle: Rectangle { column, mut out, .. } } =
            product;
        let [rows] = blocks.blocks else { unreachable!("this tier has no blocks of rows") };
        let (m, n) = out.dim();
        let mut out = contiguous(&mut out);
        let words = b.words();
        let k = words * b.format.values_per_word();
        assert_eq!(rows.words.len(), m * k, "as many rows are packed as the rectangle has");
        let Workspace { expanded, accumulators } = workspace;
        /// Columns at once, so that the expanded part of `B` stays small.
        const COLUMNS: usize = 256;
        for start in (0..n).step_by(COLUMNS) {
            let there = COLUMNS.min(n - start);
            let place = (column + start) * words..(column + start + there) * words;
            expanded.resize(there * k);
            let (values, rest) = b.words_in(place);
            expand(Format::F32, b.format, values, rest, 1, expanded);
            // Rows are padded to a multiple of LANES.
            let width = there.next_multiple_of(LANES);
            accumulators.resize(m * width);
            // SAFETY: `rows` holds m rows of k values, `expanded` as many rows of k as there are
            // columns (passed transposed by its strides), and `accumulators` has room for m rows of
            // them, `width` apart; all are contiguous. Their words are the bits of `f32`s, for
            // which `u32` has the size and the alignment.
            unsafe {
                matrixmultiply::sgemm(
                    m,
                    k,
                    there,
                    1.0,
                    rows.words.as_ptr().cast(),
                    k as isize,
                    1,
                    expanded.as_ptr().cast(),
                    1,
                    k as isize,
                    0.0,
                    accumulators.as_mut_ptr().cast(),
                    width as isize,
                    1,
                );
            }
            let quantization = &rows.quantization;
            let finish = ApplyEpilogue { b, epilogue, format: Format::F32, column, quantization };
            for (j, left) in (start..start + there).step_by(LANES).enumerate() {
                let place = left..(left + LANES).min(start + there);
                finish.columns::<LANES, _, _>(
                    self,
                    &mut accumulators[j * LANES..],
                    width,
                    &mut out,
                    place,
                );
            }
        }
    }
}
