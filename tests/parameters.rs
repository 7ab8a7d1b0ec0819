//! Parameters as named arrays: what is prepared from them is what is prepared from the checkpoint.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::{assert_close, tiny};
use mpnet::model::{Mpnet, MpnetParameters, NamedParameters, Parameters, Placement};
use mpnet::{
    Batch, Checkpoint, Config, Error, Isa, Precision, SentenceEncoder, TensorProblem, WeightDtype,
};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

const TEXTS: [&str; 4] = ["a man is eating food", "", "the the the the the the the the", "x"];

fn config() -> Config {
    Config::from_json(std::fs::read(tiny().join("config.json")).unwrap(), "config.json").unwrap()
}

fn load(directory: &Path) -> MpnetParameters {
    let checkpoint = Checkpoint::open(directory).unwrap();
    MpnetParameters::load(&checkpoint.encoder().unwrap(), &config()).unwrap()
}

fn names(parameters: &impl Parameters) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    parameters.visit("", &mut |name, _| assert!(names.insert(name.to_owned()), "{name} twice"));
    names
}

#[test]
fn every_tensor_of_the_checkpoint_is_visited_by_its_name() {
    let (checkpoint, mut parameters) = (Checkpoint::open(tiny()).unwrap(), load(&tiny()));
    let stored: BTreeSet<String> = checkpoint.names().into_iter().map(str::to_owned).collect();
    let is_parameter = |name: &String| !name.ends_with("position_ids");
    assert_eq!(names(&parameters), stored.into_iter().filter(is_parameter).collect());
    // The values too, by a way of their own; and changes arrive.
    let root = checkpoint.root();
    parameters.visit("", &mut |name, array| {
        let values = match *array.shape() {
            [n] => root.vector(name, n).unwrap().into_dyn(),
            [rows, columns] => root.matrix(name, rows, columns).unwrap().into_dyn(),
            ref other => panic!("{name}: {other:?}"),
        };
        assert_eq!(values, array, "{name}");
    });
    parameters.visit_mut("", &mut |_, mut array| array.fill(0.5));
    assert_eq!(parameters.encoder.layer[1].attention.attn.k.bias[3], 0.5);
    let mut seen = Vec::new();
    parameters.encoder.layer[2].output.visit("here", &mut |name, _| seen.push(name.to_owned()));
    let expected = ["dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias"];
    assert_eq!(seen, expected.map(|name| format!("here.{name}")));
}

#[test]
fn parameters_in_memory_give_the_bits_of_the_checkpoint() {
    let parameters = load(&tiny());
    for &isa in Isa::available() {
        for precision in PRECISIONS {
            let builder = SentenceEncoder::builder(tiny()).isa(isa).precision(precision);
            let from_file = builder.clone().build().unwrap();
            let from_memory = builder.parameters(&parameters).build().unwrap();
            let embeddings = from_memory.encode(&TEXTS).unwrap();
            assert_eq!(embeddings, from_file.encode(&TEXTS).unwrap(), "{isa} {precision}");
            assert_eq!(from_memory.model().plan(), from_file.model().plan());

            // The model alone, too, with its pooler.
            let (named, config) = (NamedParameters::new(&parameters), config());
            let at = Placement::on(isa).precision(precision);
            let model = Mpnet::prepare(&named.root(), &config, &at).unwrap();
            let checkpoint = Checkpoint::open(tiny()).unwrap();
            let other = Mpnet::prepare(&checkpoint.encoder().unwrap(), &config, &at).unwrap();
            let batch = Batch::new(&[vec![0, 7, 8, 9, 2], vec![0, 2]], &config).unwrap();
            let hidden = model.forward(&batch);
            assert_eq!(hidden, other.forward(&batch), "{isa} {precision}");
            let pooled = model.pooler_output(&hidden, &batch);
            assert_eq!(pooled, other.pooler_output(&hidden, &batch), "{isa} {precision}");
        }
    }
}

#[test]
fn changed_parameters_give_other_embeddings() {
    let mut parameters = load(&tiny());
    let before = SentenceEncoder::builder(tiny()).parameters(&parameters).build().unwrap();
    parameters.encoder.layer[0].intermediate.dense.bias += 1.0;
    let after = SentenceEncoder::builder(tiny()).parameters(&parameters).build().unwrap();
    assert_ne!(before.encode(&TEXTS).unwrap(), after.encode(&TEXTS).unwrap());
}

