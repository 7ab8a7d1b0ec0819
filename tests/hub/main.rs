//! Models by name, from a server on loopback that plays the Hugging Face hub. What it has is the
//! tiny model.

#[path = "../common/mod.rs"]
mod common;
mod server;

mod cache;
mod environment;
mod errors;
mod hostile;
mod offline;
mod proxies;
mod proxy;
mod transfer;

use std::path::{Path, PathBuf};

use mpnet::{Error, FileProblem, HubModel, HubProblem, SentenceEncoder};

use common::tiny;
use server::{COMMIT, Hub, REPO};

/// What the model needs, in the order in which it is fetched.
const NEEDED: [&str; 8] = [
    "modules.json",
    "config_sentence_transformers.json",
    "config.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "1_Pooling/config.json",
];

/// What it is asked for and does not have.
const ABSENT: [&str; 2] = ["adapter_config.json", "added_tokens.json"];

const WEIGHTS: &str = "model.safetensors";

/// A hub, and a cache that is still empty.
struct Setup {
    hub: Hub,
    folder: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        Self::of(&tiny())
    }

    fn of(directory: &Path) -> Self {
        Self { hub: Hub::of(directory), folder: tempfile::tempdir().unwrap() }
    }

    /// The cache, in a folder that holds nothing else.
    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn repo(&self) -> PathBuf {
        self.cache().join("models--org--tiny")
    }

    /// Of this test's server and cache, and of no token that the environment may have.
    fn model(&self) -> HubModel {
        HubModel::new(REPO).endpoint(self.hub.url()).cache_dir(self.cache()).no_token()
    }

    fn fetch(&self) -> mpnet::Result<PathBuf> {
        self.model().fetch()
    }

    #[track_caller]
    fn problem(&self) -> (HubProblem, String) {
        problem(self.fetch())
    }

    /// The files below the cache, with their lengths, links not followed; without locks.
    fn listing(&self) -> Vec<String> {
        let mut names = Vec::new();
        list(&self.folder.path(), "", &mut names);
        names.retain(|name| !name.starts_with("cache/.locks"));
        names.sort();
        names
    }

    #[track_caller]
    fn assert_loads_from(&self, directory: &Path) {
        let texts = ["the man is here", ""];
        let want = SentenceEncoder::from_pretrained(tiny()).unwrap().encode(&texts).unwrap();
        let got = SentenceEncoder::from_pretrained(directory).unwrap().encode(&texts).unwrap();
        assert_eq!(got, want);
    }
}

fn list(folder: &dyn AsRef<Path>, prefix: &str, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder.as_ref()).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), &format!("{name}/"), names);
        } else {
            names.push(name);
        }
    }
}

/// The problem with the hub that `result` must be, and the whole error as a user sees it.
#[track_caller]
fn problem<T>(result: mpnet::Result<T>) -> (HubProblem, String) {
    match result.map(drop).expect_err("there is no error") {
        Error::Hub { repo, revision, file, source } => {
            let shown = format!("{repo} {revision} {file}: {source}");
            (*source.downcast().expect("a HubProblem"), shown)
        }
        error => panic!("another error: {error:?}"),
    }
}

#[test]
fn a_model_is_fetched_by_its_name_and_loaded() {
    let setup = Setup::new();
    let directory = setup.fetch().unwrap();
    assert_eq!(directory, setup.repo().join("snapshots").join(COMMIT));
    setup.assert_loads_from(&directory);

    // What is not needed is not asked for.
    let log = setup.hub.take_log();
    let asked = |name: &str| log.iter().any(|request| request.path.contains(name));
    assert!(NEEDED.iter().all(|name| asked(name)) && asked(WEIGHTS));
    for name in ["pytorch_model", "onnx", "README", "vocab.txt", "index"] {
        assert!(!asked(name), "{name}");
    }
    // The weights come last: before them, what is there does not look complete.
    let last = log.iter().rposition(|request| !request.path.contains(WEIGHTS)).unwrap();
    let weights = log.iter().position(|request| request.path.contains(WEIGHTS)).unwrap();
    assert!(last < weights);
}

#[test]
fn a_branch_with_a_slash_a_tag_or_a_commit() {
    let setup = Setup::new();
    let want = setup.repo().join("snapshots").join(COMMIT);
    for revision in ["main", "v1/tag", COMMIT] {
        assert_eq!(setup.model().revision(revision).fetch().unwrap(), want);
    }
    assert_eq!(std::fs::read_to_string(setup.repo().join("refs/v1/tag")).unwrap(), COMMIT);
    assert!(!setup.repo().join("refs").join(COMMIT).exists());
}

