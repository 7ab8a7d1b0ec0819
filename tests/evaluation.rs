//! The evaluators, classifiers and k-means against sentence-transformers 6.2, scikit-learn and MTEB
//! 2.26, on inputs with ties.
//!
//! `evaluation.json` has what they were given and what came out; `make_evaluation_goldens.py` made
//! it, and `make_mteb_goldens.py` `mteb.json` from the same inputs. Where a metric is made of
//! counts and ranks alone, it must be the same to rounding in `f64` (1e-12); where it is made of
//! `f32` scores, to a few units in their last place.

mod common;

use std::sync::LazyLock;

use common::{json, pool, tiny};
use mpnet::evaluation::*;
use mpnet::mining::{Clustering, KMeans, KMeansInit, MiniBatchKMeans, Paraphrase};
use mpnet::ndarray::{Array2, ArrayView1, Axis, s};
use mpnet::quantization::EmbeddingPrecision;
use mpnet::{Error, SentenceEncoder, Similarity};
use serde_json::Value;

/// Metrics of counts and ranks.
const EXACT: f64 = 1e-12;
/// Cosines, thresholds and correlations of `f32` scores of size 1: about ten units in the last
/// place.
const ROUNDED: f64 = 1e-6;

static GOLDENS: LazyLock<Value> = LazyLock::new(|| json("evaluation.json"));
static MTEB: LazyLock<Value> = LazyLock::new(|| json("mteb.json"));

const SIMILARITIES: [(Similarity, &str); 4] = [
    (Similarity::Cosine, "cosine"),
    (Similarity::Dot, "dot"),
    (Similarity::Euclidean, "euclidean"),
    (Similarity::Manhattan, "manhattan"),
];

