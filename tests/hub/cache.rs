//! The cache: its layout, what it saves, what it does without a hub, many callers at once.

use std::fs;
use std::path::Path;

use mpnet::{Error, HubModel, HubProblem, SentenceEncoder};

use super::server::{COMMIT, REPO, git_hash, sha256};
use super::{ABSENT, NEEDED, Setup, WEIGHTS, problem};

const NEXT_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// The layout that huggingface_hub documents for its cache.
#[test]
#[cfg(unix)]
fn the_layout_is_that_of_python() {
    let setup = Setup::new();
    setup.fetch().unwrap();
    let mut want = vec!["cache/models--org--tiny/refs/main".to_owned()];
    for file in NEEDED.into_iter().chain([WEIGHTS]) {
        want.push(format!("cache/models--org--tiny/snapshots/{COMMIT}/{file}"));
        let contents = setup.hub.read(file);
        let etag = if file == WEIGHTS { sha256(&contents) } else { git_hash(&contents) };
        want.push(format!("cache/models--org--tiny/blobs/{etag}"));
        let link = setup.repo().join("snapshots").join(COMMIT).join(file);
        let up = if file.contains('/') { "../../../blobs" } else { "../../blobs" };
        assert_eq!(fs::read_link(&link).unwrap(), Path::new(up).join(&etag));
        assert_eq!(fs::read(link).unwrap(), contents);
    }
    let absent = |file| format!("cache/models--org--tiny/.no_exist/{COMMIT}/{file}");
    want.extend(ABSENT.map(absent));
    want.sort();
    assert_eq!(setup.listing(), want);
    assert_eq!(fs::read_to_string(setup.repo().join("refs/main")).unwrap(), COMMIT);
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let setup = Setup::new();
    let directory = setup.fetch().unwrap();
    setup.hub.take_log();
    assert_eq!(setup.fetch().unwrap(), directory);
    // One question, what the commit of the branch is, and its redirect.
    let methods = setup.hub.take_log().into_iter().map(|request| request.method);
    assert_eq!(methods.collect::<Vec<_>>(), ["HEAD", "HEAD"]);
    // A commit does not change.
    assert_eq!(setup.model().revision(COMMIT).fetch().unwrap(), directory);
    assert!(setup.hub.take_log().is_empty());
}

#[test]
fn a_branch_that_moves_is_followed_and_what_did_not_change_is_kept() {
    let setup = Setup::new();
    let old = setup.fetch().unwrap();
    setup.hub.take_log();
    setup.hub.set_commit(NEXT_COMMIT).write("config_sentence_transformers.json", "{}");
    let new = setup.fetch().unwrap();
    assert!(old.is_dir() && new.ends_with(NEXT_COMMIT));
    let log = setup.hub.take_log();
    let gets: Vec<_> = log.iter().filter(|request| request.method == "GET").collect();
    assert!(gets.iter().all(|request| request.path.contains("config_sentence_transformers.json")));
    assert_eq!(fs::read_to_string(setup.repo().join("refs/main")).unwrap(), NEXT_COMMIT);
    setup.assert_loads_from(&old);
    let prompts = |directory| SentenceEncoder::from_pretrained(directory).unwrap();
    assert_ne!(
        prompts(old).encode_query(&["a"]).unwrap(),
        prompts(new).encode_query(&["a"]).unwrap()
    );
}

