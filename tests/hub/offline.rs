//! Caches that Python's download of a whole repository left, without a hub: loaded as the reference
//! loads them, or refused by name.

use std::fs;
use std::path::PathBuf;

use mpnet::{Error, HubModel, HubProblem, SentenceEncoder};
use serde_json::Value;

use super::common::{self, data};
use super::server::{COMMIT, REPO, git_hash};
use super::{ABSENT, NEEDED, Setup, WEIGHTS, problem};

/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:9";

/// A server, and a cache that holds all files of the model but those that are `missing`, and no
/// trace of those.
fn downloaded(missing: &[&str]) -> Setup {
    let setup = Setup::new();
    let snapshot = snapshot(&setup);
    fs::create_dir_all(setup.repo().join("refs")).unwrap();
    fs::write(setup.repo().join("refs/main"), COMMIT).unwrap();
    let others = ["special_tokens_map.json", "vocab.txt", WEIGHTS];
    for file in NEEDED.into_iter().chain(others).filter(|file| !missing.contains(file)) {
        let place = snapshot.join(file);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, setup.hub.read(file)).unwrap();
    }
    setup
}

fn snapshot(setup: &Setup) -> PathBuf {
    setup.repo().join("snapshots").join(COMMIT)
}

/// The file that a download of the whole repository brings, whatever it holds.
fn mark_as_whole(setup: &Setup) {
    fs::write(snapshot(setup).join(".gitattributes"), "").unwrap();
}

fn offline(setup: &Setup) -> HubModel {
    setup.model().local_files_only(true)
}

/// That the cache will not do, because of `file`; what is said.
#[track_caller]
fn refused(setup: &Setup, file: &str) -> String {
    let (found, shown) = problem(offline(setup).fetch());
    assert!(matches!(found, HubProblem::Offline { .. }), "{found:?}");
    assert!(shown.starts_with(&format!("org/tiny main {file}: ")), "{shown}");
    assert!(shown.contains("with the hub allowed"), "{shown}");
    shown
}

