//! The command line of the examples: flags, the model directory, errors and exit codes.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use lexopt::{Arg, ValueExt};

use super::{Error, Result, fetch};

/// Where the real weights are kept: `$XDG_CACHE_HOME/mpnet/all-mpnet-base-v2`, else
/// `~/.cache/mpnet/all-mpnet-base-v2`.
pub fn cache_dir() -> Result<PathBuf> {
    const HOME: &str = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
    // The XDG specification asks to ignore relative paths.
    let xdg = non_empty("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let cache = xdg.or_else(|| non_empty(HOME).map(|home| Path::new(&home).join(".cache")));
    match cache {
        Some(cache) => Ok(cache.join("mpnet").join("all-mpnet-base-v2")),
        None => Err(format!("no cache directory: neither XDG_CACHE_HOME nor {HOME} is set").into()),
    }
}

/// The model directory: the `--model` flag, else the environment variable `MPNET_MODEL_DIR`, else
/// the cache directory if it holds a complete model; `None` if there is no model yet.
///
/// # Errors
///
/// If the flag or the variable names something that is not a directory.
pub fn find_model(flag: Option<PathBuf>) -> Result<Option<PathBuf>> {
    const VARIABLE: &str = "MPNET_MODEL_DIR";
    let variable = || non_empty(VARIABLE).map(|dir| (VARIABLE, dir.into()));
    match flag.map(|dir| ("--model", dir)).or_else(variable) {
        None => Ok(Some(cache_dir()?).filter(|dir| fetch::is_complete(dir))),
        Some((_, dir)) if dir.is_dir() => Ok(Some(dir)),
        Some((from, dir)) => Err(format!(
            "{from}: there is no directory {}. For the name of a model on the Hugging Face hub run the example from_hub \
             (--features hub), which prints the directory that it fetches the model into",
            dir.display()
        )
        .into()),
    }
}

/// As [`find_model`], for examples that do not fetch a model by themselves.
pub fn require_model(flag: Option<PathBuf>) -> Result<PathBuf> {
    find_model(flag)?.ok_or_else(|| {
        "there is no model: give --model, set MPNET_MODEL_DIR, or run the example fetch_model"
            .into()
    })
}

/// The most threads that `--threads` takes on a machine with fewer cores: to start thousands of
/// them takes many seconds, and each call would wait for all.
const MAX_THREADS: usize = 256;

/// Runs `main` in a pool of that many threads, or as it is.
///
/// # Errors
///
/// Those of `main`; if the number of threads is 0 or too large.
pub fn with_threads(
    threads: Option<usize>,
    main: impl FnOnce() -> Result<()> + Send,
) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = cores.max(MAX_THREADS);
    match threads {
        None => main(),
        Some(threads) if !(1..=most).contains(&threads) => {
            let cores = if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") };
            Err(format!("--threads: is {threads}, must be from 1 to {most}; there are {cores}")
                .into())
        }
        Some(threads) => {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(main)
        }
    }
}

fn non_empty(variable: &str) -> Option<OsString> {
    env::var_os(variable).filter(|value| !value.is_empty())
}

/// Runs an example and turns its result into an exit code: 0, or 1 after one line `error: …` on
/// standard error, or 2 if the command line was wrong.
///
/// A reader that closes standard output early (`encode … | head`) ends the example quietly; for
/// that, write with `writeln!(stdout, …)?`, since `println!` panics instead.
pub fn run(main: impl FnOnce() -> Result<()>) -> ExitCode {
    let Err(error) = main() else {
        return ExitCode::SUCCESS;
    };
    // If not even this can be written, nobody is there to read of it.
    if let Some(stop) = error.downcast_ref::<Stop>() {
        let _ = match stop.code {
            0 => writeln!(io::stdout(), "{stop}"),
            _ => writeln!(io::stderr(), "{stop}"),
        };
        return ExitCode::from(stop.code);
    }
    if is_broken_pipe(&*error) {
        return ExitCode::SUCCESS;
    }
    let _ = writeln!(io::stderr(), "error: {}", in_one_line(&*error));
    ExitCode::FAILURE
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    chain(error)
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The message and those of its causes that it does not contain already.
fn in_one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = String::new();
    for error in chain(error) {
        let message = error.to_string();
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.is_empty() {
            line = message;
        } else if !line.contains(&message) {
            line = format!("{line}: {message}");
        }
    }
    line
}

/// An end before the example's work began: asked for help (code 0), or called wrongly.
#[derive(Debug)]
struct Stop {
    text: String,
    code: u8,
}

impl Stop {
    fn error(text: String, code: u8) -> Error {
        Box::new(Self { text, code })
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Stop {}

/// The flags of an example, one after another; `--help` and mistakes end the example through
/// [`run`].
///
/// ```ignore
/// let mut flags = Flags::from_env(HELP);
/// while let Some(flag) = flags.next_flag()? {
///     match flag.as_str() {
///         "--model" => model = Some(flags.path()?),
///         "--threads" => threads = flags.value()?,
///         _ => return Err(flags.unknown()),
///     }
/// }
/// ```
pub struct Flags {
    parser: lexopt::Parser,
    help: &'static str,
    current: String,
}

impl Flags {
    /// `help`: what `--help` prints; its first line is the usage line.
    pub fn from_env(help: &'static str) -> Self {
        Self { parser: lexopt::Parser::from_env(), help, current: String::new() }
    }

    /// The next flag with its dashes, or `None` at the end.
    pub fn next_flag(&mut self) -> Result<Option<String>> {
        self.current = match self.parser.next() {
            Ok(None) => return Ok(None),
            Ok(Some(Arg::Long("help") | Arg::Short('h'))) => {
                return Err(Stop::error(self.help.into(), 0));
            }
            Ok(Some(Arg::Long(name))) => format!("--{name}"),
            Ok(Some(Arg::Short(name))) => format!("-{name}"),
            Ok(Some(Arg::Value(value))) => {
                let wrong = format!("unexpected argument `{}`", value.display());
                return Err(self.misuse(wrong));
            }
            Err(error) => return Err(self.misuse(error.to_string())),
        };
        Ok(Some(self.current.clone()))
    }

    /// The value of the current flag.
    pub fn value<T: FromStr<Err: Into<Error>>>(&mut self) -> Result<T> {
        let value = self.os_value()?.parse();
        value.map_err(|error| self.misuse(format!("{}: {error}", self.current)))
    }

    /// The value of the current flag as a path, which need not be UTF-8.
    pub fn path(&mut self) -> Result<PathBuf> {
        Ok(self.os_value()?.into())
    }

    fn os_value(&mut self) -> Result<OsString> {
        self.parser.value().map_err(|error| self.misuse(error.to_string()))
    }

    /// The error for a current flag that the example does not know.
    pub fn unknown(&self) -> Error {
        self.misuse(format!("unknown flag `{}`", self.current))
    }

    fn misuse(&self, wrong: String) -> Error {
        let usage = self.help.lines().next().unwrap_or_default();
        Stop::error(format!("error: {wrong}\n{usage}"), 2)
    }
}
