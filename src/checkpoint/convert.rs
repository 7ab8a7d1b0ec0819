//! Bytes of a tensor → `f32`, whatever the storage type and alignment.

use half::{bf16, f16};
use rayon::prelude::*;
use safetensors::Dtype;
use zerocopy::FromBytes;

/// Elements converted by one task: large enough to hide the cost of a task, small enough to share a
/// tensor of 768 × 768 among several threads.
const CHUNK: usize = 1 << 16;

/// How many elements of type `dtype` there are; `None` if it is not a type for weights.
pub(super) fn elements(dtype: Dtype, bytes: &[u8]) -> Option<usize> {
    match dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64 => {
            Some(bytes.len() / (dtype.bitsize() / 8))
        }
        _ => None,
    }
}

/// The same without a copy, if the bytes are aligned `f32`s already.
pub(super) fn as_f32(dtype: Dtype, bytes: &[u8]) -> Option<&[f32]> {
    let same = dtype == Dtype::F32 && cfg!(target_endian = "little");
    if same { <[f32]>::ref_from_bytes(bytes).ok() } else { None }
}

/// Converts little-endian elements of type `dtype`, one for which [`elements`] is not `None`, to
/// `f32`. `out` has as many elements as there are.
///
/// The bytes need no alignment: each element is assembled from its own bytes, which compiles to an
/// unaligned load. `F64` is rounded to nearest; the other types convert exactly.
pub(super) fn convert(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        Dtype::F16 => convert_by(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => convert_by(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::F64 => convert_by(bytes, out, |b| f64::from_le_bytes(b) as f32),
        _ => convert_by(bytes, out, f32::from_le_bytes),
    }
}

fn convert_by<const SIZE: usize>(
    bytes: &[u8],
    out: &mut [f32],
    element: impl Fn([u8; SIZE]) -> f32 + Sync,
) {
    let (elements, rest) = bytes.as_chunks::<SIZE>();
    debug_assert!(rest.is_empty(), "the header's check of sizes leaves whole elements");
    out.par_chunks_mut(CHUNK).zip(elements.par_chunks(CHUNK)).for_each(|(out, elements)| {
        for (out, &bytes) in out.iter_mut().zip(elements) {
            *out = element(bytes);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_f32(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
        let mut out = vec![0.0; elements(dtype, bytes)?];
        convert(dtype, bytes, &mut out);
        Some(out)
    }

    #[test]
    fn every_float_type_converts() {
        let values = [0.0_f32, -1.5, 65504.0, 6.103_515_6e-5];
        let f32s: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let f64s: Vec<u8> = values.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect();
        let f16s: Vec<u8> = values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
        assert_eq!(to_f32(Dtype::F32, &f32s).unwrap(), values);
        assert_eq!(to_f32(Dtype::F64, &f64s).unwrap(), values);
        assert_eq!(to_f32(Dtype::F16, &f16s).unwrap(), values);
        // bf16 is the upper half of an f32.
        assert_eq!(to_f32(Dtype::BF16, &[0xC0, 0x3F, 0x80, 0xBF]).unwrap(), [1.5, -1.0]);
        // The smallest subnormal f16 is 2⁻²⁴; infinity stays infinity.
        let special = to_f32(Dtype::F16, &[0x01, 0x00, 0x00, 0x7C]).unwrap();
        assert_eq!(special, [2.0_f32.powi(-24), f32::INFINITY]);
        assert!(to_f32(Dtype::I64, &[0; 8]).is_none());
    }

    #[test]
    fn any_alignment_and_more_than_one_chunk() {
        let values: Vec<f32> = (0..CHUNK + 3).map(|i| i as f32).collect();
        for shift in 0..4 {
            let mut bytes = vec![0; shift];
            bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
            let bytes = &bytes[shift..];
            assert_eq!(to_f32(Dtype::F32, bytes).unwrap(), values);
            if let Some(uncopied) = as_f32(Dtype::F32, bytes) {
                assert_eq!(uncopied, values);
                assert_eq!(bytes.as_ptr() as usize % 4, 0);
            }
        }
    }
}
