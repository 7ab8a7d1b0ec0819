//! A model at a revision: from the cache where that will do, from the hub where it will not.

use std::path::PathBuf;

use super::cache::{Cache, is_commit};
use super::client::{Client, Head, Metadata};
use super::problem::HubProblem;
use super::settings::{Settings, is_inside};
use super::{HubModel, download, files};
use crate::error::{Error, Result};
use crate::sentence::MODULES;

/// A model at a branch, tag or commit.
#[derive(Debug)]
pub(super) struct Revision<'m> {
    pub(super) model: &'m HubModel,
    settings: Settings,
    pub(super) cache: Cache,
}

impl<'m> Revision<'m> {
    pub(super) fn new(model: &'m HubModel, settings: Settings) -> Self {
        Self { model, cache: Cache::new(&settings), settings }
    }

    /// The directory with all files, after fetching what is not there.
    pub(super) fn fetch(&self) -> Result<PathBuf> {
        let revision = &self.settings.revision;
        let is_fixed = is_commit(revision);
        let known = if is_fixed { Some(revision.clone()) } else { self.cache.commit_of(revision) };
        let cached = match known {
            Some(commit) => Snapshot { revision: self, commit, client: None }.complete(),
            None => Err(self.offline(MODULES)),
        };
        if self.settings.offline || is_fixed && cached.is_ok() {
            return cached;
        }
        let client = Client::new(&self.settings)?;
        // With something to fall back on there is no need to be patient.
        let attempts = if cached.is_ok() { 1 } else { download::ATTEMPTS };
        let commit = match (is_fixed, cached) {
            (true, _) => revision.clone(),
            (false, cached) => match (self.commit(&client, attempts), cached) {
                (Ok(commit), _) => commit,
                (Err(error @ Error::Hub { .. }), Ok(directory)) => {
                    let (repo, cause) = (&self.settings.repo, chain(&error));
                    tracing::warn!(
                        repo,
                        revision,
                        cause,
                        "the hub cannot be asked: using what was fetched last"
                    );
                    return Ok(directory);
                }
                (Err(error), _) => return Err(error),
            },
        };
        let directory = Snapshot { revision: self, commit: commit.clone(), client: Some(&client) }
            .complete()?;
        if !is_fixed {
            // Now that it is complete, a call without a network may use it.
            self.cache.set_commit_of(revision, &commit)?;
        }
        Ok(directory)
    }

    /// The commit that the branch or tag has now.
    fn commit(&self, client: &Client, attempts: u32) -> Result<String> {
        // One of them every model has; the hub names the commit even where there is no `modules.json`.
        for file in [MODULES, "config.json"] {
            match self.head(client, &self.settings.revision, file, attempts)? {
                Head::File(Metadata { commit, .. }) | Head::Missing(Some(commit)) => {
                    return Ok(commit);
                }
                Head::Missing(None) => {}
            }
        }
        Err(self.wrong("config.json", HubProblem::FileNotFound))
    }

    fn head(&self, client: &Client, revision: &str, file: &str, attempts: u32) -> Result<Head> {
        let stop = &self.model.cancellation;
        download::patiently(attempts, stop, || client.head(revision, file))?
            .map_err(|problem| self.wrong(file, problem))
    }

    pub(super) fn wrong(&self, file: &str, problem: HubProblem) -> Error {
        Error::Hub {
            repo: self.settings.repo.clone(),
            revision: self.settings.revision.clone(),
            file: file.to_owned(),
            source: Box::new(problem),
        }
    }

    fn offline(&self, file: &str) -> Error {
        self.wrong(file, HubProblem::Offline { cache: self.cache.shown() })
    }
}

/// The files of one commit. Without a client, those in the cache.
#[derive(Debug)]
pub(super) struct Snapshot<'r> {
    pub(super) revision: &'r Revision<'r>,
    pub(super) commit: String,
    pub(super) client: Option<&'r Client>,
}

impl Snapshot<'_> {
    fn complete(&self) -> Result<PathBuf> {
        files::fetch(self)?;
        Ok(self.directory())
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.revision.cache.snapshot(&self.commit)
    }

    /// Sees to it that `file` is in the directory; `false` if the repository has none.
    ///
    /// Offline, a file that nobody has asked for yet is an error: to load a model without its `modules.json`, say, would give other
    /// embeddings.
    pub(super) fn get(&self, file: &str) -> Result<bool> {
        let (revision, commit) = (self.revision, &self.commit);
        if !is_inside(file) {
            let problem = "its name leads out of the model's directory".to_owned();
            return Err(revision.wrong(file, HubProblem::Answer { problem }));
        }
        if revision.cache.has(commit, file) {
            return Ok(true);
        }
        if revision.cache.lacks(commit, file) {
            return Ok(false);
        }
        let Some(client) = self.client else { return Err(revision.offline(file)) };
        match revision.head(client, commit, file, download::ATTEMPTS)? {
            Head::Missing(_) => {
                revision.cache.set_lacking(commit, file)?;
                Ok(false)
            }
            Head::File(metadata) if metadata.commit != *commit => {
                let problem = format!("it is of commit {}, not {commit}", metadata.commit);
                Err(revision.wrong(file, HubProblem::Answer { problem }))
            }
            Head::File(metadata) => {
                download::blob(self, client, file, &metadata)?;
                revision.cache.link(&metadata.etag, commit, file)?;
                Ok(true)
            }
        }
    }

    /// The same for a file that must be there.
    pub(super) fn require(&self, file: &str) -> Result<()> {
        match self.get(file)? {
            true => Ok(()),
            false => Err(self.revision.wrong(file, HubProblem::FileNotFound)),
        }
    }
}

/// An error and its causes, in a line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
