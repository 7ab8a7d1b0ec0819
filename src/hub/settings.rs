//! What the caller has set, what the environment says, and what holds otherwise.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::HubModel;
use super::address::Address;
use super::environment::{Certificates, Env};
use super::proxies::Proxies;
use crate::error::{Error, Result};

const ENDPOINT: &str = "https://huggingface.co";

/// The organisation of models that are named without one, as in
/// `SentenceTransformer("all-mpnet-base-v2")`.
const ORGANISATION: &str = "sentence-transformers";

/// A token, or where it comes from. Its `Debug` does not show it.
#[derive(Clone)]
pub(super) enum Token {
    Implicit,
    None,
    Given(String),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Implicit => "Implicit",
            Self::None => "None",
            Self::Given(_) => "Given(…)",
        })
    }
}

/// All that is needed to fetch, checked.
#[derive(Debug)]
pub(super) struct Settings {
    /// `organisation/name`
    pub(super) repo: String,
    pub(super) revision: String,
    /// Without a slash at its end.
    pub(super) endpoint: String,
    pub(super) cache: PathBuf,
    pub(super) token: Token,
    pub(super) offline: bool,
    /// Certificates to trust instead of those that are built in.
    pub(super) trusted: Option<Certificates>,
    pub(super) proxies: Proxies,
    /// How long to wait for what the hub says of a file, and for each piece of a file.
    pub(super) timeouts: (Option<Duration>, Option<Duration>),
}

impl Settings {
    pub(super) fn resolve(model: &HubModel, env: &Env) -> Result<Self> {
        let repo = match model.repo.contains('/') {
            true => model.repo.clone(),
            false => format!("{ORGANISATION}/{}", model.repo),
        };
        check_repo(&repo)?;
        check_revision(&model.revision)?;
        let cache = match &model.cache_dir {
            Some(folder) => Some(env.path_of("cache_dir", folder.as_os_str())?),
            None => env.cache()?,
        };
        let cache = cache.ok_or_else(|| {
            let problem = "there is no home directory: set HOME, or HF_HOME".to_owned();
            Error::Option { option: "cache_dir", problem }
        })?;
        let offline = model.local_files_only || env.is_offline();
        let token = match &model.token {
            Token::Implicit if offline => Token::None,
            Token::Implicit => env.token()?.map_or(Token::None, Token::Given),
            set => set.clone(),
        };
        check_token(&token)?;
        let endpoint = model.endpoint.clone().or_else(|| env.endpoint());
        Ok(Self {
            repo,
            revision: model.revision.clone(),
            endpoint: check_endpoint(endpoint.as_deref().unwrap_or(ENDPOINT))?,
            cache: std::path::absolute(&cache)
                .map_err(|source| Error::Io { path: cache, source })?,
            token,
            offline,
            trusted: env.certificates()?,
            proxies: Proxies::of(env),
            timeouts: (
                env.seconds("HF_HUB_ETAG_TIMEOUT")?,
                env.seconds("HF_HUB_DOWNLOAD_TIMEOUT")?,
            ),
        })
    }
}

/// The rules of huggingface_hub's `validate_repo_id`.
fn check_repo(repo: &str) -> Result<()> {
    let is_name = |name: &str| {
        let ends = |c: char| c.is_ascii_alphanumeric() || c == '_';
        (1..=96).contains(&name.len())
            && name.starts_with(ends)
            && name.ends_with(ends)
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !name.contains("--")
            && !name.contains("..")
            && !name.ends_with(".git")
    };
    let fits = repo.split_once('/').is_some_and(|(user, name)| is_name(user) && is_name(name));
    if fits {
        return Ok(());
    }
    let problem = format!(
        "`{repo}` must be `organisation/name`, of letters, digits, `-`, `_` and `.`; a directory is loaded by \
         `from_pretrained`"
    );
    Err(Error::Option { option: "repo", problem })
}