fn missing_in(case: &Value) -> Vec<&str> {
    case["missing"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

fn golden() -> Value {
    serde_json::from_slice(&common::read("hub/offline.json")).unwrap()
}

/// The values are those of sentence-transformers: tests/data/hub/offline.py.
#[test]
fn a_whole_download_loads_without_the_files_that_the_model_does_not_have() {
    let golden = golden();
    let texts: Vec<&str> =
        golden["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    for case in golden["cases"].as_array().unwrap() {
        let missing = missing_in(case);
        let setup = downloaded(&missing);
        mark_as_whole(&setup);
        let ways = [
            offline(&setup),
            offline(&setup).revision(COMMIT),
            setup.model().endpoint(NOWHERE),
            setup.model().endpoint(NOWHERE).revision(COMMIT),
        ];
        for model in ways {
            let encoder = SentenceEncoder::from_pretrained(model.fetch().unwrap()).unwrap();
            let found = encoder.encode(&texts).unwrap();
            let want = case["embeddings"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|row| row.as_array().unwrap());
            for (found, want) in found.iter().zip(want) {
                let want = want.as_f64().unwrap() as f32;
                let off = f64::from((found - want).abs());
                let most = common::allowed(encoder.isa(), 2e-6);
                assert!(off < most, "{missing:?}: {found}, not {want}");
            }
        }
        assert!(setup.hub.take_log().is_empty());
    }
}

/// The same without the file that says that all was downloaded: the modules are there, so it is no
/// part of a model.
#[test]
fn files_that_change_nothing_essential_may_be_missing_where_the_modules_are_there() {
    for missing in
        ["config_sentence_transformers.json", "sentence_bert_config.json", "tokenizer_config.json"]
    {
        let setup = downloaded(&[missing]);
        assert_eq!(offline(&setup).fetch().unwrap(), snapshot(&setup));
    }
}

#[test]
fn modules_that_may_be_missing_are_not_done_without() {
    // Their folder is there.
    let setup = downloaded(&[
        "modules.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
    ]);
    mark_as_whole(&setup);
    let said = refused(&setup, "modules.json");
    assert!(said.contains("`1_Pooling` is there"), "{said}");
    let folder = snapshot(&setup);
    assert!(said.contains(&format!("from_pretrained(\"{}\")", folder.display())), "{said}");
    // Settings that only a model with modules has.
    for there in ["config_sentence_transformers.json", "sentence_bert_config.json"] {
        let setup = downloaded(&["modules.json", "1_Pooling/config.json"]);
        mark_as_whole(&setup);
        for file in ["config_sentence_transformers.json", "sentence_bert_config.json"] {
            if file != there {
                fs::remove_file(snapshot(&setup).join(file)).unwrap();
            }
        }
        fs::remove_dir_all(snapshot(&setup).join("1_Pooling")).ok();
        assert!(refused(&setup, "modules.json").contains(there));
    }
    // As transformers' AutoModel and AutoTokenizer leave the cache: the encoder of a model that
    // does have modules.
    let of_modules = [
        "modules.json",
        "1_Pooling/config.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
    ];
    let setup = downloaded(&of_modules);
    assert!(refused(&setup, "modules.json").contains("`.gitattributes`"));
    // With the hub, they are fetched.
    let directory = setup.fetch().unwrap();
    setup.assert_loads_from(&directory);
    assert!(directory.join("modules.json").is_file());
}

#[test]
fn what_the_model_needs_is_named() {
    for file in [WEIGHTS, "config.json", "1_Pooling/config.json"] {
        refused(&downloaded(&[file]), file);
    }
    refused(&downloaded(&["tokenizer.json", "vocab.txt"]), "vocab.txt");
}

/// huggingface_hub 2 keeps the names of all files; the file is one that it wrote.
#[test]
fn a_listing_says_what_the_repository_has() {
    let list = |setup: &Setup, listing: &[u8]| {
        fs::create_dir_all(setup.repo().join("trees")).unwrap();
        fs::write(setup.repo().join(format!("trees/{COMMIT}.json")), listing).unwrap();
    };
    let whole = fs::read(data("hub/listing.json")).unwrap();
    for file in [
        "modules.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
        "tokenizer_config.json",
        "tokenizer.json",
        WEIGHTS,
    ] {
        let setup = downloaded(&[file]);
        list(&setup, &whole);
        assert!(refused(&setup, file).contains("by the listing of its files"));
        // The same as long as the hub cannot be asked.
        let nowhere = problem(setup.model().endpoint(NOWHERE).fetch()).0;
        assert!(matches!(nowhere, HubProblem::Unreachable { .. }), "{nowhere:?}");
    }
    // One that it does not name is not there, even if that is what a model with modules has.
    let mut listing: Value = serde_json::from_slice(&whole).unwrap();
    let of_modules = [
        "modules.json",
        "1_Pooling/config.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
    ];
    for file in of_modules {
        assert!(listing["files"].as_object_mut().unwrap().remove(file).is_some());
    }
    let setup = downloaded(&of_modules);
    list(&setup, listing.to_string().as_bytes());
    assert_eq!(offline(&setup).fetch().unwrap(), snapshot(&setup));
    assert_eq!(setup.model().revision(COMMIT).fetch().unwrap(), snapshot(&setup));
    assert!(setup.hub.take_log().is_empty(), "nothing is left to ask");
    // A format that is not known says nothing.
    listing["format_version"] = 2.into();
    list(&setup, listing.to_string().as_bytes());
    refused(&setup, "modules.json");
}

#[test]
#[cfg(unix)]
fn links_to_nothing_are_named() {
    for file in
        ["modules.json", "config_sentence_transformers.json", "tokenizer_config.json", WEIGHTS]
    {
        let setup = Setup::new();
        let directory = setup.fetch().unwrap();
        fs::remove_file(fs::canonicalize(directory.join(file)).unwrap()).unwrap();
        assert!(refused(&setup, file).contains("leads to a file that is gone"));
        // Loaded as a folder, it is not done without, either. (`tokenizer_config.json` is not
        // always read.)
        if file != "tokenizer_config.json" {
            let error = SentenceEncoder::from_pretrained(&directory).map(drop).unwrap_err();
            assert!(matches!(&error, Error::Io { path, .. } if path.ends_with(file)), "{error:?}");
        }
        // With the hub it is fetched again.
        setup.assert_loads_from(&setup.fetch().unwrap());
    }
}

#[test]
fn after_an_interruption_nothing_counts_as_absent() {
    let setup = downloaded(&["sentence_bert_config.json"]);
    fs::create_dir_all(setup.repo().join("blobs")).unwrap();
    let part = setup.repo().join("blobs").join(format!("{}.incomplete", git_hash(b"")));
    fs::write(&part, "{").unwrap();
    assert!(refused(&setup, "sentence_bert_config.json").contains(".incomplete`"));
    // If nothing is missing that was not asked for, it was another file that was interrupted.
    let asked = setup.repo().join(".no_exist").join(COMMIT);
    fs::create_dir_all(&asked).unwrap();
    ABSENT.into_iter().for_each(|file| fs::write(asked.join(file), "").unwrap());
    fs::write(
        snapshot(&setup).join("sentence_bert_config.json"),
        setup.hub.read("sentence_bert_config.json"),
    )
    .unwrap();
    assert_eq!(offline(&setup).fetch().unwrap(), snapshot(&setup));
}

/// A hub that can be asked is asked, also for a commit.
#[test]
fn the_hub_is_asked_for_what_only_seems_absent() {
    let setup = downloaded(&["sentence_bert_config.json"]);
    let model = || setup.model().revision(COMMIT);
    assert!(model().fetch().unwrap().join("sentence_bert_config.json").is_file());
    assert!(
        setup.hub.take_log().iter().any(|request| request.is_get_of("sentence_bert_config.json"))
    );

    let setup = downloaded(&["tokenizer_config.json"]);
    setup.hub.remove("tokenizer_config.json");
    let model = || setup.model().revision(COMMIT);
    model().fetch().unwrap();
    assert!(setup.repo().join(".no_exist").join(COMMIT).join("tokenizer_config.json").is_file());
    setup.hub.take_log();
    model().fetch().unwrap();
    assert!(setup.hub.take_log().is_empty());
}

/// The commit is the one of the cache, and then the hub is gone.
#[test]
fn a_hub_that_goes_away_leaves_what_was_downloaded() {
    let setup = downloaded(&["tokenizer_config.json"]);
    setup.hub.change(|request, reply| match request.path.contains("tokenizer_config") {
        true => super::server::Reply { status: 500, ..reply },
        false => reply,
    });
    assert_eq!(setup.fetch().unwrap(), snapshot(&setup));
    assert_eq!(setup.model().revision(COMMIT).fetch().unwrap(), snapshot(&setup));
    // What was never downloaded is still an error.
    let other =
        HubModel::new(REPO).endpoint(setup.hub.url()).cache_dir(setup.folder.path().join("other"));
    assert!(matches!(problem(other.no_token().fetch()).0, HubProblem::Status { status: 500, .. }));
}
