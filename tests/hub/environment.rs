//! What is set by variables, in a process of its own: those of this one belong to all tests.

use std::process::Command;

use mpnet::{Error, SentenceEncoder};

use super::Setup;
use super::server::REPO;

/// Loads the model with nothing set by a call, and says how that went.
#[test]
#[ignore = "a part of the tests below"]
fn child() {
    match SentenceEncoder::from_hub(REPO) {
        Ok(encoder) => println!("width {}", encoder.encode_one("the man").unwrap().len()),
        Err(Error::Hub { source, .. }) => println!("problem {source:?}"),
        Err(error) => println!("error {error:?}"),
    }
}

/// What the child says with these variables, and no other that it heeds.
fn run(setup: &Setup, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "environment::child", "--ignored", "--nocapture"]);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["HF_", "HUGGING", "SENTENCE_", "TRANSFORMERS_", "SSL_"]
            .iter()
            .any(|it| name.starts_with(it))
        {
            command.env_remove(&*name);
        }
    }
    command.env("HF_ENDPOINT", setup.hub.url()).env("HF_HOME", setup.folder.path().join("home"));
    let output = command.envs(variables.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_environment_is_heeded() {
    let setup = Setup::new();
    setup.hub.require_token("of_the_environment");
    assert!(run(&setup, &[]).contains("problem RepositoryNotFound"));
    assert!(run(&setup, &[("HF_HUB_OFFLINE", "1")]).contains("problem Offline"));
    assert!(run(&setup, &[("HF_TOKEN", "of_the_environment")]).contains("width 32"));
    assert!(setup.folder.path().join("home/hub/models--org--tiny/refs/main").is_file());
    setup.hub.take_log();
    assert!(run(&setup, &[("HF_HUB_OFFLINE", "1")]).contains("width 32"));
    assert!(setup.hub.take_log().is_empty(), "the hub was asked");
}

/// With the provider that the feature brings, on the architectures that it knows.
#[test]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn tls_with_the_certificates_of_the_environment() {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let setup = Setup::new();
    // A certificate for localhost that signs itself, for a hundred years: tests/data/hub/make.sh
    let trusted = super::common::data("hub/certificate.pem");
    let certificate = CertificateDer::from_pem_file(&trusted).unwrap();
    let key = PrivateKeyDer::from_pem_file(super::common::data("hub/key.pem")).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(rustls_graviola::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
    let endpoint = format!("https://localhost:{}", setup.hub.listen_with_tls(config));
    let trusted = trusted.to_str().unwrap();

    // Not signed by anybody who is trusted: no second attempt.
    let said = run(&setup, &[("HF_ENDPOINT", &endpoint)]);
    assert!(said.contains("problem Tls") && said.contains("UnknownIssuer"), "{said}");
    assert!(setup.hub.take_log().is_empty());

    // Trusted; but the storage of this hub is not encrypted.
    let said = run(&setup, &[("HF_ENDPOINT", &endpoint), ("SSL_CERT_FILE", trusted)]);
    assert!(said.contains("problem Redirect") && said.contains("which is not encrypted"), "{said}");
    assert!(setup.hub.take_log().iter().any(|request| request.is_get_of("tokenizer.json")));

    // Here the weights are no file of large-file storage.
    let weights = setup.hub.read(super::WEIGHTS);
    setup.hub.change(move |request, reply| match request.path.contains(super::WEIGHTS) {
        true => {
            let mut reply = super::server::ranged(request, &weights);
            reply.headers.push(("ETag", super::server::sha256(&weights)));
            reply.with("X-Repo-Commit", super::COMMIT)
        }
        false => reply,
    });
    let said = run(&setup, &[("HF_ENDPOINT", &endpoint), ("SSL_CERT_FILE", trusted)]);
    assert!(said.contains("width 32"), "{said}");

    let empty = setup.folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let variables = [("HF_ENDPOINT", &*endpoint), ("SSL_CERT_FILE", empty.to_str().unwrap())];
    assert!(run(&setup, &variables).contains("holds no certificate"));
}
