//! A server on loopback that plays the hub, and another that plays the storage it redirects to.
//!
//! As huggingface.co does it: a file in large-file storage (`*.safetensors`) is a redirect to
//! another host, with `X-Linked-Etag` and `X-Linked-Size`; any other file is a relative redirect to
//! an address of the hub's own.

#![allow(unreachable_pub, reason = "a module of a test, public in none")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};

pub const REPO: &str = "org/tiny";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    pub headers: BTreeMap<String, String>,
    /// Whether it came to the storage, not to the hub.
    pub storage: bool,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(&name.to_lowercase()).map(String::as_str)
    }

    /// Whether it asks for the bytes of a `file` that the storage has, or for what the hub has of
    /// it.
    pub fn is_get_of(&self, file: &str) -> bool {
        let path = self.path.split('?').next().unwrap();
        self.method == "GET" && path.ends_with(&format!("/{file}"))
    }
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// After so many bytes of the body the connection breaks.
    pub cut: Option<usize>,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), cut: None }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name, value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }
}

type Change = Box<dyn FnMut(&Request, Reply) -> Reply + Send>;

struct State {
    files: BTreeMap<String, Vec<u8>>,
    commit: String,
    /// Needed for every request, if set.
    token: Option<&'static str>,
    log: Vec<Request>,
    change: Change,
    /// The address of the storage.
    storage: SocketAddr,
}

/// Both servers. They end with the process.
#[derive(Clone)]
pub struct Hub {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Hub {
    /// Serves the files of a directory.
    pub fn of(directory: &Path) -> Self {
        let mut files = BTreeMap::new();
        read_tree(directory, "", &mut files);
        // What other tools have in such a repository, and this crate must not fetch.
        for extra in ["pytorch_model.bin", "onnx/model.onnx", "README.md", ".gitattributes"] {
            files.insert(extra.to_owned(), vec![b'x'; 1000]);
        }
        let (hub, storage) = (listen(), listen());
        let state = State {
            files,
            commit: COMMIT.to_owned(),
            token: None,
            log: Vec::new(),
            change: Box::new(|_, reply| reply),
            storage: storage.local_addr().unwrap(),
        };
        let this = Self { address: hub.local_addr().unwrap(), state: Arc::new(Mutex::new(state)) };
        for (listener, is_storage) in [(hub, false), (storage, true)] {
            let this = this.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let this = this.clone();
                    thread::spawn(move || this.serve(stream, is_storage));
                }
            });
        }
        this
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn write(&self, name: &str, contents: impl Into<Vec<u8>>) -> &Self {
        self.state.lock().unwrap().files.insert(name.to_owned(), contents.into());
        self
    }

    pub fn remove(&self, name: &str) -> &Self {
        assert!(self.state.lock().unwrap().files.remove(name).is_some(), "{name}");
        self
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        self.state.lock().unwrap().files[name].clone()
    }

    /// The branch `main` is at another commit from now on.
    pub fn set_commit(&self, commit: &str) -> &Self {
        self.state.lock().unwrap().commit = commit.to_owned();
        self
    }

    pub fn require_token(&self, token: &'static str) -> &Self {
        self.state.lock().unwrap().token = Some(token);
        self
    }

    /// `change` sees every request with the reply that a good server would give, and gives its own.
    pub fn change(&self, change: impl FnMut(&Request, Reply) -> Reply + Send + 'static) -> &Self {
        self.state.lock().unwrap().change = Box::new(change);
        self
    }

    /// All requests since the last time.
    pub fn take_log(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }

    /// Serves the hub by TLS, too, at the port that it returns.
    pub fn listen_with_tls(&self, config: rustls::ServerConfig) -> u16 {
        let (listener, config, this) = (listen(), Arc::new(config), self.clone());
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                this.serve(rustls::StreamOwned::new(connection, stream), false);
            }
        });
        port
    }

    fn serve(&self, mut stream: impl Read + Write, storage: bool) -> Option<()> {
        let request = read_request(&mut stream, storage)?;
        let reply = {
            let mut state = self.state.lock().unwrap();
            state.log.push(request.clone());
            let good = if storage { state.of_storage(&request) } else { state.of_hub(&request) };
            (state.change)(&request, good)
        };
        write_reply(stream, &request, reply).ok()
    }
}