#[test]
fn without_a_hub_the_cache_will_do_if_it_is_complete() {
    let setup = Setup::new();
    let offline = || setup.model().local_files_only(true);
    let (empty, shown) = problem(offline().fetch());
    assert!(matches!(empty, HubProblem::Offline { .. }), "{empty:?}");
    assert!(
        shown.contains("org/tiny main modules.json") && shown.contains("models--org--tiny"),
        "{shown}"
    );
    assert!(setup.hub.take_log().is_empty(), "the hub was asked");
    assert!(setup.listing().is_empty(), "{:?}", setup.listing());

    let directory = setup.fetch().unwrap();
    setup.hub.take_log();
    assert_eq!(offline().fetch().unwrap(), directory);
    assert_eq!(offline().revision(COMMIT).fetch().unwrap(), directory);
    assert!(matches!(problem(offline().revision("v2").fetch()).0, HubProblem::Offline { .. }));

    // A file that was never asked for may be there or not: `modules.json`, without which the
    // embeddings would be others.
    fs::remove_file(directory.join("modules.json")).unwrap();
    let (partial, shown) = problem(offline().fetch());
    assert!(matches!(partial, HubProblem::Offline { .. }), "{partial:?}");
    assert!(shown.contains("modules.json"), "{shown}");
    assert!(setup.hub.take_log().is_empty(), "the hub was asked");
}

#[test]
fn a_hub_that_cannot_be_asked_leaves_what_was_fetched_last() {
    let setup = Setup::new();
    let nowhere = || setup.model().endpoint("http://127.0.0.1:9");
    let (absent, shown) = problem(nowhere().fetch());
    assert!(matches!(absent, HubProblem::Unreachable { .. }), "{absent:?}");
    assert!(shown.contains("http://127.0.0.1:9/org/tiny"), "{shown}");
    let directory = setup.fetch().unwrap();
    assert_eq!(nowhere().fetch().unwrap(), directory);
    setup.hub.change(|_, reply| super::server::Reply { status: 503, ..reply }).take_log();
    assert_eq!(setup.fetch().unwrap(), directory);
    assert_eq!(setup.hub.take_log().len(), 1, "no patience is needed here");
    // A newer commit that cannot be had whole is an error, and does not become the last one.
    setup.hub.set_commit(NEXT_COMMIT).change(|request, reply| {
        match request.path.contains("1_Pooling") {
            true => super::server::Reply { status: 500, ..reply },
            false => reply,
        }
    });
    assert!(matches!(setup.problem().0, HubProblem::Status { status: 500, .. }));
    assert_eq!(setup.model().local_files_only(true).fetch().unwrap(), directory);
}

/// As huggingface_hub leaves it on a system without links: files in the place of links. And without
/// `.no_exist`.
#[test]
fn files_that_something_else_put_there() {
    let setup = Setup::new();
    let snapshot = setup.repo().join("snapshots").join(COMMIT);
    fs::create_dir_all(snapshot.join("1_Pooling")).unwrap();
    fs::create_dir_all(setup.repo().join("refs")).unwrap();
    fs::write(setup.repo().join("refs/main"), COMMIT).unwrap();
    for file in NEEDED.into_iter().chain([WEIGHTS]) {
        fs::write(snapshot.join(file), setup.hub.read(file)).unwrap();
    }
    assert_eq!(setup.model().local_files_only(true).fetch().unwrap(), snapshot);
    setup.assert_loads_from(&snapshot);
}

#[test]
fn many_at_once_fetch_each_file_once() {
    let setup = Setup::new();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| setup.fetch().unwrap())).collect();
        for one in all {
            setup.assert_loads_from(&one.join().unwrap());
        }
    });
    let log = setup.hub.take_log();
    for file in NEEDED.into_iter().chain([WEIGHTS]) {
        let of_file = log.iter().filter(|request| request.is_get_of(file));
        // The hub's own redirect is a request, too.
        let whole = of_file.filter(|request| request.storage || request.path.starts_with("/api/"));
        // `config.json` is the end of the path of another file, of the pooling.
        let want = if file == "config.json" { 2 } else { 1 };
        assert_eq!(whole.count(), want, "{file}");
    }
    assert!(
        setup.listing().iter().all(|name| !name.contains(".tmp") && !name.contains("incomplete"))
    );
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let setup = Setup::new();
    let file = setup.folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = HubModel::new(REPO).endpoint(setup.hub.url()).no_token().cache_dir(&file).fetch();
    assert!(matches!(error, Err(Error::Io { path, .. }) if path.starts_with(&file)));
}
