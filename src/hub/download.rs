//! The contents of a file → the cache: whole, of the right length and hash, or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::Body;
use ureq::http::Response;

use super::DownloadProgress;
use super::cache::{at, create_parent};
use super::client::{Client, Metadata};
use super::problem::HubProblem;
use super::snapshot::Snapshot;
use crate::error::{Error, Result};
use crate::sentence::CancellationToken;

/// How often a request is made before its failure is the answer.
pub(super) const ATTEMPTS: u32 = 5;

/// The pause after the first failure; the next ones are twice as long each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A connection that brought this much was worth it: the attempts begin anew. So their number is
/// bounded by the file's size.
const PROGRESS: u64 = 1 << 20;

/// The largest file that is not weights, or whose length the hub does not say.
const MAX_SMALL: u64 = 256 << 20;

const CHUNK: usize = 256 << 10;

/// Repeats a request while its failures are passing ones.
///
/// # Errors
///
/// [`Error::Cancelled`]; within, the last failure.
pub(super) fn patiently<T>(
    attempts: u32,
    stop: &CancellationToken,
    mut request: impl FnMut() -> Result<T, HubProblem>,
) -> Result<Result<T, HubProblem>> {
    let mut failures = 0;
    loop {
        match request() {
            Err(problem) if problem.is_transient() && failures + 1 < attempts => {
                failures += 1;
                pause(failures, stop)?;
            }
            answer => return Ok(answer),
        }
    }
}

/// After so many failures in a row.
fn pause(failures: u32, stop: &CancellationToken) -> Result<()> {
    for _ in 0..1 << (failures - 1) {
        check(stop)?;
        thread::sleep(FIRST_PAUSE);
    }
    check(stop)
}

fn check(stop: &CancellationToken) -> Result<()> {
    if stop.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
}

/// Sees to it that the blob of `file` is in the cache.
pub(super) fn blob(
    snapshot: &Snapshot,
    client: &Client,
    file: &str,
    metadata: &Metadata,
) -> Result<()> {
    let cache = &snapshot.revision.cache;
    let (whole, part) = (cache.blob(&metadata.etag), cache.incomplete(&metadata.etag));
    let is_there =
        || fs::metadata(&whole).is_ok_and(|it| metadata.size.is_none_or(|s| s == it.len()));
    if is_there() {
        return Ok(());
    }
    let _lock = cache.lock(&metadata.etag, &snapshot.revision.model.cancellation)?;
    if is_there() {
        return Ok(()); // who held the lock has fetched it
    }
    create_parent(&part)?;
    let transfer = Transfer { snapshot, client, file, metadata, part: &part };
    transfer.check_size()?;
    transfer.run()?;
    let written = File::options().append(true).open(&part);
    written.and_then(|part| part.sync_all()).map_err(at(&part))?;
    fs::rename(&part, &whole).map_err(at(&whole))
}

/// One file on its way.
struct Transfer<'t> {
    snapshot: &'t Snapshot<'t>,
    client: &'t Client<'t>,
    file: &'t str,
    metadata: &'t Metadata,
    /// Where its bytes go.
    part: &'t Path,
}

