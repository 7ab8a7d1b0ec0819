// An expression, to be `include!`d where a documentation test needs a cache of the hub: a temporary
// directory that holds the tiny model as `example/tiny`.
{
    let cache = tempfile::tempdir().unwrap();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let model = cache.path().join("models--example--tiny");
    let snapshot = model.join("snapshots").join(commit);
    let tiny = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny");
    let mut folders = vec![std::path::PathBuf::new()];
    while let Some(folder) = folders.pop() {
        std::fs::create_dir_all(snapshot.join(&folder)).unwrap();
        for entry in std::fs::read_dir(tiny.join(&folder)).unwrap() {
            let name = folder.join(entry.unwrap().file_name());
            if tiny.join(&name).is_dir() {
                folders.push(name);
            } else {
                std::fs::copy(tiny.join(&name), snapshot.join(&name)).unwrap();
            }
        }
    }
    std::fs::create_dir_all(model.join("refs")).unwrap();
    std::fs::write(model.join("refs/main"), commit).unwrap();
    cache
}
