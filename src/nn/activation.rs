//! [`Activation`] → the kernel that computes it.

use crate::config::Activation;
use crate::kernels::activation as kernel;

/// Applies `activation` to each element of `row`.
pub(crate) fn activate(activation: Activation, row: &mut [f32]) {
    match activation {
        Activation::Identity => {}
        Activation::Gelu => kernel::gelu(row),
        Activation::GeluTanh => kernel::gelu_tanh(row),
        Activation::Relu => kernel::relu(row),
        Activation::LeakyRelu => kernel::leaky_relu(row),
        Activation::Silu => kernel::silu(row),
        Activation::Sigmoid => kernel::sigmoid(row),
        Activation::Tanh => kernel::tanh_all(row),
    }
}