impl Transfer<'_> {
    /// Only weights may be large; what else is fetched is read into memory, and would be refused
    /// then.
    fn check_size(&self) -> Result<()> {
        match self.metadata.size {
            Some(size) if size > MAX_SMALL && !self.file.ends_with(".safetensors") => {
                let problem =
                    format!("it says that the file has {size} bytes, the limit is {MAX_SMALL}");
                Err(self.snapshot.revision.wrong(self.file, HubProblem::Answer { problem }))
            }
            _ => Ok(()),
        }
    }

    /// Fetches until the part is the whole.
    fn run(&self) -> Result<()> {
        if self.sha256().is_none() && length(self.part) > 0 {
            // Nothing could tell whether an earlier call left the right bytes.
            fs::remove_file(self.part).map_err(at(self.part))?;
        }
        let mut left_over = length(self.part) > 0;
        loop {
            let problem = match self.fetch()? {
                Ok(()) => match self.verify()? {
                    Ok(()) => return Ok(()),
                    Err(problem) => problem,
                },
                Err(problem) => problem,
            };
            let wrong = matches!(problem, HubProblem::Checksum { .. } | HubProblem::Size { .. });
            if wrong {
                fs::remove_file(self.part).map_err(at(self.part))?;
            }
            // Perhaps it is what an earlier call left that is wrong.
            if !(wrong && left_over) {
                return Err(self.snapshot.revision.wrong(self.file, problem));
            }
            left_over = false;
        }
    }

    /// Takes the transfer up again as long as that helps.
    fn fetch(&self) -> Result<Result<(), HubProblem>> {
        let (mut failures, mut reached) = (0, length(self.part));
        loop {
            match self.connect()? {
                Err(problem) if problem.is_transient() && failures + 1 < ATTEMPTS => {
                    let now = length(self.part);
                    failures = if now >= reached + PROGRESS { 1 } else { failures + 1 };
                    reached = reached.max(now);
                    pause(failures, self.stop())?;
                }
                done => return Ok(done),
            }
        }
    }

    /// One connection: appends what is missing, or writes all of it anew if the server sends that.
    fn connect(&self) -> Result<Result<(), HubProblem>> {
        let have = length(self.part);
        if have > 0 && self.metadata.size == Some(have) {
            self.tell(have);
            return Ok(Ok(())); // an earlier call was interrupted after its last byte
        }
        let response = match self.client.get(&self.snapshot.commit, self.file, have) {
            Ok(response) => response,
            Err(problem) => return Ok(Err(problem)),
        };
        let continued = have > 0 && response.status() == 206 && continues(&response, have);
        if have > 0 && !continued {
            fs::remove_file(self.part).map_err(at(self.part))?;
        }
        match response.status().as_u16() {
            206 if continued => self.copy(response, have),
            200 => self.copy(response, 0),
            // Another part than the one that was asked for; the next request asks for all.
            _ => Ok(Err(self.broken("the server does not send the part that is missing"))),
        }
    }

    fn broken(&self, problem: impl Into<String>) -> HubProblem {
        HubProblem::Unreachable { url: self.file.to_owned(), problem: problem.into() }
    }

    fn copy(&self, response: Response<Body>, start: u64) -> Result<Result<(), HubProblem>> {
        let size = self.metadata.size;
        let most = size.unwrap_or(MAX_SMALL);
        let mut to =
            File::options().create(true).append(true).open(self.part).map_err(at(self.part))?;
        // One more than there should be, to see whether there is one more.
        let mut body =
            response.into_body().into_reader().take(most.saturating_sub(start).saturating_add(1));
        let mut chunk = vec![0; CHUNK];
        let mut have = start;
        self.tell(have);
        loop {
            check(self.stop())?;
            let n = match body.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(self.broken(error.to_string()))),
            };
            to.write_all(&chunk[..n]).map_err(at(self.part))?;
            have += n as u64;
            self.tell(have);
        }
        match size {
            _ if have > most => Ok(Err(HubProblem::Size { expected: most, found: have })),
            Some(size) if have < size => {
                Ok(Err(self.broken(format!("it ended after {have} of {size} bytes"))))
            }
            _ => Ok(Ok(())),
        }
    }

    /// The hash of the contents, if the hub says it: the name of a file in large-file storage.
    fn sha256(&self) -> Option<&str> {
        let etag = self.metadata.etag.as_str();
        (etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit())).then_some(etag)
    }

    fn verify(&self) -> Result<Result<(), HubProblem>> {
        let Some(expected) = self.sha256() else { return Ok(Ok(())) };
        let mut file = File::open(self.part).map_err(at(self.part))?;
        let mut sha256 = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            check(self.stop())?;
            match file.read(&mut chunk).map_err(at(self.part))? {
                0 => break,
                n => sha256.update(&chunk[..n]),
            }
        }
        let found: String = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found.eq_ignore_ascii_case(expected) {
            return Ok(Ok(()));
        }
        Ok(Err(HubProblem::Checksum { expected: expected.to_owned(), found }))
    }

    fn tell(&self, bytes: u64) {
        if let Some(callback) = &self.snapshot.revision.model.progress {
            let total = self.metadata.size;
            (callback.0)(&DownloadProgress { file: self.file.to_owned(), bytes, total });
        }
    }

    fn stop(&self) -> &CancellationToken {
        &self.snapshot.revision.model.cancellation
    }
}

/// Whether an answer of status 206 begins at `start`.
fn continues(response: &Response<Body>, start: u64) -> bool {
    let range = response.headers().get("Content-Range").and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {start}-")))
}

/// 0 if there is no such file.
fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |it| it.len())
}
