//! Transfers that break, that lie, that are stopped.

use std::fs;
use std::sync::{Arc, Mutex};

use mpnet::{CancellationToken, Error, FileProblem, HubProblem};

use super::server::{Reply, Request, git_hash, sha256};
use super::{Setup, WEIGHTS, problem};

/// What the storage does to the weights.
fn storage(setup: &Setup, mut change: impl FnMut(&Request, Reply) -> Reply + Send + 'static) {
    setup
        .hub
        .change(move |request, reply| if request.storage { change(request, reply) } else { reply });
}

/// The `Range` of each request to the storage.
fn ranges(setup: &Setup) -> Vec<Option<String>> {
    let log = setup.hub.take_log().into_iter().filter(|request| request.storage);
    log.map(|request| request.header("Range").map(str::to_owned)).collect()
}

fn from(start: usize) -> Option<String> {
    Some(format!("bytes={start}-"))
}

fn incomplete(setup: &Setup) -> std::path::PathBuf {
    let hash = sha256(&setup.hub.read(WEIGHTS));
    setup.repo().join("blobs").join(format!("{hash}.incomplete"))
}

#[test]
fn one_that_breaks_is_taken_up_where_it_stopped() {
    let setup = Setup::new();
    let mut cuts = [Some(1000), Some(0), Some(50_000)].into_iter();
    storage(&setup, move |_, reply| Reply { cut: cuts.next().flatten(), ..reply });
    let directory = setup.fetch().unwrap();
    setup.assert_loads_from(&directory);
    assert_eq!(ranges(&setup), [None, from(1000), from(1000), from(51_000)]);
}

#[test]
fn one_that_breaks_for_good_is_taken_up_by_the_next_call() {
    let setup = Setup::new();
    storage(&setup, |_, reply| Reply { cut: Some(10_000), ..reply });
    let (broken, shown) = setup.problem();
    assert!(matches!(broken, HubProblem::Unreachable { .. }), "{broken:?}");
    assert!(shown.contains(WEIGHTS), "{shown}");
    let tried = ranges(&setup).len();
    assert!((2..=10).contains(&tried), "{tried}");
    assert!(setup.model().local_files_only(true).fetch().is_err());
    assert_eq!(fs::metadata(incomplete(&setup)).unwrap().len(), 10_000 * tried as u64);

    storage(&setup, |_, reply| reply);
    let directory = setup.fetch().unwrap();
    setup.assert_loads_from(&directory);
    assert_eq!(ranges(&setup), [from(10_000 * tried)]);
    assert!(!incomplete(&setup).exists());
}

#[test]
fn a_server_that_knows_no_parts_sends_all_of_it() {
    let setup = Setup::new();
    let (weights, mut first) = (setup.hub.read(WEIGHTS), true);
    storage(&setup, move |_, _| {
        let cut = std::mem::take(&mut first).then_some(1000);
        Reply { body: weights.clone(), cut, ..Reply::new(200) }
    });
    let directory = setup.fetch().unwrap();
    setup.assert_loads_from(&directory);
    assert_eq!(ranges(&setup), [None, from(1000)]);
}

#[test]
fn a_server_that_sends_another_part() {
    for range in ["bytes 0-207167/207168", "bytes 10-20/207168", ""] {
        let setup = Setup::new();
        let mut first = true;
        storage(&setup, move |request, reply| match request.header("Range") {
            Some(_) => reply.with("Content-Range", range),
            None => Reply { cut: std::mem::take(&mut first).then_some(1000), ..reply },
        });
        let directory = setup.fetch().unwrap();
        setup.assert_loads_from(&directory);
        assert_eq!(ranges(&setup), [None, from(1000), None], "{range}");
    }
}

/// It neither gets anywhere nor ends: a piece, then the refusal of the rest, and again.
#[test]
fn a_server_that_begins_again_and_again() {
    let setup = Setup::new();
    let large = vec![7; 3 << 20];
    setup.hub.write(WEIGHTS, large);
    storage(&setup, |request, reply| match request.header("Range") {
        Some(_) => Reply::new(416),
        None => Reply { cut: Some(2 << 20), ..reply },
    });
    assert!(matches!(setup.problem().0, HubProblem::Unreachable { .. }));
    assert!(ranges(&setup).len() <= 12);
}

#[test]
fn one_that_gets_far_each_time_may_break_often() {
    let setup = Setup::new();
    setup.hub.write(WEIGHTS, vec![7; 10 << 20]);
    storage(&setup, |_, reply| {
        let cut = reply.body.len().min((1 << 20) + 1);
        Reply { cut: Some(cut), ..reply }
    });
    setup.fetch().unwrap();
    assert_eq!(ranges(&setup).len(), 10);
}

#[test]
fn what_an_earlier_call_left_may_be_wrong() {
    for left in [vec![1; 1000], vec![1; 207_168], vec![1; 300_000]] {
        let setup = Setup::new();
        assert_eq!(setup.hub.read(WEIGHTS).len(), 207_168);
        fs::create_dir_all(incomplete(&setup).parent().unwrap()).unwrap();
        fs::write(incomplete(&setup), &left).unwrap();
        let directory = setup.fetch().unwrap();
        setup.assert_loads_from(&directory);
    }
}