/// A revision is a path in the cache.
fn check_revision(revision: &str) -> Result<()> {
    if is_inside(revision) && !revision.contains(|c: char| c.is_control()) {
        return Ok(());
    }
    let problem = format!("`{revision}` cannot be a branch, a tag or a commit");
    Err(Error::Option { option: "revision", problem })
}

fn check_endpoint(endpoint: &str) -> Result<String> {
    let endpoint = endpoint.trim_end_matches('/');
    let address = Address::parse(endpoint).filter(|_| !endpoint.contains(['?', '#']));
    if address.is_some() {
        return Ok(endpoint.to_owned());
    }
    let problem = format!("`{endpoint}` must be an address that begins with https:// or http://");
    Err(Error::Option { option: "endpoint", problem })
}

fn check_token(token: &Token) -> Result<()> {
    match token {
        Token::Given(token) if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) => {
            let problem = "must be of visible ASCII characters, without spaces".to_owned();
            Err(Error::Option { option: "token", problem })
        }
        _ => Ok(()),
    }
}

/// Whether `path`, with `/` between its parts, is below the directory that it is joined to, on
/// every system.
pub(super) fn is_inside(path: &str) -> bool {
    !path.contains(['\\', ':', '\0'])
        && !Path::new(path).is_absolute()
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::super::environment::tests::env;
    use super::*;

    use std::fs;

    fn resolve(model: HubModel, variables: &[(&'static str, &str)]) -> Settings {
        Settings::resolve(&model, &env(variables)).unwrap()
    }

    fn model() -> HubModel {
        HubModel::new("org/name")
    }

    /// The order of huggingface_hub's constants.py, and before it that of SentenceTransformer.
    #[test]
    fn the_cache_is_where_python_has_it() {
        let mut variables = vec![("HOME", "/home/me")];
        for (variable, want) in [
            (("TMP", "/tmp"), "/home/me/.cache/huggingface/hub"),
            (("XDG_CACHE_HOME", "/xdg"), "/xdg/huggingface/hub"),
            (("HF_HOME", "~/hf"), "/home/me/hf/hub"),
            (("HUGGINGFACE_HUB_CACHE", "/old"), "/old"),
            (("HF_HUB_CACHE", "/cache"), "/cache"),
            (("SENTENCE_TRANSFORMERS_HOME", "/st"), "/st"),
        ] {
            variables.push(variable);
            assert_eq!(resolve(model(), &variables).cache, Path::new(want), "{variable:?}");
        }
        assert_eq!(resolve(model().cache_dir("/mine"), &variables).cache, Path::new("/mine"));
        variables.push(("", ""));
        let empty = [("HOME", "/home/me"), ("HF_HUB_CACHE", ""), ("HF_HOME", "")];
        assert_eq!(resolve(model(), &empty).cache, Path::new("/home/me/.cache/huggingface/hub"));
        let homeless = Settings::resolve(&model(), &env(&[]));
        assert!(matches!(homeless, Err(Error::Option { option: "cache_dir", .. })));
    }

    #[test]
    fn the_endpoint() {
        let home = ("HOME", "/home/me");
        let mirror = [home, ("HF_ENDPOINT", "https://mirror.example/hf/")];
        assert_eq!(resolve(model(), &[home]).endpoint, "https://huggingface.co");
        assert_eq!(resolve(model(), &mirror).endpoint, "https://mirror.example/hf");
        let set = resolve(model().endpoint("http://127.0.0.1:8080"), &mirror);
        assert_eq!(set.endpoint, "http://127.0.0.1:8080");
        for wrong in ["mirror.example", "ftp://mirror.example", "", "https://", "https://a?b"] {
            let error = Settings::resolve(&model().endpoint(wrong), &env(&[home])).unwrap_err();
            assert!(matches!(error, Error::Option { option: "endpoint", .. }), "{wrong}");
        }
    }

    #[test]
    fn the_token_of_the_caller_of_the_environment_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap().to_owned();
        let token = |model, variables: &[(&'static str, &str)]| {
            let all = [&[("HF_HOME", path.as_str())], variables].concat();
            match resolve(model, &all).token {
                Token::Given(token) => Some(token),
                Token::None => None,
                Token::Implicit => unreachable!("it was resolved"),
            }
        };
        assert_eq!(token(model(), &[]), None);
        fs::write(folder.path().join("token"), "of_the_file\n").unwrap();
        assert_eq!(token(model(), &[]).as_deref(), Some("of_the_file"));
        let elsewhere = folder.path().join("other");
        fs::write(&elsewhere, "of_the_other_file").unwrap();
        let elsewhere = [("HF_TOKEN_PATH", elsewhere.to_str().unwrap())];
        assert_eq!(token(model(), &elsewhere).as_deref(), Some("of_the_other_file"));
        let set = [("HF_TOKEN", " of_the_variable\n")];
        assert_eq!(token(model(), &set).as_deref(), Some("of_the_variable"));
        assert_eq!(token(model().token("mine"), &set).as_deref(), Some("mine"));
        assert_eq!(token(model().no_token(), &set), None);
        let disabled = [set[0], ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")];
        assert_eq!(token(model(), &disabled), None);
        for wrong in ["", "two words", "new\nline"] {
            let error = Settings::resolve(&model().token(wrong), &env(&[("HOME", "/")]));
            assert!(matches!(error, Err(Error::Option { option: "token", .. })), "{wrong:?}");
        }
        assert!(!format!("{:?}", model().token("secret")).contains("secret"));
    }

    #[test]
    fn offline_is_said_in_four_words() {
        let offline = |variables: &[(&'static str, &str)]| {
            resolve(model(), &[&[("HOME", "/")], variables].concat()).offline
        };
        for (value, want) in
            [("1", true), ("true", true), ("Yes", true), ("on", true), ("0", false)]
        {
            assert_eq!(offline(&[("HF_HUB_OFFLINE", value)]), want, "{value}");
        }
        assert!(offline(&[("TRANSFORMERS_OFFLINE", "1")]));
        assert!(!offline(&[("HF_HUB_OFFLINE", "")]));
        assert!(resolve(model().local_files_only(true), &[("HOME", "/")]).offline);
    }

    #[test]
    fn names_that_can_be_a_repository() {
        let repo = |name: &str| {
            let settings = Settings::resolve(&HubModel::new(name), &env(&[("HOME", "/")]));
            settings.map(|settings| settings.repo)
        };
        assert_eq!(repo("all-mpnet-base-v2").unwrap(), "sentence-transformers/all-mpnet-base-v2");
        assert_eq!(repo("Foo-BAR_foo.bar123/a").unwrap(), "Foo-BAR_foo.bar123/a");
        let long = format!("a/{}", "b".repeat(97));
        for wrong in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "../a",
            "a/..",
            ".a/b",
            "a/b.",
            "a/-b",
            "a--b/c",
            "a/b..c",
            "a/b.git",
            "a/b c",
            "a\\b/c",
            "a/b%2e",
            "models/all-mpnet-base-v2/",
            "C:/model",
            "ä/b",
            &long,
        ] {
            assert!(matches!(repo(wrong), Err(Error::Option { option: "repo", .. })), "{wrong}");
        }
    }

    #[test]
    fn revisions_that_stay_in_the_cache() {
        let check = |revision: &str| {
            Settings::resolve(&model().revision(revision), &env(&[("HOME", "/")])).is_ok()
        };
        for right in ["main", "v1.0", "refs/pr/1", "9a3225965996d404b775526de6dbfe85d3368642"] {
            assert!(check(right), "{right}");
        }
        for wrong in ["", "..", "../../x", "/etc", "a//b", "a/", "a\\b", "C:x", "a\0b", "a\nb", "."]
        {
            assert!(!check(wrong), "{wrong:?}");
        }
    }
}
