//! A hub that wants to write elsewhere, or to go on forever.

use mpnet::{Error, FileProblem, HubProblem};

use super::server::{COMMIT, Reply};
use super::{Setup, WEIGHTS, problem};

/// Fails if anything is outside the cache, or in it with a name of the attacker's.
#[track_caller]
fn assert_nothing_outside(setup: &Setup) {
    for name in setup.listing() {
        assert!(name.starts_with("cache/models--org--tiny/") && !name.contains("evil"), "{name}");
    }
}

#[test]
fn folders_of_modules_that_lead_elsewhere() {
    for path in ["../evil", "../../../../evil", "/tmp/evil", "a/../../evil", "C:/evil", "..\\evil"]
    {
        let setup = Setup::new();
        let modules = serde_json::json!([
            {"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": path, "type": "sentence_transformers.models.Pooling"},
        ]);
        setup.hub.write("modules.json", modules.to_string());
        match setup.fetch() {
            Err(Error::File { problem: FileProblem::Module { module, .. }, .. }) => {
                assert_eq!(module, path)
            }
            Err(Error::Hub { source, .. }) => {
                assert!(matches!(source.downcast_ref(), Some(HubProblem::Answer { .. })));
            }
            other => panic!("{path}: {other:?}"),
        }
        assert!(
            !setup.hub.take_log().iter().any(|request| request.path.contains("evil")),
            "{path}"
        );
        assert_nothing_outside(&setup);
    }
}

#[test]
fn shards_that_lead_elsewhere() {
    for shard in
        ["../evil.safetensors", "/tmp/evil.safetensors", "..", "a/../../evil.safetensors", ""]
    {
        let setup = Setup::new();
        let index = serde_json::json!({"weight_map": {"embeddings.word_embeddings.weight": shard}});
        setup.hub.remove(WEIGHTS).write("model.safetensors.index.json", index.to_string());
        match setup.fetch() {
            Err(Error::File { problem: FileProblem::Shard { shard: named, .. }, .. }) => {
                assert_eq!(named, shard)
            }
            other => panic!("{shard}: {other:?}"),
        }
        assert_nothing_outside(&setup);
    }
}

#[test]
fn hashes_that_are_paths() {
    let etags = ["../../evil", "/tmp/evil", "", "..", ".evil", "a\\evil", "a b", &"e".repeat(200)];
    for etag in etags.map(str::to_owned) {
        let setup = Setup::new();
        let sent = format!("\"{etag}\"");
        setup.hub.change(move |_, reply| {
            reply.with("ETag", sent.clone()).with("X-Linked-Etag", sent.clone())
        });
        assert!(matches!(setup.problem().0, HubProblem::Answer { .. }), "{etag}");
        assert_nothing_outside(&setup);
    }
    let upper = COMMIT.to_uppercase();
    for commit in ["../../../evil", "", "main", "0123", &upper].map(str::to_owned) {
        let setup = Setup::new();
        let shown = format!("{commit:?}");
        setup.hub.change(move |_, reply| reply.with("X-Repo-Commit", commit.clone()));
        assert!(matches!(setup.problem().0, HubProblem::Answer { .. }), "{shown}");
        assert_nothing_outside(&setup);
    }
}

#[test]
fn a_file_of_another_commit_than_the_one_asked_for() {
    let setup = Setup::new();
    let asked = "f".repeat(40);
    let answer = setup.model().revision(&asked);
    setup.hub.change(|request, mut reply| {
        if reply.status == 404 {
            reply = Reply::new(200).with("ETag", "\"abc\"");
        }
        let _ = request;
        reply.with("X-Repo-Commit", COMMIT)
    });
    let (problem, shown) = problem(answer.fetch());
    assert!(matches!(problem, HubProblem::Answer { .. }), "{problem:?}");
    assert!(shown.contains(COMMIT) && shown.contains(&asked), "{shown}");
}

#[test]
fn redirects_end() {
    let setup = Setup::new();
    setup.hub.change(|request, _| Reply::new(302).with("Location", request.path.clone()));
    assert!(matches!(setup.problem().0, HubProblem::Redirect { .. }));
    assert_eq!(setup.hub.take_log().len(), 11);

    // Only the transfer, back and forth between hub and storage.
    let setup = Setup::new();
    let hub = setup.hub.url();
    setup.hub.change(move |request, reply| match request.storage {
        true => {
            Reply::new(302).with("Location", format!("{hub}/org/tiny/resolve/{COMMIT}/{WEIGHTS}"))
        }
        false => reply,
    });
    let (problem, shown) = setup.problem();
    assert!(matches!(problem, HubProblem::Redirect { .. }), "{problem:?}");
    assert!(shown.contains(WEIGHTS) && shown.contains("more than 10 times"), "{shown}");

    for location in ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://", "javascript:x"] {
        let setup = Setup::new();
        setup.hub.change(move |_, _| Reply::new(302).with("Location", location));
        assert!(matches!(setup.problem().0, HubProblem::Redirect { .. }), "{location}");
        assert_eq!(setup.hub.take_log().len(), 1);
    }
    let setup = Setup::new();
    setup.hub.change(|_, _| Reply::new(302));
    assert!(setup.problem().1.contains("without saying to where"));
}

/// A signature in the address of the storage is not for logs.
#[test]
fn errors_do_not_show_signatures() {
    let setup = Setup::new();
    setup.hub.change(
        |request, reply| {
            if request.storage { Reply::new(302).with("Location", "x:y") } else { reply }
        },
    );
    let (_, shown) = setup.problem();
    assert!(shown.contains("/blobs/") && !shown.contains("secret"), "{shown}");
}
