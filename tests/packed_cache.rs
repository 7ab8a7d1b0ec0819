//! The file of packed weights: the same bits from it, and nothing from one that is not right.

mod common;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use common::copy_of_tiny;
use mpnet::{Error, Isa, Precision, SentenceEncoder};
use safetensors::SafeTensors;
use xxhash_rust::xxh3::xxh3_128;

/// The last one is computed in full from 8 bits and what rounding has left.
const TEXTS: [&str; 4] = ["the weather is lovely today", "", "a house by the river", "a </s> b"];

fn embed(model: &Path, cache: Option<&Path>, isa: Isa, precision: Precision) -> Vec<u32> {
    let mut builder = SentenceEncoder::builder(model).isa(isa).precision(precision);
    if let Some(cache) = cache {
        builder = builder.packed_cache(cache);
    }
    let embeddings = builder.build().unwrap().encode(&TEXTS).unwrap();
    embeddings.iter().map(|x| x.to_bits()).collect()
}

/// A model of its own and a place for the cache.
fn setup() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy_of_tiny(&model);
    let cache = folder.path().join("mpnet-packed.bin");
    (folder, model, cache)
}

#[test]
fn written_once_then_mapped_the_same_bits() {
    for &isa in Isa::available() {
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            let (folder, model, cache) = setup();
            let plain = embed(&model, None, isa, precision);
            assert_eq!(embed(&model, Some(&cache), isa, precision), plain, "{isa} {precision}");
            let written = fs::read(&cache).unwrap();
            let stamp = fs::metadata(&cache).unwrap().modified().unwrap();
            assert_eq!(embed(&model, Some(&cache), isa, precision), plain, "{isa} {precision}");
            assert_eq!(
                fs::metadata(&cache).unwrap().modified().unwrap(),
                stamp,
                "not written again"
            );
            assert_eq!(fs::read(&cache).unwrap(), written);
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "nothing else is left there");
        }
    }
}

/// Where in a safetensors file the tensor is whose name ends so.
fn tensor(file: &[u8], name: &str) -> Range<usize> {
    let (header, metadata) = SafeTensors::read_metadata(file).unwrap();
    let tensors = metadata.tensors();
    let (_, info) = tensors.iter().find(|(full, _)| full.ends_with(name)).unwrap();
    let (start, end) = info.data_offsets;
    8 + header + start..8 + header + end
}

/// The checkpoint that a file of packed weights is for, in its header.
fn checkpoint_key(file: &[u8]) -> Range<usize> {
    let key = b"\"checkpoint\":\"";
    let start = file.windows(key.len()).position(|bytes| bytes == key).unwrap() + key.len();
    start..start + 32
}

#[test]
fn a_file_for_other_weights_is_replaced() {
    let (_folder, model, cache) = setup();
    let isa = Isa::detect().unwrap();
    let plain = embed(&model, Some(&cache), isa, Precision::F32);
    let good = fs::read(&cache).unwrap();
    // A model that differs by the sign of the weights of one layer, and its packed weights.
    let other = model.with_file_name("other");
    copy_of_tiny(&other);
    let mut weights = fs::read(other.join("model.safetensors")).unwrap();
    for at in tensor(&weights, "layer.0.output.dense.weight").skip(3).step_by(4) {
        weights[at] ^= 0x80;
    }
    fs::write(other.join("model.safetensors"), weights).unwrap();
    let others = embed(&other, Some(&cache), isa, Precision::F32);
    assert_ne!(others, plain);
    let bad = fs::read(&cache).unwrap();
    assert_eq!(embed(&model, Some(&cache), isa, Precision::F32), plain);
    assert_eq!(fs::read(&cache).unwrap(), good);

    // Forged to be for this model, its weights are taken: they do come from the file.
    let mut forged = bad;
    forged[checkpoint_key(&good)].copy_from_slice(&good[checkpoint_key(&good)]);
    let digest = xxh3_128(&xxh3_128(&forged[32..]).to_le_bytes());
    forged[16..32].copy_from_slice(&digest.to_le_bytes());
    fs::write(&cache, forged).unwrap();
    assert_eq!(embed(&model, Some(&cache), isa, Precision::F32), others);
}

#[test]
fn a_file_for_something_else_is_replaced() {
    let (_folder, model, cache) = setup();
    let isa = Isa::detect().unwrap();
    for precision in [Precision::F32, Precision::Int8, Precision::Bf16] {
        let plain = embed(&model, None, isa, precision);
        assert_eq!(embed(&model, Some(&cache), isa, precision), plain);
    }
    for &isa in Isa::available() {
        let plain = embed(&model, None, isa, Precision::F32);
        assert_eq!(embed(&model, Some(&cache), isa, Precision::F32), plain, "{isa}");
    }
}

#[test]
fn a_damaged_file_is_replaced() {
    let (_folder, model, cache) = setup();
    let isa = Isa::detect().unwrap();
    let plain = embed(&model, Some(&cache), isa, Precision::Int8);
    let good = fs::read(&cache).unwrap();
    // A bit anywhere after the magic: in the preamble, in the header, in the words.
    let places = (8..64).chain((64..good.len()).step_by(good.len() / 50));
    let flipped = places.map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        bytes
    });
    let short = [0, 8, 31, 32, 100, good.len() / 2, good.len() - 1];
    let cut = short.map(|length| good[..length].to_vec());
    let mut longer = good.clone();
    longer.push(0);
    for (case, bytes) in flipped.chain(cut).chain([longer]).enumerate() {
        fs::write(&cache, &bytes).unwrap();
        assert_eq!(embed(&model, Some(&cache), isa, Precision::Int8), plain, "case {case}");
        assert_eq!(fs::read(&cache).unwrap(), good, "case {case}");
    }
}

#[test]
fn a_place_that_cannot_be_written_is_an_error_with_its_path() {
    let (folder, model, _) = setup();
    for cache in [folder.path().join("nowhere/mpnet-packed.bin"), folder.path().to_owned()] {
        let error = SentenceEncoder::builder(&model).packed_cache(&cache).build().unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if *path == cache), "{error:?}");
        assert!(error.to_string().contains(cache.to_str().unwrap()), "{error}");
    }
}
