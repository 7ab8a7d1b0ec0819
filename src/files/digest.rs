//! [`digest`]: a fingerprint of hundreds of megabytes in some milliseconds.

use std::ops::Range;

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

/// Bytes that one task takes.
const BLOCK: usize = 1 << 20;

/// A fingerprint of `bytes`, computed in parallel and at the speed of memory: that of the
/// fingerprints of their blocks. It tells any two files apart that were not made to deceive. `done`
/// hears of each block when it has been read.
pub(crate) fn digest(bytes: &[u8], done: impl Fn(Range<usize>) + Sync) -> u128 {
    let block = |(index, block): (usize, &[u8])| {
        let digest = xxh3_128(block).to_le_bytes();
        done(index * BLOCK..index * BLOCK + block.len());
        digest
    };
    let blocks: Vec<[u8; 16]> = bytes.par_chunks(BLOCK).enumerate().map(block).collect();
    xxh3_128(blocks.as_flattened())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_and_the_length_count() {
        let bytes: Vec<u8> = (0..BLOCK * 2 + 5).map(|i| (i * 7 % 251) as u8).collect();
        let whole = digest(&bytes, |_| {});
        assert_eq!(digest(&bytes, |_| {}), whole);
        assert_ne!(digest(&bytes[..bytes.len() - 1], |_| {}), whole);
        for at in [0, BLOCK - 1, BLOCK, bytes.len() - 1] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(digest(&other, |_| {}), whole, "{at}");
        }
        // Two blocks in each other's place.
        let mut other = bytes[BLOCK..2 * BLOCK].to_vec();
        other.extend(&bytes[..BLOCK]);
        other.extend(&bytes[2 * BLOCK..]);
        assert_ne!(digest(&other, |_| {}), whole);
    }
}
