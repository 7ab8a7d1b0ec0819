//! Directories that are like the tiny model's but for a file or a field: each gives the reference's
//! numbers, or is refused by name. `data/make_directory_goldens.py` has the list and asks the
//! reference.

mod common;

use std::fs;
use std::path::Path;

use common::{assert_near, json, tiny};
use mpnet::ndarray::{Array2, ArrayView1};
use mpnet::{EncodeOptions, Error, FileProblem, Result, SentenceEncoder, WeightDtype};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize_to_file};
use serde::Deserialize;
use serde_json::Value;

/// Further from float64 than the reference's own f32 by some roundings of three small layers.
const TOLERANCE: f64 = 2e-6;

#[derive(Deserialize)]
struct Case {
    name: String,
    edits: Vec<Vec<Value>>,
    texts: Vec<String>,
    /// What the reference said instead of loading the directory.
    refused: Option<String>,
    /// A part of our message where the reference does something that this crate does not.
    ours: Option<String>,
    #[serde(default)]
    ids: Vec<Vec<u32>>,
    #[serde(default)]
    embeddings: Vec<Vec<f64>>,
    #[serde(default)]
    queries: Vec<Vec<f64>>,
}

/// A copy of the tiny model with the edits of a case.
fn directory(case: &Case) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    copy(&tiny(), directory.path());
    for edit in &case.edits {
        let (file, what, values) =
            (edit[0].as_str().unwrap(), edit[1].as_str().unwrap(), &edit[2..]);
        let path = directory.path().join(file);
        let read = || serde_json::from_slice::<Value>(&fs::read(&path).unwrap()).unwrap();
        match what {
            "remove" => fs::remove_file(&path).unwrap(),
            "write" => fs::write(&path, values[0].to_string()).unwrap(),
            "set" => {
                let mut fields = read();
                fields.as_object_mut().unwrap().extend(values[0].as_object().unwrap().clone());
                fs::write(&path, fields.to_string()).unwrap();
            }
            "path" => {
                let mut whole = read();
                put(&mut whole, values[0].as_array().unwrap(), &values[1]);
                fs::write(&path, whole.to_string()).unwrap();
            }
            "grow" => grow(directory.path(), values[0].as_u64().unwrap() as usize),
            other => panic!("{}: unknown edit {other}", case.name),
        }
    }
    directory
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Puts `value` at the place that `keys` name; a key `+` is the end of a list, the value `-`
/// removes.
fn put(whole: &mut Value, keys: &[Value], value: &Value) {
    let (last, keys) = keys.split_last().unwrap();
    let place = keys.iter().fold(whole, |place, key| match key.as_u64() {
        Some(index) => &mut place[index as usize],
        None => &mut place[key.as_str().unwrap()],
    });
    match (last, value.as_str()) {
        (Value::String(end), _) if end == "+" => place.as_array_mut().unwrap().push(value.clone()),
        (Value::String(field), Some("-")) => drop(place.as_object_mut().unwrap().remove(field)),
        (Value::String(field), _) => place[field] = value.clone(),
        (index, _) => place[index.as_u64().unwrap() as usize] = value.clone(),
    }
}

/// Gives the embedding table `rows` more rows, as the script does.
fn grow(directory: &Path, rows: usize) {
    const TABLE: &str = "embeddings.word_embeddings.weight";
    let path = directory.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (vocab, width) =
        (file.tensor(TABLE).unwrap().shape()[0], file.tensor(TABLE).unwrap().shape()[1]);
    let new = (0..rows * width).flat_map(|i| (i as f32).sin().to_le_bytes());
    let table: Vec<u8> = file.tensor(TABLE).unwrap().data().iter().copied().chain(new).collect();
    let tensors = file.tensors().into_iter().map(|(name, tensor)| match name == TABLE {
        true => (name, TensorView::new(Dtype::F32, vec![vocab + rows, width], &table).unwrap()),
        false => (name, tensor),
    });
    serialize_to_file(tensors, None, &path).unwrap();
    let config = directory.join("config.json");
    let mut fields: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    fields["vocab_size"] = (vocab + rows).into();
    fs::write(&config, fields.to_string()).unwrap();
}

fn assert_rows(what: &str, got: &Array2<f32>, want: &[Vec<f64>]) {
    assert_eq!(got.nrows(), want.len(), "{what}");
    for (i, (got, want)) in got.rows().into_iter().zip(want).enumerate() {
        let want = ArrayView1::from(want).into_dyn();
        assert_near(&format!("{what}: text {i}"), got.into_dyn(), want, TOLERANCE);
    }
}

/// Encodes each text alone, as the script does.
fn compare(case: &Case, encoder: &SentenceEncoder) -> Result<()> {
    let options = EncodeOptions::default();
    for (text, ids) in case.texts.iter().zip(&case.ids) {
        let tokens = encoder.encode_tokens(&[text], &options)?;
        assert_eq!(tokens[0].ids, *ids, "{}: {text:?}", case.name);
    }
    assert_rows(&case.name, &encoder.encode(&case.texts)?, &case.embeddings);
    assert_rows(&case.name, &encoder.encode_query(&case.texts)?, &case.queries);
    Ok(())
}

#[test]
fn the_references_numbers_or_a_refusal_by_name() {
    let cases: Vec<Case> = json("directories.json");
    assert!(cases.len() > 100, "{}", cases.len());
    let mut failed = Vec::new();
    for case in &cases {
        let directory = directory(case);
        let outcome = std::panic::catch_unwind(|| {
            let outcome = SentenceEncoder::from_pretrained(directory.path());
            match (&case.refused, &case.ours, outcome) {
                (None, None, Ok(encoder)) => compare(case, &encoder).unwrap(),
                (None, None, Err(error)) => panic!("{}: {error}", case.name),
                (_, _, Ok(_)) => panic!("{}: is not refused", case.name),
                (refused, ours, Err(error)) => {
                    let text = error.to_string();
                    assert!(is_named(&error), "{}: {text}", case.name);
                    if let (Some(part), None) = (ours, refused) {
                        assert!(text.contains(part), "{}: {text}", case.name);
                    }
                }
            }
        });
        if outcome.is_err() {
            failed.push(&case.name);
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Whether an error names the file and the place in it.
fn is_named(error: &Error) -> bool {
    matches!(
        error,
        Error::Field { .. }
            | Error::File { problem: FileProblem::Module { .. }, .. }
            | Error::File { problem: FileProblem::Tokenizer { .. }, .. }
            | Error::File { problem: FileProblem::NoWeights { .. }, .. }
    )
}

/// What is saved of such a model is that model, for this crate and, by the same fields, for Python.
#[test]
fn a_saved_encoder_keeps_its_settings() {
    let cases: Vec<Case> = json("directories.json");
    for case in cases.iter().filter(|case| case.refused.is_none() && case.ours.is_none()) {
        let (from, to) = (directory(case), tempfile::tempdir().unwrap());
        let saved = to.path().join("saved");
        let encoder = SentenceEncoder::from_pretrained(from.path()).unwrap();
        encoder.save_pretrained(&saved, WeightDtype::F32).unwrap();
        let again = SentenceEncoder::from_pretrained(&saved).unwrap();
        assert_eq!(
            again.encode(&case.texts).unwrap(),
            encoder.encode(&case.texts).unwrap(),
            "{}",
            case.name
        );
        let queries = |encoder: &SentenceEncoder| encoder.encode_query(&case.texts).unwrap();
        assert_eq!(queries(&again), queries(&encoder), "{}", case.name);
    }
}
