//! A model at a revision: from the cache where that will do, from the hub where it will not.

use std::fs;
use std::path::PathBuf;

use super::cache::{Cache, Known, is_commit};
use super::client::{Client, Head, Metadata};
use super::problem::HubProblem;
use super::settings::{Settings, is_inside};
use super::{HubModel, download, files};
use crate::error::{Error, Result};
use crate::files::TRANSFORMER_SETTINGS;
use crate::sentence::{MODULES, SETTINGS};

/// The hub puts it into each repository, and only a download of the whole brings it.
const OF_EVERY_REPOSITORY: &str = ".gitattributes";

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
        let cached = |trust| match &known {
            Some(commit) => Snapshot::new(self, commit, Source::Cache(trust)).complete(),
            None => Err(self.not_cached(MODULES, "fetch the model once with the hub allowed")),
        };
        if self.settings.offline {
            return cached(Trust::Plausible);
        }
        if is_fixed && let Ok(directory) = cached(Trust::Certain) {
            return Ok(directory);
        }
        let last = cached(Trust::Plausible);
        match (self.fetch_from_hub(known.as_deref().filter(|_| last.is_ok())), last) {
            (Err((error @ Error::Hub { .. }, true)), Ok(directory)) => {
                let (repo, cause) = (&self.settings.repo, chain(&error));
                tracing::warn!(
                    repo,
                    revision,
                    cause,
                    "the hub cannot be asked: using what was fetched last"
                );
                Ok(directory)
            }
            (fetched, _) => fetched.map_err(|(error, _)| error),
        }
    }

    /// The same after asking the hub. `last` is the commit that the cache has, if it has all of it;
    /// an error comes with whether that will do instead.
    fn fetch_from_hub(&self, last: Option<&str>) -> Result<PathBuf, (Error, bool)> {
        let revision = &self.settings.revision;
        let client = Client::new(&self.settings).map_err(|error| (error, false))?;
        // With something to fall back on there is no need to be patient.
        let attempts = if last.is_some() { 1 } else { download::ATTEMPTS };
        let commit = match is_commit(revision) && last.is_none() {
            true => revision.clone(),
            false => self.commit(&client, attempts).map_err(|error| (error, true))?,
        };
        let snapshot = Snapshot::new(self, &commit, Source::Hub(&client));
        // To use another commit than the branch has now would be to go back.
        let will_do = last == Some(&commit);
        let directory = snapshot.complete().map_err(|error| (error, will_do))?;
        if !is_commit(revision) {
            // Now that it is complete, a call without a network may use it.
            self.cache.set_commit_of(revision, &commit).map_err(|error| (error, false))?;
        }
        Ok(directory)
    }

    /// The commit that the branch or tag has now.
    fn commit(&self, client: &Client, attempts: u32) -> Result<String> {
        // One of them every model has; the hub names the commit even where there is no
        // `modules.json`.
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

    /// The cache does not have `file`, and there is no asking.
    fn not_cached(&self, file: &str, advice: &str) -> Error {
        let cache = self.cache.shown();
        self.wrong(file, HubProblem::Offline { cache, advice: advice.to_owned() })
    }
}

/// Where files come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'r> {
    Cache(Trust),
    Hub(&'r Client<'r>),
}

/// When the cache is believed that the repository does not have a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// If the hub has said so.
    Certain,
    /// Also if it must be so in a download that is complete, as Python takes it.
    Plausible,
}

/// The files of one commit.
#[derive(Debug)]
pub(super) struct Snapshot<'r> {
    pub(super) revision: &'r Revision<'r>,
    pub(super) commit: String,
    source: Source<'r>,
}

impl<'r> Snapshot<'r> {
    fn new(revision: &'r Revision<'r>, commit: &str, source: Source<'r>) -> Self {
        Self { revision, commit: commit.to_owned(), source }
    }

    fn complete(&self) -> Result<PathBuf> {
        files::fetch(self)?;
        Ok(self.directory())
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.revision.cache.snapshot(&self.commit)
    }

