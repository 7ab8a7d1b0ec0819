//! What several tests share: the data, and a comparison that says where it failed.

#![allow(dead_code, reason = "each test file uses a part of this module")]
#![allow(unreachable_pub, reason = "a module of every test crate, public in none")]

pub mod search;

use std::path::{Path, PathBuf};

use mpnet::Isa;
use mpnet::ndarray::{ArrayD, ArrayView1, ArrayViewD, IxDyn};
use safetensors::SafeTensors;
use serde::de::DeserializeOwned;

/// `tests/data/name`
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The tiny model, in the layout of sentence-transformers: 605 tokens, width 32, 4 heads, 3 layers.
pub fn tiny() -> PathBuf {
    data("tiny")
}

/// A copy of [`tiny`], to be changed: `folder` must not exist yet.
pub fn copy_of_tiny(folder: &Path) {
    use std::fs;

    fs::create_dir(folder).unwrap();
    for entry in fs::read_dir(tiny()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        } else {
            fs::create_dir(folder.join(entry.file_name())).unwrap();
            for file in fs::read_dir(entry.path()).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), folder.join(entry.file_name()).join(file.file_name()))
                    .unwrap();
            }
        }
    }
}

pub fn read(name: &str) -> Vec<u8> {
    std::fs::read(data(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn json<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The reference's float64 results, by name.
pub struct Goldens(Vec<u8>);

impl Goldens {
    pub fn open() -> Self {
        Self::named("goldens.safetensors")
    }

    pub fn named(file: &str) -> Self {
        Self(read(file))
    }

    pub fn get(&self, name: &str) -> ArrayD<f64> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(tensor.dtype(), safetensors::Dtype::F64);
        let (values, _) = tensor.data().as_chunks();
        let values = values.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect();
        ArrayD::from_shape_vec(IxDyn(tensor.shape()), values).unwrap()
    }
}

/// A text of `goldens.json` with the reference's token ids.
#[derive(serde::Deserialize)]
pub struct Text {
    pub text: String,
    pub ids: Vec<u32>,
}

/// The texts of `goldens.json`.
pub fn texts() -> Vec<Text> {
    #[derive(serde::Deserialize)]
    struct File {
        texts: Vec<Text>,
    }
    json::<File>("goldens.json").texts
}

/// Fails with the worst element if `got` is anywhere further than `tolerance` from `want`; returns
/// the largest distance.
#[track_caller]
pub fn assert_close(
    what: &str,
    got: ArrayViewD<f32>,
    want: ArrayViewD<f64>,
    tolerance: f64,
) -> f64 {
    assert_eq!(got.shape(), want.shape(), "{what}: shape");
    let distances = got.indexed_iter().zip(&want).map(|((at, &got), &want)| {
        // A NaN compares as the furthest.
        ((f64::from(got) - want).abs(), at, got, want)
    });
    let Some((distance, at, got, want)) = distances.max_by(|a, b| a.0.total_cmp(&b.0)) else {
        return 0.0;
    };
    assert!(
        distance <= tolerance,
        "{what}: at {at:?} got {got}, want {want}: off by {distance:e}, allowed {tolerance:e}"
    );
    distance
}

/// [`assert_close`] for numbers that no promise is made of, on the instruction set that is used if
/// none is asked for.
#[track_caller]
pub fn assert_near(what: &str, got: ArrayViewD<f32>, want: ArrayViewD<f64>, tolerance: f64) -> f64 {
    assert_close(what, got, want, allowed(Isa::detect().unwrap(), tolerance))
}

/// What is allowed on `isa` where `tolerance` is for products of `f32`. On AMX each factor keeps 16
/// bits of 24 and is rounded 2⁸ times as coarsely; models of random weights were seen to differ 30
/// times as much, and a quarter of 2⁸ is allowed. (What is promised for the real weights is held on
/// every instruction set alike, by `full_model.rs`.)
pub fn allowed(isa: Isa, tolerance: f64) -> f64 {
    if isa.name() == "amx" { 64.0 * tolerance } else { tolerance }
}

/// The bits, so that a test of identity takes −0 and 0, or two NaNs, for what they are.
pub fn bits(row: ArrayView1<f32>) -> Vec<u32> {
    row.iter().map(|x| x.to_bits()).collect()
}

pub fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// A directory that is gone after the test, with a copy of the tiny model to damage.
pub struct Damaged(tempfile::TempDir);

impl Damaged {
    pub fn copy() -> Self {
        let directory = tempfile::tempdir().unwrap();
        copy_tree(&tiny(), directory.path());
        Self(directory)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> &Self {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
        self
    }

    pub fn remove(&self, name: &str) -> &Self {
        std::fs::remove_file(self.path().join(name)).unwrap();
        self
    }

    /// Sets one field of a JSON file; `null` removes it.
    pub fn set(&self, name: &str, field: &str, value: serde_json::Value) -> &Self {
        let path = self.path().join(name);
        let mut json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        match value {
            serde_json::Value::Null => drop(json.as_object_mut().unwrap().remove(field)),
            value => json[field] = value,
        }
        self.write(name, json.to_string())
    }

    pub fn load(&self) -> mpnet::Result<mpnet::SentenceEncoder> {
        mpnet::SentenceEncoder::from_pretrained(self.path())
    }
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Loads the tiny model after `change`, which must fail with one line that names all of `names`.
#[track_caller]
pub fn error_of(change: impl FnOnce(&Damaged), names: &[&str]) -> mpnet::Error {
    use std::error::Error as _;

    let model = Damaged::copy();
    change(&model);
    let error = model.load().unwrap_err();
    let text = format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default());
    for name in names {
        assert!(text.contains(name), "`{name}` is not named in: {text}");
    }
    assert!(!text.contains('\n'), "more than one line: {text}");
    error
}