impl State {
    fn of_hub(&self, request: &Request) -> Reply {
        if let Some(token) = self.token
            && request.header("Authorization") != Some(&format!("Bearer {token}"))
        {
            return Reply::new(401).with("X-Error-Message", "Invalid username or password.");
        }
        let path = request.path.split('?').next().unwrap();
        if let Some(file) = path.strip_prefix(&format!("/api/resolve-cache/{COMMIT}/")) {
            return ranged(request, &self.files[file])
                .with("ETag", format!("\"{}\"", git_hash(&self.files[file])))
                .with("X-Repo-Commit", &self.commit);
        }
        let Some(rest) = path.strip_prefix(&format!("/{REPO}/resolve/")) else {
            return Reply::new(404).with("X-Error-Code", "RepoNotFound");
        };
        let (revision, file) = rest.split_once('/').unwrap();
        if !["main", "v1%2Ftag", self.commit.as_str()].contains(&revision) {
            return Reply::new(404).with("X-Error-Code", "RevisionNotFound");
        }
        let commit = self.commit.clone();
        match self.files.get(file) {
            None => {
                Reply::new(404).with("X-Error-Code", "EntryNotFound").with("X-Repo-Commit", commit)
            }
            Some(contents) if file.ends_with(".safetensors") => Reply::new(302)
                .with("Location", format!("http://{}/blobs/{file}?Signature=secret", self.storage))
                .with("X-Repo-Commit", commit)
                .with("X-Linked-Etag", format!("\"{}\"", sha256(contents)))
                .with("X-Linked-Size", contents.len().to_string())
                .with("ETag", "\"of-the-redirect\""),
            Some(_) => Reply::new(307)
                .with("Location", format!("/api/resolve-cache/{COMMIT}/{file}?y=1"))
                .with("X-Repo-Commit", commit),
        }
    }

    fn of_storage(&self, request: &Request) -> Reply {
        let path = request.path.split('?').next().unwrap();
        match path.strip_prefix("/blobs/").and_then(|file| self.files.get(file)) {
            Some(contents) => ranged(request, contents).with("ETag", "\"of-the-storage-3\""),
            None => Reply::new(404),
        }
    }
}

/// All of the contents, or the part that the request asks for.
pub fn ranged(request: &Request, contents: &[u8]) -> Reply {
    let total = contents.len();
    let Some(range) = request.header("Range") else {
        return Reply { body: contents.to_vec(), ..Reply::new(200) };
    };
    let start: usize = range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
    if start >= total {
        return Reply::new(416).with("Content-Range", format!("bytes */{total}"));
    }
    Reply { body: contents[start..].to_vec(), ..Reply::new(206) }
        .with("Content-Range", format!("bytes {start}-{}/{total}", total - 1))
}

pub fn sha256(contents: &[u8]) -> String {
    Sha256::digest(contents).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 40 digits that depend on the contents, as Git's hashes do.
pub fn git_hash(contents: &[u8]) -> String {
    sha256(contents)[..40].to_owned()
}

fn listen() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).unwrap()
}

fn read_tree(directory: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read_tree(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}

fn read_request(stream: &mut impl Read, storage: bool) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let line = lines.next()?.ok()?;
        match line.split_once(':') {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_owned()),
            None => return Some(Request { method, path, headers, storage }),
        };
    }
}

fn write_reply(mut stream: impl Write, request: &Request, reply: Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Said\r\nConnection: close\r\n", reply.status);
    // An empty length stands for none.
    for (name, value) in reply.headers.iter().filter(|(_, value)| !value.is_empty()) {
        head += &format!("{name}: {value}\r\n");
    }
    if !reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("Content-Length")) {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method == "GET" {
        stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])?;
    }
    stream.flush()
}
