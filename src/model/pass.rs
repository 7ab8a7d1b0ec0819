//! [`Pass`]: what all layers of one forward pass share.

use super::position_bias::PositionBias;
use crate::batch::Batch;
use crate::kernels::Team;
use crate::nn::Arithmetic;

/// The inputs of every layer beside the hidden states.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) team: &'a Team,
    pub(super) batch: &'a Batch,
    pub(super) bias: &'a PositionBias,
    pub(super) arithmetic: Arithmetic,
}
