//! By way of proxies that variables name.

use super::Setup;
use super::environment::run;
use super::proxy::Proxy;

const PASSWORD: &str = "of_the_proxy";

/// An address where nobody listens.
const NOWHERE: &str = "127.0.0.1:9";

#[test]
fn an_http_hub_and_its_storage_are_asked_by_the_proxy_of_http() {
    let (setup, proxy) = (Setup::new(), Proxy::new());
    let named = format!("http://me:{PASSWORD}@{}", proxy.host());
    let said =
        run(&setup, &[("HTTP_PROXY", &named), ("HTTPS_PROXY", NOWHERE), ("ALL_PROXY", NOWHERE)]);
    assert!(said.contains("width 32"), "{said}");
    let log = proxy.take_log();
    assert!(log.len() > 10);
    for head in &log {
        // The whole address, and no tunnel.
        assert!(
            head.starts_with("HEAD http://127.0.0.1:") || head.starts_with("GET http://127.0.0.1:"),
            "{head}"
        );
        // `me:of_the_proxy`
        assert!(head.contains("\r\nProxy-Authorization: Basic bWU6b2ZfdGhlX3Byb3h5\r\n"), "{head}");
    }
    assert!(log.iter().any(|head| head.contains("/blobs/model.safetensors?Signature=secret")));
    // The hub itself does not see it.
    let asked = setup.hub.take_log();
    assert_eq!(asked.len(), log.len());
}

#[test]
fn small_letters_win_and_the_scheme_may_be_left_out() {
    let (setup, proxy) = (Setup::new(), Proxy::new());
    let said = run(&setup, &[("http_proxy", &proxy.host()), ("HTTP_PROXY", NOWHERE)]);
    assert!(said.contains("width 32"), "{said}");
    assert!(!proxy.take_log().is_empty());
    // Set to nothing, it takes back the other.
    let setup = Setup::new();
    let said = run(&setup, &[("http_proxy", ""), ("HTTP_PROXY", NOWHERE)]);
    assert!(said.contains("width 32"), "{said}");
    // For all.
    let setup = Setup::new();
    let said = run(&setup, &[("ALL_PROXY", &proxy.host())]);
    assert!(said.contains("width 32") && !proxy.take_log().is_empty(), "{said}");
}

#[test]
fn hosts_that_are_excepted_are_asked_without_a_proxy() {
    for excepted in ["127.0.0.1", "localhost, 127.0.0.0/8", "*", "http://127.0.0.1"] {
        let setup = Setup::new();
        for name in ["NO_PROXY", "no_proxy"] {
            let said = run(&setup, &[("HTTP_PROXY", NOWHERE), (name, excepted)]);
            assert!(said.contains("width 32"), "{excepted}: {said}");
        }
    }
    let setup = Setup::new();
    let said = run(&setup, &[("HTTP_PROXY", NOWHERE), ("NO_PROXY", "localhost,10.0.0.0/8")]);
    assert!(said.contains("HTTP_PROXY"), "{said}");
}

#[test]
fn a_proxy_that_is_not_there_is_named_and_not_the_hub() {
    let setup = Setup::new();
    let named = format!("http://me:{PASSWORD}@{NOWHERE}/");
    let hub = setup.hub.url();
    let said = run(&setup, &[("HTTP_PROXY", &named)]);
    assert!(said.contains("problem Unreachable"), "{said}");
    assert!(
        said.contains("`http://127.0.0.1:9` cannot be read: it is the proxy that HTTP_PROXY names"),
        "{said}"
    );
    assert!(!said.contains(PASSWORD) && !said.contains(&hub), "{said}");
    let said = run(&setup, &[("https_proxy", &named), ("HF_ENDPOINT", "https://hub.example")]);
    assert!(
        said.contains(
            "`http://127.0.0.1:9` cannot be read: it is the proxy that https_proxy names"
        ),
        "{said}"
    );
    assert!(!said.contains(PASSWORD) && !said.contains("hub.example"), "{said}");
    // What was fetched before will do.
    assert!(run(&setup, &[]).contains("width 32"));
    assert!(run(&setup, &[("HTTP_PROXY", &named)]).contains("width 32"));
}

#[test]
fn a_proxy_that_refuses_is_named_and_asked_once() {
    for (status, word) in [(407, "a name and a password"), (403, "status 403")] {
        let (setup, proxy) = (Setup::new(), Proxy::with_status(status));
        let named = format!("http://me:{PASSWORD}@{}", proxy.host());
        for variables in [
            [("HTTP_PROXY", &*named), ("HF_ENDPOINT", "http://hub.example")],
            [("HTTPS_PROXY", &*named), ("HF_ENDPOINT", "https://hub.example")],
        ] {
            let said = run(&setup, &variables);
            let want = format!("the proxy `http://{}` ({})", proxy.host(), variables[0].0);
            assert!(said.contains("problem Proxy") && said.contains(&want), "{said}");
            assert!(said.contains(word) && !said.contains(PASSWORD), "{said}");
            assert_eq!(proxy.take_log().len(), 1);
        }
    }
    // That it is busy may pass.
    let (setup, proxy) = (Setup::new(), Proxy::with_status(503));
    let said =
        run(&setup, &[("HTTPS_PROXY", &proxy.host()), ("HF_ENDPOINT", "https://hub.example")]);
    assert!(said.contains("HTTPS_PROXY names") && said.contains("status 503"), "{said}");
    assert_eq!(proxy.take_log().len(), 5);
}

#[test]
fn proxies_of_other_kinds_are_refused_by_name() {
    let setup = Setup::new();
    for (value, word) in [
        ("socks5://me:of_the_proxy@127.0.0.1:1080", "`socks5://`, which is not supported"),
        ("socks5h://127.0.0.1:1080", "`socks5h://`, which is not supported"),
        ("https://127.0.0.1:9", "not supported for an `http://` address"),
        ("http://me:of_the_proxy@", "has no address"),
    ] {
        let said = run(&setup, &[("ALL_PROXY", value)]);
        assert!(said.contains("problem Proxy") && said.contains(word), "{said}");
        assert!(said.contains("ALL_PROXY") && !said.contains(PASSWORD), "{said}");
    }
    // It is not in the way where another one is used.
    let proxy = Proxy::new();
    let said =
        run(&setup, &[("ALL_PROXY", "socks5://127.0.0.1:1080"), ("HTTP_PROXY", &proxy.host())]);
    assert!(said.contains("width 32"), "{said}");
}
