//! The first source: files by HTTP.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use ureq::config::RedirectAuthHeaders;

use super::{ALL_BYTES, FILES, Result, create_dir, failed, length, step, with_suffix};

/// The commit of the repository that the hash of the weights belongs to, so that the small files
/// are the ones too.
const REVISION: &str = "9a3225965996d404b775526de6dbfe85d3368642";
const REPOSITORY: &str = "sentence-transformers/all-mpnet-base-v2";

/// The Hugging Face hub, or the mirror that `HF_ENDPOINT` names.
pub(super) struct Hub {
    url: String,
    token: Option<String>,
    agent: ureq::Agent,
}

impl Hub {
    /// `None` if the environment asks to stay off the hub.
    pub(super) fn from_env() -> Option<Self> {
        let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let offline = set("HF_HUB_OFFLINE").unwrap_or_default().to_uppercase();
        if ["1", "ON", "YES", "TRUE"].contains(&offline.as_str()) {
            return None;
        }
        let url = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let config = ureq::Agent::config_builder()
            .timeout_resolve(Some(Duration::from_secs(5)))
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_per_read(Some(Duration::from_secs(30)))
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .http_status_as_error(false);
        Some(Self {
            url: url.trim_end_matches('/').into(),
            token: set("HF_TOKEN"),
            agent: config.build().into(),
        })
    }

    /// Fetches what `dir` lacks.
    pub(super) fn fetch(&self, dir: &Path) -> Result<()> {
        create_dir(&dir.join("1_Pooling"))?;
        let bar = step(&format!("downloading from {}", self.url), ALL_BYTES);
        let mut done = 0;
        for file in FILES {
            let path = dir.join(file);
            if !path.is_file() {
                self.fetch_file(file, &path, &bar, done)?;
            }
            done += length(&path);
            bar.set_position(done);
        }
        bar.finish();
        Ok(())
    }

    /// A connection that breaks is taken up again, as long as each gets further than the last.
    fn fetch_file(&self, file: &str, path: &Path, bar: &ProgressBar, done: u64) -> Result<()> {
        let url = format!("{}/{REPOSITORY}/resolve/{REVISION}/{file}", self.url);
        let part = with_suffix(path, ".part");
        let mut reached = length(&part);
        while let Err(error) = self.fetch_rest(&url, &part, bar, done) {
            if length(&part) <= reached {
                return Err(error);
            }
            reached = length(&part);
        }
        fs::rename(&part, path).map_err(failed("create", path.display()))
    }

    /// Downloads what `part` lacks, or everything if the server does not know ranges.
    fn fetch_rest(&self, url: &str, part: &Path, bar: &ProgressBar, done: u64) -> Result<()> {
        let have = length(part);
        let mut request = self.agent.get(url);
        if have > 0 {
            request = request.header("Range", format!("bytes={have}-"));
        }
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let response = request.call().map_err(failed("get", url))?;
        let start = match response.status().as_u16() {
            200 => 0,
            206 => have,
            // Nothing lies beyond `part`: it is whole, or it is not a part of this file.
            416 if have > 0 => {
                fs::remove_file(part).map_err(failed("remove", part.display()))?;
                return self.fetch_rest(url, part, bar, done);
            }
            _ => return Err(failed("get", url)(response.status())),
        };
        let to =
            if start == 0 { File::create(part) } else { File::options().append(true).open(part) };
        let mut to = to.map_err(failed("write", part.display()))?;
        bar.set_position(done + start);
        bar.reset_eta();
        let mut body = bar.wrap_read(response.into_body().into_reader());
        io::copy(&mut body, &mut to).map_err(failed("get", url))?;
        Ok(())
    }
}
