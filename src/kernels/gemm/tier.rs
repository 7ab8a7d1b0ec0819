//! [`Tier`]: what an instruction set brings to matrix products.

use super::element::Element;
use super::format::{Encode, Format};
use super::pack_a::{self, PackA, RowSizes};
use super::packed::Factor;
use super::product::{self, Multiply, Workspace};
use super::tile::Tile;

/// The matrix products of one instruction set: by tiles, for which implementing [`Tile`] is enough,
/// or by other means.
pub(crate) trait Tier: Encode {
    /// NR: columns of a panel.
    fn nr(self) -> usize;

    /// The number of words of a row along `K` is a multiple of this.
    fn k_step(self) -> usize;

    /// Whether words of this format are multiplied as they are, not expanded to a wider format.
    fn multiplies(self, format: Format) -> bool;

    /// How rows are packed that are to be multiplied with `b`; `None` where any number is as good.
    fn row_sizes(self, b: Factor) -> Option<RowSizes>;

    /// Packs rows of `A`.
    fn pack_a<A: Element>(self, pack: PackA<A>);

    /// One rectangle of a product.
    fn product<C: Element>(self, product: Multiply<C>, workspace: &mut Workspace);
}

impl<S: Tile> Tier for S {
    fn nr(self) -> usize {
        S::NR
    }

    fn k_step(self) -> usize {
        S::K_STEP
    }

    fn multiplies(self, format: Format) -> bool {
        self.has_tile(format)
    }

    fn row_sizes(self, b: Factor) -> Option<RowSizes> {
        Some(pack_a::row_sizes(self, b))
    }

    #[inline(always)]
    fn pack_a<A: Element>(self, pack: PackA<A>) {
        pack_a::pack(pack, self);
    }

    #[inline(always)]
    fn product<C: Element>(self, product: Multiply<C>, workspace: &mut Workspace) {
        product::by_tiles(product, self, workspace);
    }
}
