//! Files of the user's own at a path that is given for a cache, or for a model to be saved to: they
//! stay as they are.

mod common;

use std::fs;
use std::path::Path;

use common::{copy_of_tiny, tiny};
use mpnet::{Error, Result, SentenceEncoder, TensorProblem, WeightDtype};

fn with_cache(model: &Path, cache: &Path) -> Result<SentenceEncoder> {
    SentenceEncoder::builder(model).packed_cache(cache).build()
}

/// Building must fail with an error that names `cache` and what to do, and leave the folder as it
/// is.
fn refused(model: &Path, cache: &Path) -> Error {
    let names = || {
        let entries = fs::read_dir(cache.parent().unwrap()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let error = with_cache(model, cache).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(cache.to_str().unwrap()), "{message}");
    assert_eq!(names(), before, "{message}");
    error
}

/// As [`refused`], for a file that would have to be overwritten.
fn not_overwritten(model: &Path, cache: &Path) {
    let error = refused(model, cache);
    assert!(matches!(error, Error::Save { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("`packed_cache`") && message.contains("delete"), "{message}");
}

#[test]
fn a_file_that_holds_no_packed_weights_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes.txt");
    // The magic is 8 bytes long and comes first.
    let others: [&[u8]; 7] = [
        b"my notes",
        b"x",
        b"MPNETPK",
        b"MPNETPK2 of another program",
        b" MPNETPK1",
        &[0; 4096],
        &[0xFF; 64],
    ];
    for contents in others {
        fs::write(&notes, contents).unwrap();
        not_overwritten(&tiny(), &notes);
        assert_eq!(fs::read(&notes).unwrap(), contents);
    }
}

#[test]
fn the_files_of_the_model_are_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy_of_tiny(&model);
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        let before = fs::read(model.join(name)).unwrap();
        not_overwritten(&model, &model.join(name));
        assert_eq!(fs::read(model.join(name)).unwrap(), before, "{name}");
    }
    SentenceEncoder::from_pretrained(&model).unwrap();
}

/// The refusal comes before anything is read of the weights, let alone packed.
#[test]
fn the_cache_is_looked_at_before_the_weights_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (model, notes) = (folder.path().join("model"), folder.path().join("notes.txt"));
    copy_of_tiny(&model);
    let mut weights = fs::read(model.join("model.safetensors")).unwrap();
    let (name, other) = (b"attention.attn.q.weight", b"attention.attn.x.weight");
    let at = weights.windows(name.len()).position(|bytes| bytes == name).unwrap();
    weights[at..at + name.len()].copy_from_slice(other);
    fs::write(model.join("model.safetensors"), weights).unwrap();
    assert!(matches!(
        SentenceEncoder::from_pretrained(&model),
        Err(Error::Tensor { problem: TensorProblem::Missing { .. }, .. })
    ));
    fs::write(&notes, "my notes").unwrap();
    not_overwritten(&model, &notes);
}

#[test]
fn an_empty_file_is_taken_and_one_of_packed_weights_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("made-by-mktemp");
    fs::write(&cache, "").unwrap();
    with_cache(&tiny(), &cache).unwrap();
    let good = fs::read(&cache).unwrap();
    assert_eq!(good[..8], *b"MPNETPK1");
    for length in [8, 9, good.len() / 2] {
        fs::write(&cache, &good[..length]).unwrap();
        with_cache(&tiny(), &cache).unwrap();
        assert_eq!(fs::read(&cache).unwrap(), good, "cut off at {length}");
    }
}

#[test]
fn a_directory_is_named_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    fs::create_dir(&cache).unwrap();
    let error = refused(&tiny(), &cache);
    assert!(
        matches!(&error, Error::Io { source, .. } if source.to_string().contains("a directory"))
    );
    let below_a_file = folder.path().join("file").join("cache");
    fs::write(folder.path().join("file"), "notes").unwrap();
    assert!(
        matches!(with_cache(&tiny(), &below_a_file), Err(Error::Io { path, .. }) if path == below_a_file)
    );
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_is_followed() {
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    fs::write(place("notes.txt"), "my notes").unwrap();
    symlink(place("notes.txt"), place("to-notes")).unwrap();
    not_overwritten(&tiny(), &place("to-notes"));
    assert_eq!(fs::read(place("notes.txt")).unwrap(), b"my notes");

    symlink(place("nowhere"), place("to-nothing")).unwrap();
    not_overwritten(&tiny(), &place("to-nothing"));
    assert!(place("to-nothing").is_symlink());

    with_cache(&tiny(), &place("cache")).unwrap();
    let good = fs::read(place("cache")).unwrap();
    fs::write(place("cache"), &good[..100]).unwrap();
    symlink(place("cache"), place("to-cache")).unwrap();
    with_cache(&tiny(), &place("to-cache")).unwrap();
    assert_eq!(fs::read(place("cache")).unwrap(), good);
    assert!(place("to-cache").is_symlink(), "the file is replaced, not the link");
}

/// Opening a named pipe waits for its writer, and a device has no end.
#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (done, is_done) = std::sync::mpsc::channel();
    for path in [pipe, "/dev/zero".into(), "/dev/null".into()] {
        let done = done.clone();
        std::thread::spawn(move || {
            let error = with_cache(&tiny(), &path).err();
            done.send((error.map(Box::new), path)).unwrap();
        });
    }
    for _ in 0..3 {
        let answer = is_done.recv_timeout(std::time::Duration::from_secs(30));
        let (error, path) = answer.expect("does not wait");
        let error = *error.expect("refused");
        assert!(
            matches!(&error, Error::Io { source, path: named } if *named == path
                && source.to_string().contains("not a regular file")),
            "{error:?}"
        );
    }
}

/// Two processes that start at once: the one that is later replaces the file of the first.
#[test]
fn encoders_that_are_built_at_once_share_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| with_cache(&tiny(), &cache).unwrap());
        }
    });
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left there");
    with_cache(&tiny(), &cache).unwrap();
}

#[test]
fn a_model_is_not_saved_over_anything() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = SentenceEncoder::from_pretrained(tiny()).unwrap();
    let file = folder.path().join("notes.txt");
    fs::write(&file, "my notes").unwrap();
    let error = encoder.save_pretrained(&file, WeightDtype::F32).unwrap_err();
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"my notes");
    let full = folder.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("config.json"), "{}").unwrap();
    let error = encoder.save_pretrained(&full, WeightDtype::F32).unwrap_err();
    assert!(matches!(error, Error::Save { .. }), "{error:?}");
    assert_eq!(fs::read(full.join("config.json")).unwrap(), b"{}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
}