fn all_similarities() -> Vec<Similarity> {
    SIMILARITIES.map(|(similarity, _)| similarity).to_vec()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

fn floats(value: &Value) -> Vec<f64> {
    list(value).iter().map(|x| x.as_f64().unwrap()).collect()
}

fn indices(value: &Value) -> Vec<usize> {
    list(value).iter().map(|x| x.as_u64().unwrap() as usize).collect()
}

fn bools(value: &Value) -> Vec<bool> {
    indices(value).into_iter().map(|x| x != 0).collect()
}

fn rows(value: &Value) -> Array2<f32> {
    let rows: Vec<Vec<f64>> = list(value).iter().map(floats).collect();
    Array2::from_shape_fn((rows.len(), rows[0].len()), |(i, d)| rows[i][d] as f32)
}

fn strings(value: &Value) -> Vec<&str> {
    list(value).iter().map(|x| x.as_str().unwrap()).collect()
}

#[track_caller]
fn close(what: &str, got: f64, want: &Value, tolerance: f64) {
    let want = want.as_f64().unwrap_or_else(|| panic!("{what}: no golden"));
    assert!((got - want).abs() <= tolerance, "{what}: got {got}, want {want}");
}

#[track_caller]
fn rows_close(what: &str, got: &Array2<f32>, want: &Value, tolerance: f64) -> f64 {
    let want = rows(want).mapv(f64::from);
    common::assert_close(what, got.view().into_dyn(), want.view().into_dyn(), tolerance)
}

/// Each metric by its name in the goldens; none may be left over there.
#[track_caller]
fn metrics_close(got: &dyn Metrics, want: &Value, name: impl Fn(&str) -> String, tolerance: f64) {
    for (metric, got) in got.entries() {
        close(&metric, got, &want[name(&metric)], tolerance);
    }
}

#[test]
fn embedding_similarity_over_four_functions() {
    let goldens = &GOLDENS["embedding_similarity"];
    let (first, second) = (rows(&goldens["first"]), rows(&goldens["second"]));
    let evaluator =
        EmbeddingSimilarityEvaluator { similarities: all_similarities(), ..Default::default() };
    let gold = floats(&goldens["gold"]);
    let got = evaluator.score_embeddings(&first.view(), &second.view(), &gold).unwrap();
    for ((similarity, got), (want, name)) in got.iter().zip(SIMILARITIES) {
        assert_eq!(*similarity, want);
        let golden = |metric: &str| &goldens["metrics"][format!("{metric}_{name}")];
        close(name, got.pearson, golden("pearson"), ROUNDED);
        close(name, got.spearman, golden("spearman"), EXACT);
    }
}

/// The rows have length 1 exactly, so that buckets and bits are the reference's, and with them all
/// scores but the cosines.
#[test]
fn embedding_similarity_in_every_precision() {
    let goldens = &GOLDENS["embedding_similarity_precision"];
    let (first, second) = (rows(&goldens["first"]), rows(&goldens["second"]));
    let gold = floats(&goldens["gold"]);
    for precision in EmbeddingPrecision::ALL {
        let evaluator = EmbeddingSimilarityEvaluator {
            similarities: all_similarities(),
            precision: Some(precision),
            ..Default::default()
        };
        // Any length will do: they are normalised first. Powers of two change no digit.
        let longer = &first * 4.0;
        let got = evaluator.score_embeddings(&longer.view(), &second.view(), &gold).unwrap();
        let want = &goldens["cases"][precision.name()];
        for ((_, got), (_, name)) in got.iter().zip(SIMILARITIES) {
            let what = format!("{precision}, {name}");
            close(&what, got.pearson, &want[format!("pearson_{name}")], ROUNDED);
            match &want[format!("spearman_{name}")] {
                Value::Null => assert!(name == "cosine" && precision.name().ends_with("binary")),
                want => close(&what, got.spearman, want, EXACT),
            }
        }
    }
    let evaluator = EmbeddingSimilarityEvaluator {
        precision: Some(EmbeddingPrecision::Int8),
        ..Default::default()
    };
    let narrow = second.slice(s![.., ..5]);
    let error = evaluator.score_embeddings(&first.view(), &narrow, &gold).unwrap_err();
    assert!(matches!(error, Error::Input { input: "embeddings2", .. }), "{error}");
}

#[test]
fn correlations_and_average_precision_with_ties() {
    for case in list(&GOLDENS["scores"]) {
        let (x, y) = (floats(&case["x"]), floats(&case["y"]));
        close("pearson", pearson(&x, &y).unwrap(), &case["pearson"], EXACT);
        close("spearman", spearman(&x, &y).unwrap(), &case["spearman"], EXACT);
        let ap = average_precision(&x, &bools(&case["labels"])).unwrap();
        close("ap", ap, &case["ap"], EXACT);
    }
}

#[test]
fn binary_classification_over_four_functions() {
    let goldens = &GOLDENS["binary_classification"];
    let (first, second) = (rows(&goldens["first"]), rows(&goldens["second"]));
    let evaluator =
        BinaryClassificationEvaluator { similarities: all_similarities(), ..Default::default() };
    let labels = bools(&goldens["labels"]);
    let got = evaluator.score_embeddings(&first.view(), &second.view(), &labels).unwrap();
    for ((_, got), (_, name)) in got.iter().zip(SIMILARITIES) {
        for (metric, got) in got.entries() {
            // Thresholds are means of two scores up to 20.
            let tolerance = if metric.ends_with("threshold") { 4e-6 } else { EXACT };
            let key = format!("{name}_{metric}");
            close(&key, got, &goldens["metrics"][&key], tolerance);
        }
    }
}

#[test]
fn triplets_with_and_without_a_margin() {
    let goldens = &GOLDENS["triplet"];
    let [anchors, positives, negatives] =
        ["anchors", "positives", "negatives"].map(|name| rows(&goldens[name]));
    for case in list(&goldens["cases"]) {
        let evaluator = TripletEvaluator {
            similarities: all_similarities(),
            margin: case["margin"].as_f64().unwrap(),
            truncate_dim: None,
        };
        let (a, p, n) = (anchors.view(), positives.view(), negatives.view());
        let got = evaluator.score_embeddings(&a, &p, &n).unwrap();
        for ((_, got), (_, name)) in got.iter().zip(SIMILARITIES) {
            // The reference's mean is of `f32`.
            metrics_close(got, &case["metrics"], |metric| format!("{name}_{metric}"), 1e-7);
        }
    }
}

#[test]
fn information_retrieval_over_four_functions() {
    let goldens = &GOLDENS["information_retrieval"];
    let (queries, corpus) = (rows(&goldens["queries"]), rows(&goldens["corpus"]));
    let relevant: Vec<Vec<usize>> = list(&goldens["relevant"]).iter().map(indices).collect();
    for (similarity, name) in SIMILARITIES {
        let evaluator = InformationRetrievalEvaluator {
            similarity: Some(similarity),
            ndcg_at_k: vec![3, 10],
            mrr_at_k: vec![1, 10],
            map_at_k: vec![2, 100],
            ..Default::default()
        };
        let got = evaluator.score_embeddings(&queries.view(), &corpus.view(), &relevant).unwrap();
        let want = &goldens["cases"][name];
        assert_eq!(got.entries().len(), want.as_object().unwrap().len());
        metrics_close(&got, want, str::to_owned, EXACT);
    }
}

/// How similar the documents of each sample are to its query, by rows of `embeddings`.
fn reranking_scores(embeddings: &Array2<f32>, similarity: Similarity) -> Vec<RerankingScores> {
    let scores = |query: usize, documents: &Value| -> Vec<f64> {
        let documents = embeddings.select(Axis(0), &indices(documents));
        let query = embeddings.slice(s![query..=query, ..]);
        let scores = similarity.all(&query, &documents.view()).unwrap();
        scores.iter().map(|&score| f64::from(score)).collect()
    };
    let sample = |sample: &Value| {
        let query = sample["query"].as_u64().unwrap() as usize;
        RerankingScores {
            positive: scores(query, &sample["positive"]),
            negative: scores(query, &sample["negative"]),
        }
    };
    list(&GOLDENS["reranking"]["samples"]).iter().map(sample).collect()
}

#[test]
fn reranking_with_ties() {
    let goldens = &GOLDENS["reranking"];
    let samples = reranking_scores(&rows(&goldens["rows"]), Similarity::Cosine);
    for at_k in [3, 10] {
        let evaluator = RerankingEvaluator { at_k, ..Default::default() };
        let got = evaluator.score(&samples).unwrap();
        metrics_close(&got, &goldens["cases"][at_k.to_string()], str::to_owned, EXACT);
    }
}

#[test]
fn reranking_over_four_functions() {
    let goldens = &GOLDENS["reranking"];
    for (similarity, name) in SIMILARITIES {
        let samples = reranking_scores(&rows(&goldens["longer"]), similarity);
        let evaluator = RerankingEvaluator { at_k: 4, similarity, ..Default::default() };
        let got = evaluator.score(&samples).unwrap();
        metrics_close(&got, &goldens["functions"][name], str::to_owned, EXACT);
    }
}

#[test]
fn paraphrase_mining_with_ties_and_closure() {
    let goldens = &GOLDENS["paraphrase_mining"];
    let all = rows(&goldens["rows"]);
    for case in list(&goldens["cases"]) {
        let rows = all.select(Axis(0), &indices(&case["rows"]));
        let number = |name: &str| case[name].as_u64().unwrap() as usize;
        let evaluator = ParaphraseMiningEvaluator {
            top_k: number("top_k"),
            max_pairs: number("max_pairs"),
            add_transitive_closure: case["closure"].as_bool().unwrap(),
            ..Default::default()
        };
        let pair = |pair: &Value| (indices(pair)[0], indices(pair)[1]);
        let duplicates: Vec<(usize, usize)> = list(&case["duplicates"]).iter().map(pair).collect();
        let got = evaluator.score_embeddings(&rows.view(), &duplicates).unwrap();
        for (metric, got) in got.entries() {
            let tolerance = if metric == "threshold" { ROUNDED } else { EXACT };
            close(&metric, got, &case["metrics"][&metric], tolerance);
        }
    }
}

#[test]
fn v_measures() {
    for case in list(&GOLDENS["v_measure"]) {
        let got = v_measure(&indices(&case["classes"]), &indices(&case["clusters"])).unwrap();
        metrics_close(&got, case, str::to_owned, EXACT);
    }
}

#[test]
fn classification_metrics_of_labels_that_are_missing_on_either_side() {
    for case in list(&GOLDENS["classification_metrics"]) {
        let (labels, predicted) = (indices(&case["labels"]), indices(&case["predicted"]));
        let got = classification_metrics(&labels, &predicted).unwrap();
        assert_eq!(got.entries().len(), case["metrics"].as_object().unwrap().len());
        metrics_close(&got, &case["metrics"], str::to_owned, EXACT);
    }
}

/// Coefficients, not only predictions: solver, objective and stopping rules are those of
/// scikit-learn, so that both stop at the same iteration, short of the optimum. What is left is the
/// rounding of products in `f32`, some 1e-7, which the steps amplify where the loss is flat; up to
/// 2.1e-4 was seen, and five times that is allowed.
#[test]
fn logistic_regression() {
    for (index, case) in list(&GOLDENS["logistic_regression"]).iter().enumerate() {
        let mut options = LogisticRegression::default();
        for (name, value) in case["options"].as_object().unwrap() {
            match name.as_str() {
                "C" => options.c = value.as_f64().unwrap(),
                "tol" => options.tol = value.as_f64().unwrap(),
                "max_iter" => options.max_iter = value.as_u64().unwrap() as usize,
                _ => panic!("{name}"),
            }
        }
        let (train, test) = (rows(&case["train"]), rows(&case["test"]));
        let model = options.fit(&train.view(), &indices(&case["labels"])).unwrap();
        let what = format!("case {index}");
        assert_eq!(model.n_iter as u64, case["n_iter"].as_u64().unwrap(), "{what}: n_iter");
        let worst = rows_close(&what, &model.coef, &case["coef"], 1e-3);
        println!("{what}: coefficients differ by {worst:.1e} after {} iterations", model.n_iter);
        let want = ArrayView1::from(&floats(&case["intercept"])).to_owned();
        let got = model.intercept.view().into_dyn();
        common::assert_close(&what, got, want.view().into_dyn(), 1e-3);
        let proba = model.predict_proba(&test.view()).unwrap().mapv(|p| p as f32);
        rows_close(&what, &proba, &case["proba"], 1e-4);
        assert_eq!(model.predict(&test.view()).unwrap(), indices(&case["predicted"]), "{what}");
    }
}

#[test]
fn k_neighbors() {
    let goldens = &GOLDENS["k_neighbors"];
    let (train, test) = (rows(&goldens["train"]), rows(&goldens["test"]));
    for case in list(&goldens["cases"]) {
        let classifier = KNeighborsClassifier {
            n_neighbors: case["n_neighbors"].as_u64().unwrap() as usize,
            similarity: case["metric"].as_str().unwrap().parse().unwrap(),
        };
        let model = classifier.fit(&train.view(), &indices(&goldens["labels"])).unwrap();
        assert_eq!(model.predict(&test.view()).unwrap(), indices(&case["predicted"]));
    }
}

/// Sums of squares of up to 150 rows, and means of them, in `f32` there: some units in the last
/// place.
#[track_caller]
fn clusterings_agree(what: &str, got: &Clustering, want: &Value) {
    assert_eq!(got.labels, indices(&want["labels"]), "{what}");
    rows_close(what, &got.centroids, &want["centroids"], 5e-6);
    let inertia = want["inertia"].as_f64().unwrap();
    assert!((got.inertia - inertia).abs() <= 1e-5 * inertia.max(1e-3), "{what}: {}", got.inertia);
    assert_eq!(got.n_iter as u64, want["n_iter"].as_u64().unwrap(), "{what}: n_iter");
}

/// From the same seed, since random numbers are drawn in the same way.
#[test]
fn kmeans_of_every_kind() {
    let goldens = &GOLDENS["kmeans"];
    for (index, case) in list(&goldens["cases"]).iter().enumerate() {
        let options = &case["options"];
        let number = |name: &str| options[name].as_u64().map(|x| x as usize);
        let mut kmeans = KMeans::new(number("n_clusters").unwrap());
        kmeans.seed = number("random_state").unwrap_or(0) as u32;
        kmeans.n_init = number("n_init").unwrap_or(kmeans.n_init);
        kmeans.max_iter = number("max_iter").unwrap_or(kmeans.max_iter);
        kmeans.tol = options["tol"].as_f64().unwrap_or(kmeans.tol);
        if !case["init"].is_null() {
            kmeans.init = KMeansInit::Centroids(rows(&case["init"]));
        }
        let rows = rows(&goldens[case["rows"].as_str().unwrap()]);
        let got = kmeans.fit(&rows.view()).unwrap();
        clusterings_agree(&format!("case {index}"), &got, case);
        let predicted = got.predict(&(&rows + 0.25).view()).unwrap();
        assert_eq!(predicted, indices(&case["predicted"]), "case {index}");
    }
}

#[test]
fn mini_batch_kmeans_of_every_kind() {
    let goldens = &GOLDENS["mini_batch_kmeans"];
    let rows = rows(&goldens["x"]);
    for (index, case) in list(&goldens["cases"]).iter().enumerate() {
        let options = case["options"].as_object().unwrap();
        let number = |name: &str| options.get(name)?.as_u64().map(|x| x as usize);
        let mut kmeans = MiniBatchKMeans::new(number("n_clusters").unwrap());
        kmeans.seed = number("random_state").unwrap() as u32;
        kmeans.batch_size = number("batch_size").unwrap();
        kmeans.n_init = number("n_init").unwrap_or(kmeans.n_init);
        kmeans.init_size = number("init_size");
        kmeans.max_iter = number("max_iter").unwrap_or(kmeans.max_iter);
        if let Some(limit) = options.get("max_no_improvement") {
            kmeans.max_no_improvement = limit.as_u64().map(|x| x as usize);
        }
        let ratio = options.get("reassignment_ratio").and_then(Value::as_f64);
        kmeans.reassignment_ratio = ratio.unwrap_or(kmeans.reassignment_ratio);
        kmeans.tol = options.get("tol").and_then(Value::as_f64).unwrap_or(kmeans.tol);
        let got = kmeans.fit(&rows.view()).unwrap();
        clusterings_agree(&format!("case {index}"), &got, case);
    }
}

/// `make_mteb_goldens.py` has run MTEB's own task.
#[test]
fn clustering_as_mteb_does() {
    let (goldens, inputs) = (&MTEB["clustering"], &GOLDENS["mini_batch_kmeans"]);
    let (all, classes) = (rows(&inputs["x"]), indices(&inputs["classes"]));
    let v_measure = |set: &Value| {
        let set = indices(set);
        let classes: Vec<usize> = set.iter().map(|&row| classes[row]).collect();
        let rows = all.select(Axis(0), &set);
        let got = ClusteringEvaluator::default().score_embeddings(&rows.view(), &classes);
        got.unwrap().v_measure
    };
    let got: Vec<f64> = list(&goldens["rows"]).iter().map(v_measure).collect();
    for (&got, want) in got.iter().zip(list(&goldens["v_measures"])) {
        close("v_measure", got, want, EXACT);
    }
    close("mean", got.iter().sum::<f64>() / got.len() as f64, &goldens["mean"], EXACT);
}

/// MTEB's own task again: the same samples in each of its experiments, and what both classifiers
/// learn from them.
#[test]
fn classification_as_mteb_does() {
    let inputs = &GOLDENS["mteb"];
    let (train, test) = (rows(&inputs["train"]), rows(&inputs["test"]));
    for (case, classifier, modulus) in [
        ("logistic_regression", Classifier::default(), usize::MAX),
        ("k_neighbors", Classifier::KNeighbors(KNeighborsClassifier::default()), usize::MAX),
        ("two_labels", Classifier::default(), 2),
    ] {
        let goldens = &MTEB["classification"][case];
        let experiments = list(&goldens["experiments"]);
        let labels = |of: &str| -> Vec<usize> {
            indices(&inputs[of]).into_iter().map(|label| label % modulus).collect()
        };
        let n_experiments = experiments.len();
        let evaluator = ClassificationEvaluator { n_experiments, classifier, ..Default::default() };
        let (labels, test_labels) = (labels("labels"), labels("test_labels"));
        let got = evaluator.score_embeddings(&train.view(), &labels, &test.view(), &test_labels);
        let got = got.unwrap();
        for (got, want) in got.experiments.iter().zip(experiments) {
            assert_eq!(got.entries().len(), want.as_object().unwrap().len());
            metrics_close(got, want, str::to_owned, EXACT);
        }
        metrics_close(&got.mean, &goldens["mean"], str::to_owned, EXACT);
    }
}

/// Through an encoder: prompts by role, truncation, and the model's own similarity.
#[test]
fn texts_through_the_tiny_model() {
    let goldens = &GOLDENS["tiny"];
    let encoder = SentenceEncoder::from_pretrained(tiny()).unwrap();
    let texts = strings(&goldens["texts"]);
    let every_other = |from: usize| texts.iter().skip(from).step_by(2).copied().collect();
    let (first, second): (Vec<&str>, Vec<&str>) = (every_other(0), every_other(1));
    let (gold, labels) = (floats(&goldens["gold"]), bools(&goldens["labels"]));
    let want = |evaluator: &str| &goldens["metrics"][evaluator];
    let allowed = |tolerance| common::allowed(encoder.isa(), tolerance);

    for (name, truncate_dim) in [("embedding_similarity", None), ("truncated", Some(8))] {
        let evaluator = EmbeddingSimilarityEvaluator { truncate_dim, ..Default::default() };
        let got = evaluator.evaluate(&encoder, &first, &second, &gold).unwrap();
        // The spread of the cosines is some 0.1, so that their error of 1e-7 is 1e-6 of it.
        metrics_close(&got[0].1, want(name), |metric| format!("{metric}_cosine"), allowed(5e-6));
    }
    let precision = Some(EmbeddingPrecision::Binary);
    let evaluator = EmbeddingSimilarityEvaluator { precision, ..Default::default() };
    let got = evaluator.evaluate(&encoder, &first, &second, &gold).unwrap();
    let of_cosine = |metric: &str| format!("{metric}_cosine");
    metrics_close(&got[0].1, want("binary"), of_cosine, allowed(ROUNDED));
    let cosine = |metric: &str| format!("cosine_{metric}");
    let evaluator = BinaryClassificationEvaluator::default();
    let got = evaluator.evaluate(&encoder, &first, &second, &labels).unwrap();
    metrics_close(&got[0].1, want("binary_classification"), cosine, allowed(ROUNDED));

    let negatives: Vec<&str> = texts[..6].iter().rev().copied().collect();
    let got = TripletEvaluator::default().evaluate(&encoder, &first, &second, &negatives).unwrap();
    metrics_close(&got[0].1, want("triplet"), cosine, 1e-7);

    let evaluator = InformationRetrievalEvaluator::default();
    let relevant = [vec![1], vec![3, 5], vec![], vec![0]];
    let got = evaluator.evaluate(&encoder, &first[..4], &second, &relevant).unwrap();
    metrics_close(&got, want("information_retrieval"), cosine, EXACT);

    let evaluator = InformationRetrievalEvaluator {
        query_prompt: Some("who ".into()),
        corpus_prompt: Some("the old town of the world: ".into()),
        truncate_dim: Some(8),
        ..evaluator
    };
    let plain = got;
    let got = evaluator.evaluate(&encoder, &first[..4], &second, &relevant).unwrap();
    metrics_close(&got, want("prompted"), cosine, EXACT);
    assert_ne!(got, plain, "the prompts and the truncation are not seen");

    let sample =
        |query: usize, positive: &[&'static str], negative: &[&'static str]| RerankingSample {
            query: texts[query],
            positive: positive.into(),
            negative: negative.into(),
        };
    let samples = [sample(0, &texts[1..3], &texts[3..9]), sample(9, &texts[8..9], &texts[2..8])];
    let got = RerankingEvaluator::default().evaluate(&encoder, &samples).unwrap();
    metrics_close(&got, want("reranking"), str::to_owned, EXACT);

    let duplicates = [(4, 5), (7, 6), (8, 9), (10, 11)];
    let evaluator = ParaphraseMiningEvaluator::default();
    let got = evaluator.evaluate(&encoder, &texts, &duplicates).unwrap();
    metrics_close(&got, want("paraphrase_mining"), str::to_owned, allowed(ROUNDED));
}

/// `evaluate` encodes the texts it needs and gives what `score_embeddings` gives for all of them.
#[test]
fn texts_and_their_embeddings_give_the_same() {
    let encoder = SentenceEncoder::from_pretrained(tiny()).unwrap();
    let texts: Vec<String> =
        (0..60).map(|i| format!("{} {}", ["who was", "the town of"][i % 2], i / 3)).collect();
    let labels: Vec<&str> = (0..60).map(|i| ["person", "place"][i % 2]).collect();
    let embeddings = encoder.encode(&texts).unwrap();
    let (x, y) = (embeddings.slice(s![..40, ..]), embeddings.slice(s![40.., ..]));
    for classifier in [Classifier::default(), Classifier::KNeighbors(Default::default())] {
        let evaluator = ClassificationEvaluator { classifier, ..Default::default() };
        let of_texts = evaluator
            .evaluate(&encoder, &texts[..40], &labels[..40], &texts[40..], &labels[40..])
            .unwrap();
        let of_rows = evaluator.score_embeddings(&x, &labels[..40], &y, &labels[40..]).unwrap();
        assert_eq!(of_texts, of_rows);
        assert!(of_texts.mean.accuracy > 0.9);
        assert!(of_texts.mean.ap.is_some());
    }
    let evaluator = ClusteringEvaluator::default();
    let of_texts = evaluator.evaluate(&encoder, &texts, &labels).unwrap();
    assert_eq!(of_texts, evaluator.score_embeddings(&embeddings.view(), &labels).unwrap());
}

#[test]
fn the_same_for_any_number_of_threads() {
    let rows =
        Array2::from_shape_fn((9000, 24), |(i, d)| ((i * 31 + d * d * 7) as f32 * 0.37).sin());
    let labels: Vec<usize> = (0..9000).map(|i| i % 5).collect();
    let run = || {
        let lloyd = KMeans { max_iter: 5, ..KMeans::new(12) }.fit(&rows.view()).unwrap();
        let batches = MiniBatchKMeans { max_iter: 2, ..MiniBatchKMeans::new(12) };
        let model = LogisticRegression { max_iter: 5, ..Default::default() };
        let model = model.fit(&rows.view(), &labels).unwrap();
        (lloyd, batches.fit(&rows.view()).unwrap(), model)
    };
    let one = pool(1).install(run);
    for threads in [2, 3, 8] {
        assert!(pool(threads).install(run) == one, "{threads} threads");
    }
}

#[test]
fn wrong_input_is_named() {
    #[track_caller]
    fn names<T: std::fmt::Debug>(result: Result<T, Error>, what: &str) {
        let error = result.unwrap_err();
        let typed = matches!(error, Error::Input { .. } | Error::Option { .. });
        assert!(typed && error.to_string().contains(what), "{error}");
    }
    let x = Array2::from_shape_fn((6, 3), |(i, d)| (i * d) as f32);
    let (x, labels) = (x.view(), [0, 1, 0, 1, 0, 1]);
    let mut nan = x.to_owned();
    nan[[4, 1]] = f32::NAN;
    let nan = nan.view();
    let (narrow, none) = (x.slice(s![.., ..2]), x.slice(s![..0, ..]));

    names(KMeans::new(0).fit(&x), "option `n_clusters`: is 0");
    names(KMeans::new(7).fit(&x), "`embeddings`: 6 rows cannot make 7 clusters");
    names(KMeans::new(2).fit(&nan), "`embeddings`: row 4 has NaN");
    names(KMeans { n_init: 0, ..KMeans::new(2) }.fit(&x), "n_init");
    names(KMeans { max_iter: 0, ..KMeans::new(2) }.fit(&x), "max_iter");
    names(KMeans { tol: f64::NAN, ..KMeans::new(2) }.fit(&x), "option `tol`: is NaN");
    let init = KMeansInit::Centroids(narrow.slice(s![..2, ..]).to_owned());
    names(KMeans { init, ..KMeans::new(2) }.fit(&x), "`init`: shape (2, 2), expected (2, 3)");
    let clustering = KMeans::new(2).fit(&x).unwrap();
    names(clustering.predict(&narrow), "`embeddings`: width 2, the centroids have 3");
    names(clustering.predict(&nan), "row 4");
    assert!(clustering.predict(&none).unwrap().is_empty());
    names(MiniBatchKMeans { batch_size: 0, ..MiniBatchKMeans::new(2) }.fit(&x), "batch_size");
    names(MiniBatchKMeans { init_size: Some(0), ..MiniBatchKMeans::new(2) }.fit(&x), "init_size");
    let negative = MiniBatchKMeans { reassignment_ratio: -1.0, ..MiniBatchKMeans::new(2) };
    names(negative.fit(&x), "reassignment_ratio");
    names(MiniBatchKMeans::new(2).fit(&none), "0 rows");

    let empty = x.slice(s![.., ..0]);
    names(KMeans::new(2).fit(&empty), "`embeddings`: its rows have no columns");
    names(MiniBatchKMeans::new(2).fit(&empty), "`embeddings`: its rows have no columns");
    names(LogisticRegression::default().fit(&empty, &labels), "`embeddings`: its rows have no");
    names(KNeighborsClassifier::default().fit(&empty, &labels), "`embeddings`: its rows have no");
    let clusters = ClusteringEvaluator::default();
    names(clusters.score_embeddings(&empty, &labels), "`embeddings`: its rows have no columns");
    let classes = ClassificationEvaluator::default();
    names(classes.score_embeddings(&empty, &labels, &empty, &labels), "`train`: its rows have no");
    let pairs = ParaphraseMiningEvaluator::default();
    names(pairs.score_embeddings(&empty, &[(0, 1)]), "`embeddings`: its rows have no columns");
    let ranked = InformationRetrievalEvaluator::default();
    names(ranked.score_embeddings(&empty, &empty, &vec![vec![0]; 6]), "`queries`: its rows have");
    let triplet = TripletEvaluator::default();
    names(triplet.score_embeddings(&empty, &empty, &empty), "`anchors`: its rows have no columns");
    let precise = EmbeddingSimilarityEvaluator {
        precision: Some(EmbeddingPrecision::Ubinary),
        ..Default::default()
    };
    names(precise.score_embeddings(&empty, &empty, &[0.0; 6]), "`embeddings1`: its rows have no");

    let similarity = EmbeddingSimilarityEvaluator::default();
    names(similarity.score_embeddings(&x, &narrow, &[0.0; 6]), "`embeddings2`: has width 2");
    names(similarity.score_embeddings(&x, &none, &[0.0; 6]), "`embeddings2`: has 0 elements");
    names(similarity.score_embeddings(&x, &nan, &[0.0; 6]), "`embeddings2`: row 4 has NaN");
    names(similarity.score_embeddings(&x, &x, &[0.0; 5]), "`scores`: has 5 elements");
    names(similarity.score_embeddings(&x, &x, &[f64::NAN; 6]), "`scores`: element 0 is NaN");
    names(similarity.score_embeddings(&none, &none, &[]), "0 elements");
    let binary = BinaryClassificationEvaluator::default();
    names(binary.score_embeddings(&x, &x, &[true; 5]), "`labels`: has 5 elements");
    names(binary.score_embeddings(&none, &none, &[]), "is empty");
    let triplets = TripletEvaluator { margin: f64::NAN, ..Default::default() };
    names(triplets.score_embeddings(&x, &x, &x), "option `margin`");
    names(TripletEvaluator::default().score_embeddings(&none, &none, &none), "is empty");

    let retrieval = InformationRetrievalEvaluator::default();
    let relevant = vec![vec![0]; 6];
    names(retrieval.score_embeddings(&x, &narrow, &relevant), "`corpus`: has width 2");
    names(retrieval.score_embeddings(&x, &none, &relevant), "`corpus`: is empty");
    names(retrieval.score_embeddings(&none, &x, &[]), "`queries`: is empty");
    names(retrieval.score_embeddings(&nan, &x, &relevant), "`queries`: row 4");
    names(retrieval.score_embeddings(&x, &x, &vec![vec![6]; 6]), "query 0 names document 6 of 6");
    names(retrieval.score_embeddings(&x, &x, &vec![vec![]; 6]), "no query has a relevant");
    names(retrieval.score_embeddings(&x, &x, &relevant[..5]), "`relevant`: has 5 elements");
    names(retrieval.score_rankings(&[vec![1, 1]], &[vec![1]]), "query 0 has document 1 twice");
    let zero = InformationRetrievalEvaluator { map_at_k: vec![0], ..Default::default() };
    names(zero.score_embeddings(&x, &x, &relevant), "option `map_at_k`: is 0");

    let reranking = RerankingEvaluator::default();
    let sample = |positive: &[f64], negative: &[f64]| {
        [RerankingScores { positive: positive.into(), negative: negative.into() }]
    };
    names(reranking.score(&[]), "`samples`: is empty");
    names(reranking.score(&sample(&[0.5], &[])), "no sample has both");
    names(reranking.score(&sample(&[0.5], &[f64::NAN])), "sample 0 has a score");
    names(RerankingEvaluator { at_k: 0, ..reranking }.score(&sample(&[0.5], &[0.4])), "at_k");

    let mining = ParaphraseMiningEvaluator::default();
    names(mining.score_embeddings(&x, &[]), "`duplicates`: is empty");
    names(mining.score_embeddings(&x, &[(0, 6)]), "(0, 6) is beyond the 6 sentences");
    names(mining.score_embeddings(&x, &[(2, 2)]), "(2, 2) is one sentence");
    names(mining.score_embeddings(&nan, &[(0, 1)]), "row 4");
    let pair = |i, j, score| Paraphrase { score, i, j };
    names(mining.score_pairs(&[pair(0, 1, f32::NAN)], &[(0, 1)]), "pair 0 has score NaN");
    let twice = [pair(0, 1, 0.5), pair(1, 0, 0.5)];
    names(mining.score_pairs(&twice, &[(0, 1)]), "(1, 0) occurs twice");
    let none_at_all = ParaphraseMiningEvaluator { top_k: 0, ..mining };
    names(none_at_all.score_embeddings(&x, &[(0, 1)]), "top_k");

    names(v_measure(&[0, 1], &[0]), "`clusters`: has 1 elements");
    names(ClusteringEvaluator::default().score_embeddings(&x, &[0]), "`labels`");
    names(classification_metrics::<u8>(&[], &[]), "`labels`: is empty");

    let regression = LogisticRegression::default();
    names(regression.fit(&x, &[1; 6]), "`labels`: all are of one class");
    names(regression.fit(&x, &[1; 5]), "`labels`: has 5 elements");
    names(regression.fit(&nan, &labels), "row 4");
    names(LogisticRegression { c: 0.0, ..regression }.fit(&x, &labels), "option `c`: is 0");
    names(LogisticRegression { tol: -1.0, ..regression }.fit(&x, &labels), "option `tol`");
    names(LogisticRegression { max_iter: 0, ..regression }.fit(&x, &labels), "max_iter");
    let model = regression.fit(&x, &labels).unwrap();
    names(model.predict(&narrow), "`embeddings`: has width 2, the model 3");
    names(model.predict_proba(&nan), "row 4");
    assert!(model.predict(&none).unwrap().is_empty());
    let neighbours = KNeighborsClassifier::default();
    names(KNeighborsClassifier { n_neighbors: 7, ..neighbours }.fit(&x, &labels), "n_neighbors");
    names(KNeighborsClassifier { n_neighbors: 0, ..neighbours }.fit(&x, &labels), "n_neighbors");
    names(neighbours.fit(&x, &labels).unwrap().predict(&narrow), "`embeddings`: has width 2");

    let evaluator = ClassificationEvaluator::default();
    names(evaluator.score_embeddings(&x, &labels, &narrow, &labels), "`test`: has width 2");
    names(evaluator.score_embeddings(&x, &labels, &none, &[]), "`test`: is empty");
    names(evaluator.score_embeddings(&x, &[0; 6], &x, &labels), "`train_labels`: all are of one");
    let no_samples = ClassificationEvaluator { samples_per_label: 0, ..evaluator };
    names(no_samples.score_embeddings(&x, &labels, &x, &labels), "samples_per_label");
}
