//! What a hub can answer instead of a file, and to whom the token goes.

use mpnet::{Error, HubModel, HubProblem};

use super::server::{Hub, REPO, Reply};
use super::{Setup, WEIGHTS, problem};

#[test]
fn errors_name_repository_revision_and_file() {
    let setup = Setup::new();
    let (missing, shown) = problem(setup.model().revision("v9").fetch());
    assert!(matches!(missing, HubProblem::RevisionNotFound), "{missing:?}");
    assert_eq!(shown, "org/tiny v9 modules.json: the repository has no such revision");

    let other = HubModel::new("org/other").endpoint(setup.hub.url()).cache_dir(setup.cache());
    let (missing, shown) = problem(other.fetch());
    assert!(matches!(missing, HubProblem::RepositoryNotFound), "{missing:?}");
    assert!(
        shown.starts_with("org/other main modules.json: the repository does not exist"),
        "{shown}"
    );

    setup.hub.remove("1_Pooling/config.json");
    let (missing, shown) = setup.problem();
    assert!(matches!(missing, HubProblem::FileNotFound), "{missing:?}");
    assert_eq!(shown, "org/tiny main 1_Pooling/config.json: the repository has no such file");

    let setup = Setup::new();
    setup.hub.remove(WEIGHTS);
    let (missing, shown) = setup.problem();
    assert!(matches!(missing, HubProblem::FileNotFound), "{missing:?}");
    assert!(shown.contains(WEIGHTS), "{shown}");

    let setup = Setup::new();
    setup.hub.remove("tokenizer.json").remove("vocab.txt");
    assert!(setup.problem().1.contains("vocab.txt"));
}

/// A plain web server knows no `X-Error-Code`.
#[test]
fn a_404_without_a_reason() {
    let setup = Setup::new();
    setup.hub.change(|_, reply| reply.without("X-Error-Code"));
    setup.hub.remove("config_sentence_transformers.json");
    setup.fetch().unwrap();
    let other = HubModel::new("org/other").endpoint(setup.hub.url()).cache_dir(setup.cache());
    assert!(matches!(problem(other.fetch()).0, HubProblem::FileNotFound));
}

#[test]
fn private_gated_and_refused() {
    let setup = Setup::new();
    setup.hub.require_token("right");
    assert!(matches!(setup.problem().0, HubProblem::RepositoryNotFound));
    setup.model().token("right").fetch().unwrap();

    let setup = Setup::new();
    setup.hub.change(|_, _| {
        Reply::new(403)
            .with("X-Error-Code", "GatedRepo")
            .with("X-Error-Message", "Access to model org/tiny is restricted")
    });
    let (gated, shown) = setup.problem();
    assert!(matches!(gated, HubProblem::Gated { .. }), "{gated:?}");
    assert!(shown.contains("Access to model org/tiny is restricted"), "{shown}");

    setup.hub.change(|_, _| {
        Reply::new(401).with("X-Error-Message", "Invalid credentials in Authorization header")
    });
    let (refused, _) = problem(setup.model().token("wrong").fetch());
    assert!(matches!(refused, HubProblem::Refused { status: 401, .. }), "{refused:?}");

    setup.hub.change(|_, _| Reply::new(418).with("X-Error-Message", "teapot")).take_log();
    let (teapot, shown) = setup.problem();
    assert!(matches!(teapot, HubProblem::Status { status: 418, .. }), "{teapot:?}");
    assert_eq!(setup.hub.take_log().len(), 1, "it will not change its mind");
    assert!(shown.ends_with("the hub answers with status 418: teapot"), "{shown}");
    assert!(setup.listing().is_empty(), "{:?}", setup.listing());
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let setup = Setup::new();
    setup.hub.require_token("secret");
    setup.model().token("secret").fetch().unwrap();
    let log = setup.hub.take_log();
    assert!(log.iter().any(|request| request.storage));
    for request in log {
        let token = request.header("Authorization");
        // The storage is the same host, at another port.
        let want = if request.storage { None } else { Some("Bearer secret") };
        assert_eq!(token, want, "{} {}", request.method, request.path);
    }

    // A whole hub that redirects to another one.
    let (setup, other) = (Setup::new(), Hub::of(&super::tiny()));
    let url = other.url();
    setup.hub.change(move |request, _| {
        Reply::new(307).with("Location", format!("{url}{}", request.path))
    });
    let directory = setup.model().token("secret").fetch().unwrap();
    setup.assert_loads_from(&directory);
    assert!(setup.hub.take_log().iter().all(|request| request.header("Authorization").is_some()));
    let other = other.take_log();
    assert!(!other.is_empty());
    assert!(other.iter().all(|request| request.header("Authorization").is_none()));
}

#[test]
fn an_endpoint_with_a_path() {
    let setup = Setup::new();
    setup.hub.change(|request, reply| match request.path.strip_prefix("/mirror/") {
        Some(rest) => Reply::new(308).with("Location", format!("/{rest}")),
        None => reply,
    });
    let endpoint = format!("{}/mirror/", setup.hub.url());
    let directory = setup.model().endpoint(endpoint).fetch().unwrap();
    setup.assert_loads_from(&directory);
}

#[test]
fn what_is_no_name_is_refused_at_once() {
    let option = |model: HubModel| match model.fetch() {
        Err(Error::Option { option, .. }) => option,
        other => panic!("{other:?}"),
    };
    assert_eq!(option(HubModel::new("../../etc")), "repo");
    assert_eq!(option(HubModel::new(REPO).revision("../..")), "revision");
    assert_eq!(option(HubModel::new(REPO).endpoint("file:///")), "endpoint");
    assert_eq!(option(HubModel::new(REPO).token("two words")), "token");
}
