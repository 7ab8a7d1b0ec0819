//! [`Isa`]: which instruction set the kernels use.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// An instruction set that the kernels can run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust over the `matrixmultiply` crate, on every machine. (That crate has vector kernels of its own, which it
    /// chooses when it runs.)
    Scalar,
}

/// The environment variable that forces an instruction set.
pub const VARIABLE: &str = "MPNET_ISA";

impl Isa {
    /// Every instruction set that this build has and this machine can run, the fastest last.
    #[must_use]
    pub fn available() -> &'static [Self] {
        &[Self::Scalar]
    }

    /// The instruction set that `MPNET_ISA` forces, or the fastest available one if the variable is not set.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the variable names an instruction set that does not exist or is not available.
    pub fn detect() -> Result<Self> {
        match std::env::var_os(VARIABLE) {
            None => Ok(Self::Scalar),
            Some(name) => parse(&name.to_string_lossy(), VARIABLE),
        }
    }

    /// Its name, as `MPNET_ISA` and `--isa` take it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
        }
    }
}

impl FromStr for Isa {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        parse(name, "isa")
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn parse(name: &str, option: &'static str) -> Result<Isa> {
    let available = Isa::available();
    available.iter().find(|isa| isa.name() == name).copied().ok_or_else(|| {
        let names: Vec<&str> = available.iter().map(|isa| isa.name()).collect();
        let problem = format!("`{name}` is not available here; {} is", names.join(", "));
        Error::Option { option, problem }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for &isa in Isa::available() {
            assert_eq!(isa.to_string().parse::<Isa>().unwrap(), isa);
        }
        let error = "sse9".parse::<Isa>().unwrap_err().to_string();
        assert!(error.contains("sse9") && error.contains("scalar"), "{error}");
    }
}
