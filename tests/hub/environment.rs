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
        Err(Error::Hub { source, .. }) => println!("problem {source:?}: {source}"),
        Err(error) => println!("error {error:?}"),
    }
}

/// What the child says with these variables, and no other that it heeds.
pub(super) fn run(setup: &Setup, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "environment::child", "--ignored", "--nocapture"]);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let families = ["HF_", "HUGGING", "SENTENCE_", "TRANSFORMERS_", "SSL_", "XDG_"];
        if families.iter().any(|it| name.starts_with(it)) || name.to_lowercase().ends_with("_proxy")
        {
            command.env_remove(&*name);
        }
    }
    command.env("HF_ENDPOINT", setup.hub.url()).env("HF_HOME", setup.folder.path().join("home"));
    // A folder that is made by mistake is made there.
    command.current_dir(setup.folder.path());
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

/// The reference's values are in the unit tests of the crate; here the files are where they should
/// be.
#[test]
#[cfg(unix)]
fn paths_in_variables_are_expanded() {
    let repo = "models--org--tiny/refs/main";
    for (variables, want) in [
        ([("HF_HOME", "$HOME/hf"), ("", "")], format!("hf/hub/{repo}")),
        ([("HF_HOME", "~/${A}"), ("A", "b")], format!("b/hub/{repo}")),
        ([("HF_HUB_CACHE", "$HOME/cache"), ("", "")], format!("cache/{repo}")),
        ([("XDG_CACHE_HOME", "~/xdg"), ("HF_HOME", "")], format!("xdg/huggingface/hub/{repo}")),
        ([("SENTENCE_TRANSFORMERS_HOME", "~/st"), ("", "")], format!("st/{repo}")),
    ] {
        let setup = Setup::new();
        let home = setup.folder.path().to_str().unwrap();
        let mut all = vec![("HOME", home)];
        all.extend(variables.into_iter().filter(|(name, _)| !name.is_empty()));
        let said = run(&setup, &all);
        assert!(said.contains("width 32"), "{said}");
        assert!(setup.folder.path().join(&want).is_file(), "{want}: {:?}", setup.listing());
        let odd = setup.listing().into_iter().find(|name| name.contains(['$', '~']));
        assert_eq!(odd, None);
    }
    let setup = Setup::new();
    let said = run(&setup, &[("HF_HOME", "~a_user_that_is_not_there/hf")]);
    assert!(said.contains("HF_HOME") && said.contains("`a_user_that_is_not_there`"), "{said}");
    assert!(setup.listing().is_empty(), "{:?}", setup.listing());
}

/// A hub that takes connections and does not answer; without the variable it is waited for 30
/// seconds.
#[test]
fn the_environment_says_how_long_to_wait() {
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let setup = Setup::new();
    assert!(run(&setup, &[]).contains("width 32"));
    let start = std::time::Instant::now();
    let said = run(&setup, &[("HF_ENDPOINT", &endpoint), ("HF_HUB_ETAG_TIMEOUT", "1")]);
    assert!(said.contains("width 32"), "what was fetched before will do: {said}");
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    let said = run(&setup, &[("HF_HUB_DOWNLOAD_TIMEOUT", "soon")]);
    assert!(
        said.contains("HF_HUB_DOWNLOAD_TIMEOUT") && said.contains("number of seconds"),
        "{said}"
    );
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

    // By way of a proxy, through a tunnel to the hub; the others are not used.
    let proxy = super::proxy::Proxy::new();
    let named = format!("http://me:of_the_proxy@{}", proxy.host());
    let by_proxy = [
        ("HF_ENDPOINT", &*endpoint),
        ("SSL_CERT_FILE", trusted),
        ("HTTPS_PROXY", &named),
        ("HTTP_PROXY", "127.0.0.1:9"),
        ("ALL_PROXY", "127.0.0.1:9"),
        ("HF_HOME", "another"),
    ];
    let said = run(&setup, &by_proxy);
    assert!(said.contains("width 32"), "{said}");
    let log = proxy.take_log();
    let tunnel = format!("CONNECT {} HTTP/1.1\r\n", endpoint.strip_prefix("https://").unwrap());
    assert!(!log.is_empty());
    for head in log {
        assert!(head.starts_with(&tunnel), "{head}");
        assert!(head.contains("Proxy-Authorization: Basic bWU6b2ZfdGhlX3Byb3h5\r\n"), "{head}");
    }
    // What is wrong behind the tunnel is not the proxy's fault.
    let said =
        run(&setup, &[("HF_ENDPOINT", &*endpoint), ("HTTPS_PROXY", &named), ("HF_HOME", "third")]);
    assert!(said.contains("problem Tls") && said.contains("SSL_CERT_FILE"), "{said}");

    // A folder of certificates, under the names that OpenSSL looks for.
    let folder = setup.folder.path().join("certificates");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(trusted, folder.join("certificate.pem")).unwrap();
    let by_folder = [
        ("HF_ENDPOINT", &*endpoint),
        ("SSL_CERT_DIR", folder.to_str().unwrap()),
        ("HF_HOME", "fourth"),
    ];
    assert!(run(&setup, &by_folder).contains("holds no certificate under a name such as"));
    std::fs::copy(trusted, folder.join("0a1b2c3d.0")).unwrap();
    assert!(run(&setup, &by_folder).contains("width 32"));
    // A file goes first.
    let both = [by_folder[0], by_folder[1], by_folder[2], ("SSL_CERT_FILE", "/not/there.pem")];
    assert!(run(&setup, &both).contains("/not/there.pem"));

    let empty = setup.folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let variables = [("HF_ENDPOINT", &*endpoint), ("SSL_CERT_FILE", empty.to_str().unwrap())];
    assert!(run(&setup, &variables).contains("holds no certificate"));
}