#[test]
fn files_that_a_model_may_have_or_not() {
    for file in
        ["config_sentence_transformers.json", "sentence_bert_config.json", "tokenizer_config.json"]
    {
        let setup = Setup::new();
        setup.hub.remove(file);
        let directory = setup.fetch().unwrap();
        assert!(!directory.join(file).exists());
        SentenceEncoder::from_pretrained(&directory).unwrap();
        // That there is none is kept, too.
        assert!(setup.repo().join(".no_exist").join(COMMIT).join(file).is_file());
        setup.hub.take_log();
        setup.fetch().unwrap();
        assert_eq!(setup.hub.take_log().len(), 2, "{file}");
    }
}

#[test]
fn an_older_name_of_the_settings_and_a_vocabulary_without_tokenizer_json() {
    let setup = Setup::new();
    let settings = setup.hub.read("sentence_bert_config.json");
    setup.hub.remove("sentence_bert_config.json").remove("tokenizer.json");
    setup.hub.write("sentence_xlnet_config.json", settings);
    let directory = setup.fetch().unwrap();
    assert!(directory.join("sentence_xlnet_config.json").is_file());
    assert!(directory.join("vocab.txt").is_file());
    setup.assert_loads_from(&directory);
}

#[test]
fn an_encoder_alone_and_one_in_a_folder_with_dense_modules() {
    let setup = Setup::new();
    setup.hub.remove("modules.json").remove("1_Pooling/config.json");
    let plain = SentenceEncoder::from_pretrained(setup.fetch().unwrap()).unwrap();
    assert_eq!(plain.encode_one("the man").unwrap().len(), 32);

    let setup = Setup::new();
    let move_to_folder = ["config.json", WEIGHTS, "tokenizer.json", "sentence_bert_config.json"];
    for file in move_to_folder {
        let contents = setup.hub.read(file);
        setup.hub.remove(file).write(&format!("0_Transformer/{file}"), contents);
    }
    let modules: Vec<_> = [
        ("0_Transformer", "Transformer"),
        ("1_Pooling", "Pooling"),
        ("2_Dense", "Dense"),
        ("3_Normalize", "Normalize"),
    ]
    .iter()
    .map(|(path, class)| serde_json::json!({"path": path, "type": format!("sentence_transformers.models.{class}")}))
    .collect();
    setup.hub.write("modules.json", serde_json::to_vec(&modules).unwrap());
    for file in ["config.json", WEIGHTS] {
        let contents = common::read(&format!("tiny_dense/2_Dense_tanh/{file}"));
        setup.hub.write(&format!("2_Dense/{file}"), contents);
    }
    let directory = setup.fetch().unwrap();
    SentenceEncoder::from_pretrained(&directory).unwrap();
    // A file in a folder is a link with one more step up.
    assert!(directory.join("2_Dense").join(WEIGHTS).is_file());
}

#[test]
fn weights_in_shards() {
    let setup = Setup::new();
    let weights = setup.hub.read(WEIGHTS);
    let names = safetensors::SafeTensors::deserialize(&weights).unwrap();
    // One file under two names is enough: the second holds all that the first does.
    let shards = ["a.safetensors", "b.safetensors"];
    let map = names
        .names()
        .into_iter()
        .enumerate()
        .map(|(i, name)| (name.to_owned(), shards[i % 2].into()));
    let index = serde_json::json!({"weight_map": map.collect::<serde_json::Map<_, _>>()});
    setup.hub.remove(WEIGHTS).write("model.safetensors.index.json", index.to_string());
    let spaced = [&weights[..], b""].concat();
    setup.hub.write(shards[0], weights.clone()).write(shards[1], spaced);
    let directory = setup.fetch().unwrap();
    setup.assert_loads_from(&directory);
    // They are the same, so they were transferred once.
    let transfers = setup.hub.take_log();
    assert_eq!(transfers.iter().filter(|request| request.storage).count(), 1);
}

#[test]
fn another_architecture_is_refused_before_its_weights_are_fetched() {
    let setup = Setup::new();
    setup.hub.write("config.json", r#"{"model_type": "xlm-roberta"}"#);
    assert!(matches!(
        setup.fetch(),
        Err(Error::File { problem: FileProblem::Architecture { .. }, .. })
    ));
    assert!(!setup.hub.take_log().iter().any(|request| request.path.contains(WEIGHTS)));
}
