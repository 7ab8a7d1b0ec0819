//! [`Env`]: what the variables of an environment say, as Python's huggingface_hub reads them.
//!
//! Source: huggingface_hub 2.4.0, `constants.py`, `utils/_auth.py` and the first lines of
//! `hf_hub_download`; sentence-transformers 6.2.0, `SentenceTransformer.__init__`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::expand;
use crate::error::{Error, Result};

/// The variables of an environment, and the home directories that the system knows.
pub(super) struct Env {
    variables: Vec<(OsString, OsString)>,
    /// Of the user who runs the process, unless `HOME` says it.
    home: Option<PathBuf>,
    /// In the format of `/etc/passwd`.
    #[cfg(unix)]
    users: fn() -> Vec<u8>,
}

impl Env {
    pub(super) fn of_process() -> Self {
        Self {
            variables: env::vars_os().collect(),
            home: env::home_dir(),
            #[cfg(unix)]
            users: || fs::read("/etc/passwd").unwrap_or_default(),
        }
    }

    /// All of them, those that are not Unicode left out.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.variables.iter();
        pairs.filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)))
    }

    fn get(&self, name: impl AsRef<OsStr>) -> Option<&OsStr> {
        let name = name.as_ref();
        let is_it = |known: &OsStr| match cfg!(windows) {
            true => known.eq_ignore_ascii_case(name),
            false => known == name,
        };
        self.variables.iter().find(|(known, _)| is_it(known)).map(|(_, value)| value.as_os_str())
    }

    /// An empty variable counts as unset.
    fn set(&self, name: &str) -> Option<&OsStr> {
        self.get(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.set(name).map(|value| value.to_string_lossy().into_owned())
    }

    /// The words that huggingface_hub takes for yes.
    fn is_on(&self, name: &str) -> bool {
        let value = self.text(name).unwrap_or_default().to_uppercase();
        ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
    }

    #[cfg(unix)]
    fn home(&self) -> Option<PathBuf> {
        self.set("HOME")
            .map(PathBuf::from)
            .or_else(|| self.home.clone())
            .filter(|it| !it.as_os_str().is_empty())
    }

    #[cfg(not(unix))]
    fn home(&self) -> Option<PathBuf> {
        self.set("USERPROFILE").map(PathBuf::from).or_else(|| self.home.clone())
    }

    /// Replaces `~` or `~user` at the beginning of a path, where that is known.
    #[cfg(unix)]
    fn expand_user(&self, path: &OsStr) -> OsString {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let home = || self.home().map(|home| home.into_os_string().into_vec());
        let users = |name: &[u8]| home_of(name, &(self.users)());
        OsString::from_vec(expand::posix::user(path.as_bytes(), home(), users))
    }

    #[cfg(not(unix))]
    fn expand_user(&self, path: &OsStr) -> OsString {
        let Some(text) = path.to_str() else { return path.to_owned() };
        expand::windows::user(text, |name| self.text(name)).into()
    }

    #[cfg(unix)]
    fn expand_variables(&self, path: &OsStr) -> OsString {
        use std::os::unix::ffi::{OsStrExt, OsStringExt};
        let get = |name: &[u8]| self.get(OsStr::from_bytes(name)).map(|it| it.as_bytes().to_vec());
        OsString::from_vec(expand::posix::variables(path.as_bytes(), get))
    }

    #[cfg(not(unix))]
    fn expand_variables(&self, path: &OsStr) -> OsString {
        let Some(text) = path.to_str() else { return path.to_owned() };
        let get = |name: &str| self.get(name)?.to_str().map(str::to_owned);
        expand::windows::variables(text, get).into()
    }

    fn expand(&self, path: &OsStr) -> OsString {
        self.expand_variables(&self.expand_user(path))
    }

    /// The path that `source`, an option or a variable, gives: `~` and `~user` are replaced,
    /// nothing else is.
    ///
    /// # Errors
    ///
    /// If the home directory is not known. Otherwise there would be a new folder of the name `~`.
    pub(super) fn path_of(&self, source: &'static str, path: &OsStr) -> Result<PathBuf> {
        let expanded = PathBuf::from(self.expand_user(path));
        let first = expanded.iter().next().unwrap_or_default().to_string_lossy().into_owned();
        let Some(user) = first.strip_prefix('~') else { return Ok(expanded) };
        let reason = match user {
            "" => "there is no home directory: set HOME, or write the whole path".to_owned(),
            _ => format!(
                "the home directory of a user `{user}` is not known (/etc/passwd names none): write the whole \
                 path, or `./{first}` for a folder of that name"
            ),
        };
        let problem = format!("`{}`: {reason}", path.display());
        Err(Error::Option { option: source, problem })
    }

    /// A path in a variable, with all that can be in it.
    fn path(&self, name: &'static str) -> Result<Option<PathBuf>> {
        self.set(name).map(|value| self.path_of(name, &self.expand(value))).transpose()
    }

    /// `HF_HOME`: what all of Hugging Face's libraries keep.
    fn hf_home(&self) -> Option<PathBuf> {
        let home = self.set("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache = self.set("XDG_CACHE_HOME").map(PathBuf::from);
            Some(cache.or_else(|| Some(self.home()?.join(".cache")))?.join("huggingface"))
        })?;
        Some(self.expand(home.as_os_str()).into())
    }

    /// A file or folder in [`hf_home`](Self::hf_home). The reference expands the whole of it once
    /// more.
    fn in_hf_home(&self, name: &str) -> Result<Option<PathBuf>> {
        let path = self.hf_home().map(|home| self.expand(home.join(name).as_os_str()));
        path.map(|path| self.path_of("HF_HOME", &path)).transpose()
    }

    /// Where models are kept; `None` without a home directory.
    pub(super) fn cache(&self) -> Result<Option<PathBuf>> {
        // The reference takes it as an argument of the call, in which no variables are expanded.
        const OF_SENTENCES: &str = "SENTENCE_TRANSFORMERS_HOME";
        if let Some(folder) = self.set(OF_SENTENCES) {
            return self.path_of(OF_SENTENCES, folder).map(Some);
        }
        for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] {
            if let Some(folder) = self.path(name)? {
                return Ok(Some(folder));
            }
        }
        self.in_hf_home("hub")
    }

    pub(super) fn endpoint(&self) -> Option<String> {
        self.text("HF_ENDPOINT")
    }

    pub(super) fn is_offline(&self) -> bool {
        match self.set("HF_HUB_OFFLINE") {
            Some(_) => self.is_on("HF_HUB_OFFLINE"),
            None => self.is_on("TRANSFORMERS_OFFLINE"),
        }
    }

    /// The token that goes with every request.
    pub(super) fn token(&self) -> Result<Option<String>> {
        if self.is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            return Ok(None);
        }
        if self.set("HF_OIDC_RESOURCE").is_some() {
            let problem = "it asks for a token by OpenID Connect, which only Python's huggingface_hub exchanges: unset \
                           it, or give a token by `HubModel::token`, or none by `HubModel::no_token`";
            return Err(Error::Option { option: "HF_OIDC_RESOURCE", problem: problem.to_owned() });
        }
        let of_variable = self.text("HF_TOKEN").or_else(|| self.text("HUGGING_FACE_HUB_TOKEN"));
        if let Some(token) = of_variable.as_deref().and_then(clean_token) {
            return Ok(Some(token));
        }
        let path = match self.path("HF_TOKEN_PATH")? {
            Some(path) => Some(path),
            None => self.in_hf_home("token")?,
        };
        let Some(path) = path else { return Ok(None) };
        match fs::read_to_string(&path) {
            Ok(token) => Ok(clean_token(&token)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    /// How long to wait, by the variable `name`; 0 counts as unset.
    pub(super) fn seconds(&self, name: &'static str) -> Result<Option<Duration>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.trim().parse() {
            Ok(seconds) => Ok(Some(Duration::from_secs(seconds)).filter(|it| !it.is_zero())),
            Err(_) => {
                let problem = format!("`{text}` must be a whole number of seconds");
                Err(Error::Option { option: name, problem })
            }
        }
    }

    /// A file of certificates, and a list of folders that is read if there is no such file.
    pub(super) fn certificates(&self) -> Result<Option<Certificates>> {
        if let Some(file) = self.path("SSL_CERT_FILE")? {
            return Ok(Some(Certificates::File(file)));
        }
        let Some(folders) = self.set("SSL_CERT_DIR") else { return Ok(None) };
        let folders = env::split_paths(folders)
            .map(|folder| self.path_of("SSL_CERT_DIR", &self.expand(folder.as_os_str())));
        folders.collect::<Result<_>>().map(|folders| Some(Certificates::Folders(folders)))
    }
}