#[test]
fn saved_and_loaded_again_they_are_the_same() {
    let (folder, parameters) = (tempfile::tempdir().unwrap(), load(&tiny()));
    let file = folder.path().join("model.safetensors");
    std::fs::write(&file, "an older file").unwrap();
    parameters.save(&file, WeightDtype::F32).unwrap();
    assert_eq!(load(folder.path()), parameters);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "a temporary file is left");

    parameters.save(&file, WeightDtype::Bf16).unwrap();
    let word = |parameters: &MpnetParameters| {
        parameters.embeddings.word_embeddings.weight.clone().into_dyn()
    };
    assert_close(
        "bf16",
        word(&load(folder.path())).view(),
        word(&parameters).mapv(f64::from).view(),
        2e-2,
    );

    let nowhere = parameters.save(folder.path().join("no/such/place"), WeightDtype::F32);
    assert!(matches!(nowhere, Err(Error::Io { .. })), "{nowhere:?}");
}

#[test]
fn arrays_in_another_layout_are_parameters_too() {
    let mut parameters = load(&tiny());
    let expected = SentenceEncoder::builder(tiny()).build().unwrap().encode(&TEXTS).unwrap();
    let weight = &mut parameters.encoder.layer[1].output.dense.weight;
    *weight = weight.t().as_standard_layout().to_owned().reversed_axes();
    assert!(!weight.is_standard_layout());
    let encoder = SentenceEncoder::builder(tiny()).parameters(&parameters).build().unwrap();
    assert_eq!(encoder.encode(&TEXTS).unwrap(), expected);
}

#[test]
fn parameters_that_do_not_fit_are_refused_by_name() {
    let mut parameters = load(&tiny());
    parameters.encoder.layer.pop();
    let missing = SentenceEncoder::builder(tiny()).parameters(&parameters).build();
    let message = missing.unwrap_err().to_string();
    assert!(message.contains("encoder.layer.2.") && message.contains("memory"), "{message}");

    let mut parameters = load(&tiny());
    parameters.encoder.layer[0].output.dense.bias = mpnet::ndarray::Array1::zeros(31);
    let wrong = SentenceEncoder::builder(tiny()).parameters(&parameters).build();
    let message = wrong.unwrap_err().to_string();
    assert!(message.contains("`encoder.layer.0.output.dense.bias`"), "{message}");
    assert!(message.contains("[31]") && message.contains("[32]"), "{message}");
}

#[test]
fn a_configuration_that_does_not_fit_the_file_takes_no_memory() {
    let checkpoint = Checkpoint::open(tiny()).unwrap();
    let weights = checkpoint.encoder().unwrap();
    for (field, from, to) in [
        ("vocab_size", "605", "1000000000000"),
        ("num_hidden_layers", "3", "1000000000000"),
        ("intermediate_size", "64", "1000000000000"),
    ] {
        let json = std::fs::read_to_string(tiny().join("config.json")).unwrap();
        let changed = json.replace(&format!("\"{field}\": {from}"), &format!("\"{field}\": {to}"));
        assert_ne!(changed, json, "{field}");
        let config = Config::from_json(changed, "config.json").unwrap();
        let error = MpnetParameters::load(&weights, &config).unwrap_err();
        let names_it = matches!(
            error,
            Error::Tensor { problem: TensorProblem::Shape { .. }, .. }
                | Error::Tensor { problem: TensorProblem::Missing { .. }, .. }
        );
        assert!(names_it, "{field}: {error}");
    }
}

#[test]
fn an_encoder_of_parameters_is_not_saved_from_the_files_and_has_no_packed_cache() {
    let (folder, parameters) = (tempfile::tempdir().unwrap(), load(&tiny()));
    let builder = SentenceEncoder::builder(tiny()).parameters(&parameters);
    let encoder = builder.clone().build().unwrap();
    let target = folder.path().join("saved");
    for refused in [
        encoder.save_pretrained(&target, WeightDtype::F32),
        encoder.save_pretrained_from(tiny(), &target, WeightDtype::F32),
    ] {
        assert!(matches!(refused, Err(Error::Save { .. })), "{refused:?}");
    }
    assert!(!target.exists());
    let cached = builder.packed_cache(folder.path().join("packed.bin")).build();
    assert!(matches!(cached, Err(Error::Option { option: "packed_cache", .. })), "{cached:?}");
}