    /// Sees to it that `file` is in the directory; `false` if the repository has none.
    pub(super) fn get(&self, file: &str) -> Result<bool> {
        let (revision, commit) = (self.revision, &self.commit);
        if !is_inside(file) {
            let problem = "its name leads out of the model's directory".to_owned();
            return Err(revision.wrong(file, HubProblem::Answer { problem }));
        }
        match (revision.cache.knows(commit, file), self.source) {
            (Known::There, _) => Ok(true),
            (Known::Absent, _) => Ok(false),
            (Known::Unlinked, Source::Cache(_)) => {
                let advice = "its link in the snapshot leads to a file that is gone: fetch the model once with the hub allowed";
                Err(revision.not_cached(file, advice))
            }
            (Known::Listed, Source::Cache(_)) => {
                let advice = "by the listing of its files (`trees`) the repository has it, so the download was not \
                              complete: fetch the model once with the hub allowed";
                Err(revision.not_cached(file, advice))
            }
            (Known::Nothing, Source::Cache(trust)) => match self.doubt(file, trust) {
                None => Ok(false),
                Some(reason) => Err(self.unknown(file, &reason)),
            },
            (_, Source::Hub(client)) => self.ask(client, file),
        }
    }

    /// Why the repository may have a `file` of which the cache knows nothing.
    ///
    /// Python's download of a whole repository leaves no trace of what the repository does not
    /// have. (Newer ones leave a listing, see [`Known::Listed`].) To load a model without one of
    /// its files can give other embeddings, so there must be no sign that the download was
    /// interrupted or was one of single files.
    fn doubt(&self, file: &str, trust: Trust) -> Option<String> {
        let cache = &self.revision.cache;
        if trust == Trust::Certain {
            return Some("nobody has asked for it".to_owned());
        }
        if let Some(part) = cache.part_of_download() {
            return Some(format!("a download was interrupted (`{}`)", part.display()));
        }
        // transformers fetches the encoder of a sentence-transformers model without asking for its
        // modules.
        if file == MODULES {
            if let Some(trace) = self.trace_of_modules() {
                return Some(format!("`{trace}` is there, as in a model that has modules"));
            }
            if !cache.has(&self.commit, OF_EVERY_REPOSITORY) {
                return Some(format!(
                    "nothing says that the whole repository was downloaded (no `{OF_EVERY_REPOSITORY}`)"
                ));
            }
        }
        None
    }

    /// What only a model of sentence-transformers has, beside `modules.json`.
    fn trace_of_modules(&self) -> Option<String> {
        let names = fs::read_dir(self.directory()).ok()?.flatten();
        let mut names = names.filter_map(|entry| entry.file_name().into_string().ok());
        names.find(|name| {
            let of_module = name.split_once('_').is_some_and(|(number, kind)| {
                let kinds = ["Pooling", "Dense", "Normalize", "LayerNorm", "Dropout"];
                number.parse::<u32>().is_ok() && kinds.iter().any(|it| kind.starts_with(it))
            });
            of_module || name == SETTINGS || TRANSFORMER_SETTINGS.contains(&name.as_str())
        })
    }

    fn unknown(&self, file: &str, reason: &str) -> Error {
        let advice = format!(
            "the repository may have it, and without it the embeddings could be others ({reason}). Fetch the model once with \
             the hub allowed; or, if it has no such file, load the folder by `from_pretrained(\"{}\")`",
            self.directory().display()
        );
        self.revision.not_cached(file, &advice)
    }

    fn ask(&self, client: &Client, file: &str) -> Result<bool> {
        let (revision, commit) = (self.revision, &self.commit);
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
        if self.get(file)? { Ok(()) } else { Err(self.missing(file)) }
    }

    /// The error that `file`, which must be there, is not.
    pub(super) fn missing(&self, file: &str) -> Error {
        match (self.revision.cache.knows(&self.commit, file), self.source) {
            (Known::Nothing, Source::Cache(_)) => {
                self.revision.not_cached(file, "fetch the model once with the hub allowed")
            }
            _ => self.revision.wrong(file, HubProblem::FileNotFound),
        }
    }
}

/// An error and its causes, in a line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
