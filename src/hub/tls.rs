//! TLS for the client: which cryptography, which certificates.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use super::environment::Certificates;
use crate::error::{Error, Result};

/// The provider that the program has installed, else graviola where the processor has what it
/// needs, else none.
pub(super) fn provider() -> Option<Arc<CryptoProvider>> {
    CryptoProvider::get_default().cloned().or_else(graviola)
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn graviola() -> Option<Arc<CryptoProvider>> {
    // It checks as well, but panics.
    has_instructions().then(|| Arc::new(rustls_graviola::default_provider()))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn graviola() -> Option<Arc<CryptoProvider>> {
    None
}

#[cfg(target_arch = "x86_64")]
fn has_instructions() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("aes")
        && has!("pclmulqdq")
        && has!("ssse3")
        && has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("adx")
}

#[cfg(target_arch = "aarch64")]
fn has_instructions() -> bool {
    use std::arch::is_aarch64_feature_detected as has;
    has!("neon") && has!("aes") && has!("pmull") && has!("sha2")
}

/// The client's settings: `provider`, and the certificates to trust, else Mozilla's.
pub(super) fn config(
    provider: Arc<CryptoProvider>,
    trusted: Option<&Certificates>,
) -> Result<TlsConfig> {
    let roots = trusted.map_or(Ok(RootCerts::WebPki), read_certificates)?;
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(roots)
        .build())
}

fn read_certificates(trusted: &Certificates) -> Result<RootCerts> {
    let (option, certificates, problem) = match trusted {
        Certificates::File(path) => (
            "SSL_CERT_FILE",
            read_file(path)?,
            format!("`{}` holds no certificate", path.display()),
        ),
        Certificates::Folders(folders) => {
            let mut certificates = Vec::new();
            for folder in folders {
                read_folder(folder, &mut certificates)?;
            }
            let folders: Vec<_> =
                folders.iter().map(|folder| folder.display().to_string()).collect();
            let problem = format!(
                "`{}` holds no certificate under a name such as `5ed36f99.0`, which `openssl rehash` gives",
                folders.join("`, `")
            );
            ("SSL_CERT_DIR", certificates, problem)
        }
    };
    if certificates.is_empty() {
        return Err(Error::Option { option, problem });
    }
    Ok(certificates.into())
}

fn read_file(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let pem = fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let certificates = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None, // keys, and what is not PEM
    });
    Ok(certificates.collect())
}

/// The files whose names OpenSSL looks for, eight digits and a number: the others are not trusted
/// by it, either.
fn read_folder(folder: &Path, certificates: &mut Vec<Certificate<'static>>) -> Result<()> {
    let failed = |source| Error::Io { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        let is_hash = name.split_once('.').is_some_and(|(hash, number)| {
            hash.len() == 8
                && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        if is_hash {
            certificates.extend(read_file(&folder.join(&*name))?);
        }
    }
    Ok(())
}