/// The certificates to trust, if not those that are built in.
#[derive(Debug)]
pub(super) enum Certificates {
    File(PathBuf),
    /// By the names that OpenSSL looks for.
    Folders(Vec<PathBuf>),
}

/// `None` if nothing is left.
fn clean_token(token: &str) -> Option<String> {
    let token = token.replace(['\r', '\n'], "");
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

/// The home directory of a user, by the lines `name:password:number:group:comment:home:shell`.
#[cfg(unix)]
fn home_of(name: &[u8], users: &[u8]) -> Option<Vec<u8>> {
    users.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.split(|&byte| byte == b':');
        (fields.next() == Some(name)).then(|| fields.nth(4).map(<[u8]>::to_vec))?
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::hub::HubModel;
    use crate::hub::settings::{Settings, Token};

    use serde_json::Value;

    pub(in super::super) fn env(variables: &[(&str, &str)]) -> Env {
        let own = |&(name, value): &(&str, &str)| (name.into(), value.into());
        Env {
            variables: variables.iter().map(own).collect(),
            home: None,
            #[cfg(unix)]
            users: || {
                b"daemon:x:1:1:daemon:/usr/sbin:/bin/sh\nroot:x:0:0:root:/root:/bin/bash\n".to_vec()
            },
        }
    }

    /// What the reference makes of environments: tests/data/hub/environment.py.
    pub(in super::super) fn golden() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/hub/environment.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// The variables of a case, `@` in them replaced.
    pub(in super::super) fn env_of(case: &Value, at: &str) -> Env {
        let variables = case["variables"].as_object().unwrap().iter();
        let variables: Vec<_> = variables
            .map(|(name, value)| (name, value.as_str().unwrap().replace('@', at)))
            .collect();
        env(&variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect::<Vec<_>>())
    }

    fn cases(name: &str) -> Vec<Value> {
        let cases = golden()[name].as_array().unwrap().clone();
        assert!(!cases.is_empty());
        cases
    }

    #[test]
    #[cfg(unix)]
    fn the_cache_is_where_the_reference_has_it() {
        for case in cases("caches") {
            let found = Settings::resolve(&HubModel::new("org/name"), &env_of(&case, ""));
            match case["cache"].as_str().unwrap() {
                "refused" => {
                    assert!(matches!(found, Err(Error::Option { .. })), "{case}: {found:?}")
                }
                cache => {
                    let want = env::current_dir().unwrap().join(cache);
                    assert_eq!(found.unwrap().cache, want, "{case}");
                }
            }
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_home_directory_that_is_not_known_is_named() {
        let said = |variables: &[(&str, &str)], model: HubModel| match Settings::resolve(
            &model,
            &env(variables),
        ) {
            Err(Error::Option { option, problem }) => format!("{option}: {problem}"),
            other => panic!("{other:?}"),
        };
        let model = || HubModel::new("org/name");
        let home = ("HOME", "/home/me");
        let unknown = said(&[home, ("HF_HUB_CACHE", "~nobody/hub")], model());
        assert!(
            unknown.starts_with("HF_HUB_CACHE: `~nobody/hub`: ") && unknown.contains("`nobody`"),
            "{unknown}"
        );
        let unknown = said(&[home, ("HF_HOME", "~nobody/hf")], model());
        assert!(unknown.starts_with("HF_HOME: `~nobody/hf"), "{unknown}");
        let homeless = said(&[("HF_HOME", "~/hf")], model());
        assert!(homeless.contains("there is no home directory"), "{homeless}");
        let of_call = said(&[home], model().cache_dir("~nobody"));
        assert!(of_call.starts_with("cache_dir: "), "{of_call}");
        let of_token = said(&[home, ("HF_TOKEN_PATH", "~nobody/token")], model());
        assert!(of_token.starts_with("HF_TOKEN_PATH: "), "{of_token}");
    }

    /// As `cache_folder="~/x"` in Python: `~` alone, for a folder may well have a `$` in its name.
    #[test]
    #[cfg(unix)]
    fn a_cache_of_the_call() {
        let cache = |folder: &str| {
            let variables = [("HOME", "/home/me"), ("HF_HOME", "/hf"), ("A", "/a")];
            Settings::resolve(&HubModel::new("org/name").cache_dir(folder), &env(&variables))
                .unwrap()
                .cache
        };
        assert_eq!(cache("~/x"), PathBuf::from("/home/me/x"));
        assert_eq!(cache("~"), PathBuf::from("/home/me"));
        assert_eq!(cache("~root/x"), PathBuf::from("/root/x"));
        assert_eq!(cache("/x/$A"), PathBuf::from("/x/$A"));
        assert_eq!(cache("./~nobody"), env::current_dir().unwrap().join("~nobody"));
    }

    /// The home directory by the system, where `HOME` is not set.
    #[test]
    #[cfg(unix)]
    fn a_home_directory_without_a_variable() {
        let env = Env { home: Some("/home/of_passwd".into()), ..env(&[("HF_HOME", "~/hf")]) };
        assert_eq!(env.cache().unwrap().unwrap(), PathBuf::from("/home/of_passwd/hf/hub"));
        let env = Env { home: Some("/home/of_passwd".into()), ..self::env(&[]) };
        let want = PathBuf::from("/home/of_passwd/.cache/huggingface/hub");
        assert_eq!(env.cache().unwrap().unwrap(), want);
    }

    #[test]
    fn tokens_as_the_reference_takes_them() {
        let files = golden()["token_files"].as_object().unwrap().clone();
        for case in cases("tokens") {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in &files {
                let path = folder.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text.as_str().unwrap()).unwrap();
            }
            let env = env_of(&case, folder.path().to_str().unwrap());
            let found = match Settings::resolve(&HubModel::new("org/name").cache_dir("/c"), &env)
                .unwrap()
                .token
            {
                Token::Given(token) => Value::from(token),
                Token::None => Value::Null,
                Token::Implicit => unreachable!("it was resolved"),
            };
            assert_eq!(found, case["token"], "{case}");
        }
    }

    #[test]
    fn offline_as_the_reference_takes_it() {
        for case in cases("offline") {
            assert_eq!(Value::from(env_of(&case, "").is_offline()), case["offline"], "{case}");
        }
    }

    #[test]
    fn endpoints_as_the_reference_takes_them() {
        for case in cases("endpoints") {
            let found =
                Settings::resolve(&HubModel::new("org/name").cache_dir("/c"), &env_of(&case, ""));
            assert_eq!(Value::from(found.unwrap().endpoint), case["endpoint"], "{case}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn paths_are_expanded_as_posixpath_does() {
        let golden = &golden()["posix"];
        let env = env_of(golden, "");
        for pair in golden["paths"].as_array().unwrap() {
            let (path, want) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
            assert_eq!(env.expand(OsStr::new(path)), OsStr::new(want), "{path}");
        }
    }

    #[test]
    fn paths_are_expanded_as_ntpath_does() {
        let golden = &golden()["windows"];
        let variables = golden["variables"].as_object().unwrap();
        let get = |name: &str| variables.get(name).map(|value| value.as_str().unwrap().to_owned());
        for pair in golden["paths"].as_array().unwrap() {
            let (path, want) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
            let found = expand::windows::variables(&expand::windows::user(path, get), get);
            assert_eq!(found, want, "{path}");
        }
    }

    /// Bytes that are no text stay what they are.
    #[test]
    #[cfg(unix)]
    fn a_path_need_not_be_unicode() {
        use std::os::unix::ffi::OsStrExt;
        let path = OsStr::from_bytes(b"$HOME/\xff/$A");
        let env = env(&[("HOME", "/home/me")]);
        assert_eq!(env.expand(path), OsStr::from_bytes(b"/home/me/\xff/$A"));
    }

    #[test]
    fn seconds_are_whole() {
        let seconds =
            |value: &str| env(&[("HF_HUB_ETAG_TIMEOUT", value)]).seconds("HF_HUB_ETAG_TIMEOUT");
        assert_eq!(seconds("30").unwrap(), Some(Duration::from_secs(30)));
        assert_eq!(seconds("").unwrap(), None);
        assert_eq!(seconds("0").unwrap(), None);
        for wrong in ["soon", "1.5", "-1"] {
            let error = seconds(wrong).unwrap_err();
            assert!(
                matches!(error, Error::Option { option: "HF_HUB_ETAG_TIMEOUT", .. }),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_token_that_must_be_exchanged_is_refused() {
        let variables = [("HOME", "/"), ("HF_OIDC_RESOURCE", "org/name"), ("HF_TOKEN", "other")];
        let resolve = |model: HubModel| Settings::resolve(&model, &env(&variables));
        let error = resolve(HubModel::new("org/name")).unwrap_err();
        assert!(matches!(error, Error::Option { option: "HF_OIDC_RESOURCE", .. }), "{error:?}");
        assert!(resolve(HubModel::new("org/name").no_token()).is_ok());
        assert!(resolve(HubModel::new("org/name").local_files_only(true)).is_ok());
    }
}