/// Of a file without a sha256 nothing could tell.
#[test]
fn what_an_earlier_call_left_of_a_small_file_is_not_used() {
    let setup = Setup::new();
    let settings = setup.hub.read("sentence_bert_config.json");
    let part = format!("{}.incomplete", git_hash(&settings));
    let part = setup.repo().join("blobs").join(part);
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    let other = String::from_utf8(settings).unwrap().replace("48", "49");
    fs::write(part, other).unwrap();
    let directory = setup.fetch().unwrap();
    setup.assert_loads_from(&directory);
    let got = fs::read(directory.join("sentence_bert_config.json")).unwrap();
    assert_eq!(got, setup.hub.read("sentence_bert_config.json"));
}

#[test]
fn an_empty_file_and_one_that_is_too_large() {
    let setup = Setup::new();
    setup.hub.write("modules.json", "");
    assert!(matches!(setup.fetch(), Err(Error::File { problem: FileProblem::Json { .. }, .. })));
    let setup = Setup::new();
    setup.hub.change(|request, reply| match request.path.contains("tokenizer.json") {
        true => reply.with("X-Linked-Size", "300000000"),
        false => reply,
    });
    let (large, shown) = setup.problem();
    assert!(matches!(large, HubProblem::Answer { .. }), "{large:?}");
    assert!(shown.contains("tokenizer.json") && shown.contains("300000000"), "{shown}");
    assert!(!setup.hub.take_log().iter().any(|request| request.is_get_of("tokenizer.json")));
}

#[test]
fn a_wrong_checksum_leaves_nothing() {
    let setup = Setup::new();
    storage(&setup, |_, mut reply| {
        reply.body[100_000] ^= 1;
        reply
    });
    let (wrong, shown) = setup.problem();
    let HubProblem::Checksum { expected, found } = &wrong else { panic!("{wrong:?}") };
    assert_eq!(*expected, sha256(&setup.hub.read(WEIGHTS)));
    assert_ne!(expected, found);
    assert!(shown.starts_with("org/tiny main model.safetensors: its sha256 is"), "{shown}");
    assert_eq!(ranges(&setup), [None], "it would be the same again");
    let hash = &expected[..];
    assert!(setup.listing().iter().all(|name| !name.contains(hash) && !name.contains(WEIGHTS)));
    assert!(setup.model().local_files_only(true).fetch().is_err());

    storage(&setup, |_, reply| reply);
    let directory = setup.fetch().unwrap();
    setup.assert_loads_from(&directory);
    assert_eq!(ranges(&setup), [None]);
}

#[test]
fn more_than_the_hub_says() {
    let setup = Setup::new();
    storage(&setup, |_, mut reply| {
        reply.body.extend([0; 1000]);
        reply
    });
    assert!(matches!(setup.problem().0, HubProblem::Size { expected: 207_168, .. }));
    assert!(!incomplete(&setup).exists());
    // A small file has no sha256; its length is what can be compared.
    let setup = Setup::new();
    setup.hub.change(|request, mut reply| {
        if request.method == "GET" && request.path.contains("1_Pooling") {
            reply.body.push(b' ');
        }
        reply
    });
    let (size, shown) = setup.problem();
    assert!(matches!(size, HubProblem::Size { .. }), "{size:?}");
    assert!(shown.contains("1_Pooling/config.json"), "{shown}");
}

#[test]
fn a_length_that_nobody_says() {
    let setup = Setup::new();
    setup.hub.change(|request, reply| match request.path.contains("modules.json") {
        // As a server that makes its answer while it sends it.
        true if reply.status == 200 && request.method == "HEAD" => reply.with("Content-Length", ""),
        _ => reply,
    });
    let directory = setup.fetch().unwrap();
    setup.assert_loads_from(&directory);
}

#[test]
fn a_hub_that_is_busy_is_asked_again() {
    for status in [429, 500, 502, 503, 504] {
        let setup = Setup::new();
        let mut busy = 2;
        setup.hub.change(move |_, reply| match busy {
            0 => reply,
            _ => {
                busy -= 1;
                Reply::new(status)
            }
        });
        setup.fetch().unwrap();
    }
    let setup = Setup::new();
    setup.hub.change(|_, _| Reply::new(503));
    assert!(matches!(setup.problem().0, HubProblem::Status { status: 503, .. }));
    assert_eq!(setup.hub.take_log().len(), 5);
}

#[test]
fn progress_is_told() {
    let setup = Setup::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let teller = Arc::clone(&told);
    setup
        .model()
        .progress(move |progress| teller.lock().unwrap().push(progress.clone()))
        .fetch()
        .unwrap();
    let told = told.lock().unwrap();
    let weights: Vec<_> = told.iter().filter(|progress| progress.file == WEIGHTS).collect();
    assert_eq!((weights[0].bytes, weights[0].total), (0, Some(207_168)));
    assert_eq!(weights.last().unwrap().bytes, 207_168);
    assert!(weights.is_sorted_by_key(|progress| progress.bytes));
}

#[test]
fn a_call_can_be_stopped() {
    let setup = Setup::new();
    let token = CancellationToken::new();
    let user = token.clone();
    let model = setup.model().cancellation(&token).progress(move |progress| {
        if progress.file == WEIGHTS {
            user.cancel();
        }
    });
    assert!(matches!(model.fetch(), Err(Error::Cancelled)));
    assert!(problem(setup.model().local_files_only(true).fetch()).1.contains("main"));
    let directory = setup.fetch().unwrap();
    setup.assert_loads_from(&directory);
}
