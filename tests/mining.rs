//! Pairs, groups, hard negatives and diverse hits, beside the reference.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::search::{inputs, tolerance};
use mpnet::mining::{
    CommunityOptions, HardNegatives, NegativeOptions, ParaphraseOptions, SamplingStrategy, Triplet,
    community_detection, mine_hard_negatives, mmr, paraphrase_mining,
};
use mpnet::ndarray::{Array2, Axis, s};
use mpnet::{Error, InputProblem, Similarity, similarity::cos_sim};

#[derive(serde::Deserialize)]
struct Goldens {
    paraphrase_mining: Vec<Paraphrases>,
    community_detection: Vec<Communities>,
    positives: Vec<Vec<usize>>,
    hard_negatives: Vec<Negatives>,
    random_negatives: Vec<RandomNegatives>,
    mmr: Vec<Diverse>,
}

#[derive(serde::Deserialize)]
struct Paraphrases {
    similarity: String,
    top_k: usize,
    max_pairs: usize,
    pairs: Vec<(f64, usize, usize)>,
}

#[derive(serde::Deserialize)]
struct Communities {
    threshold: f32,
    min_community_size: usize,
    communities: Vec<Vec<usize>>,
}

#[derive(serde::Deserialize)]
struct Negatives {
    similarity: String,
    options: BTreeMap<String, f64>,
    negatives: BTreeMap<usize, Vec<(usize, f64)>>,
}

#[derive(serde::Deserialize)]
struct RandomNegatives {
    similarity: String,
    options: BTreeMap<String, f64>,
    /// What the reference has drawn for each query, sooner or later.
    drawn: BTreeMap<usize, Vec<usize>>,
}

/// Of KeyBERT, whose `diversity` is `1 - lambda`.
#[derive(serde::Deserialize)]
struct Diverse {
    query: usize,
    top_k: usize,
    diversity: f32,
    hits: Vec<(usize, f64)>,
}

fn goldens() -> Goldens {
    common::json("search.json")
}

#[test]
fn pairs_of_the_reference_in_any_chunks() {
    let (_, corpus, _) = inputs();
    for case in goldens().paraphrase_mining {
        let options = ParaphraseOptions::default().top_k(case.top_k).max_pairs(case.max_pairs);
        let options = options.similarity(case.similarity.parse().unwrap());
        let pairs = paraphrase_mining(&corpus.view(), &options).unwrap();
        assert_eq!(pairs.len(), case.pairs.len());
        for (got, &(score, i, j)) in pairs.iter().zip(&case.pairs) {
            assert_eq!((got.i, got.j), (i, j), "{got:?}, {score}");
            assert!((f64::from(got.score) - score).abs() <= tolerance(&case.similarity));
        }
        for rows in [1, 7, 89] {
            let chunks = options.query_chunk_size(rows);
            assert_eq!(paraphrase_mining(&corpus.view(), &chunks).unwrap(), pairs, "{rows}");
        }
    }
}

#[test]
fn a_pair_is_there_once_even_if_all_scores_are_equal() {
    let same = Array2::from_elem((40, 33), 0.37_f32);
    let options = ParaphraseOptions::default().top_k(100);
    let pairs = paraphrase_mining(&same.view(), &options).unwrap();
    let rows: Vec<_> = pairs.iter().map(|pair| (pair.i, pair.j)).collect();
    let want: Vec<_> = (0..40).flat_map(|i| (i + 1..40).map(move |j| (i, j))).collect();
    assert_eq!(rows, want);
}

#[test]
fn communities_of_the_reference_in_any_batches() {
    let (_, corpus, _) = inputs();
    for case in goldens().community_detection {
        let options = CommunityOptions::default().threshold(case.threshold);
        let options = options.min_community_size(case.min_community_size);
        for rows in [1, 7, 1024] {
            let options = options.batch_size(rows);
            let got = community_detection(&corpus.view(), &options).unwrap();
            assert_eq!(got, case.communities, "{}, {rows}", case.threshold);
        }
    }
}

/// By the names of the reference.
fn negative_options(similarity: &str, options: &BTreeMap<String, f64>) -> NegativeOptions {
    let default = NegativeOptions::default().similarity(similarity.parse().unwrap());
    options.iter().fold(default, |options, (name, &x)| match name.as_str() {
        "range_min" => options.range_min(x as usize),
        "range_max" => options.range_max(x as usize),
        "num_negatives" => options.num_negatives(x as usize),
        "max_score" => options.max_score(x as f32),
        "min_score" => options.min_score(x as f32),
        "absolute_margin" => options.absolute_margin(x as f32),
        "relative_margin" => options.relative_margin(x as f32),
        _ => panic!("{name}"),
    })
}

fn ids(mined: &HardNegatives) -> Vec<usize> {
    mined.negatives.iter().map(|hit| hit.corpus_id).collect()
}

#[test]
fn hard_negatives_of_the_reference() {
    let (queries, corpus, _) = inputs();
    let Goldens { positives, hard_negatives, .. } = goldens();
    assert!(positives.iter().any(|rows| rows.len() > 1));
    for case in hard_negatives {
        let options = negative_options(&case.similarity, &case.options);
        let mined = mine_hard_negatives(&queries.view(), &corpus.view(), &positives, &options);
        for (query, mined) in mined.unwrap().iter().enumerate() {
            let want = case.negatives.get(&query).map_or(&[][..], Vec::as_slice);
            let (ids, wanted): (_, Vec<usize>) =
                (ids(mined), want.iter().map(|hit| hit.0).collect());
            assert_eq!(ids, wanted, "{}, {:?}, query {query}", case.similarity, case.options);
            for (hit, want) in mined.negatives.iter().zip(want) {
                let difference = (f64::from(hit.score) - want.1).abs();
                assert!(difference <= tolerance(&case.similarity), "{hit:?}, {want:?}");
            }
            let rows: Vec<usize> = mined.positives.iter().map(|hit| hit.corpus_id).collect();
            assert_eq!(rows, positives[query]);
            let triplets: Vec<Triplet> = mined.triplets(query).collect();
            assert_eq!(triplets.len(), rows.len() * ids.len());
        }
    }
}

/// Chance is not the reference's, but what it chooses from is: both draw as many, of the same rows,
/// and in time each of them.
#[test]
fn random_negatives_are_those_that_the_reference_draws() {
    let (queries, corpus, _) = inputs();
    let Goldens { positives, random_negatives, .. } = goldens();
    for case in random_negatives {
        let options = negative_options(&case.similarity, &case.options);
        let mine = |seed| {
            let options = options.sampling_strategy(SamplingStrategy::Random { seed });
            let mined = mine_hard_negatives(&queries.view(), &corpus.view(), &positives, &options);
            mined.unwrap()
        };
        let mut seen = vec![BTreeSet::new(); queries.nrows()];
        for seed in 0..200 {
            for (query, mined) in mine(seed).iter().enumerate() {
                let available = case.drawn.get(&query).map_or(0, Vec::len);
                let wanted = case.options["num_negatives"] as usize;
                assert_eq!(mined.negatives.len(), wanted.min(available), "query {query}");
                assert!(mined.negatives.is_sorted_by(|a, b| a.score >= b.score));
                seen[query].extend(ids(mined));
            }
        }
        for (query, seen) in seen.into_iter().enumerate() {
            let drawn = case.drawn.get(&query).cloned().unwrap_or_default();
            assert_eq!(Vec::from_iter(seen), drawn, "{:?}, query {query}", case.options);
        }
        assert_eq!(mine(1), mine(1));
        assert_ne!(mine(1), mine(2));
    }
}

#[test]
fn marginal_relevance_of_the_reference() {
    let (queries, corpus, _) = inputs();
    for case in goldens().mmr {
        let query = queries.row(case.query);
        let hits = mmr(&query, &corpus.view(), case.top_k, 1.0 - case.diversity).unwrap();
        let (got, want): (Vec<usize>, Vec<usize>) = (
            hits.iter().map(|hit| hit.corpus_id).collect(),
            case.hits.iter().map(|hit| hit.0).collect(),
        );
        assert_eq!(got, want, "query {}, diversity {}", case.query, case.diversity);
        for (got, want) in hits.iter().zip(&case.hits) {
            assert!(
                (f64::from(got.score) - want.1).abs() <= tolerance("cosine"),
                "{got:?}, {want:?}"
            );
        }
    }
}

/// Against the formula in f64, choice by choice.
#[test]
fn marginal_relevance_is_the_formula() {
    let (queries, corpus, _) = inputs();
    let cosine = |a: usize, b: usize| {
        let (a, b) = (corpus.row(a), corpus.row(b));
        let dot = |a: &[f32], b: &[f32]| {
            a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>()
        };
        let (a, b) = (a.to_slice().unwrap(), b.to_slice().unwrap());
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let to_query = cos_sim(&queries.view(), &corpus.view());
    for (query, lambda) in [(0, 0.0), (1, 0.3), (2, 0.5), (3, 0.8), (4, 1.0)] {
        let hits = mmr(&queries.row(query), &corpus.view(), 12, lambda).unwrap();
        let mut chosen: Vec<usize> = Vec::new();
        for hit in &hits {
            let value = |row: usize| {
                let redundancy = chosen.iter().map(|&c| cosine(row, c)).fold(f64::MIN, f64::max);
                let redundancy = if chosen.is_empty() { 0.0 } else { redundancy };
                let relevance = f64::from(to_query[[query, row]]);
                f64::from(lambda) * relevance - (1.0 - f64::from(lambda)) * redundancy
            };
            let free = (0..corpus.nrows()).filter(|row| !chosen.contains(row));
            let best = free.map(value).fold(f64::MIN, f64::max);
            assert!(value(hit.corpus_id) >= best - tolerance("cosine"), "{lambda}: {hit:?}");
            assert_eq!(hit.score, to_query[[query, hit.corpus_id]]);
            assert!(!chosen.contains(&hit.corpus_id));
            chosen.push(hit.corpus_id);
        }
        assert_eq!(hits.len(), 12);
    }
    let all = mmr(&queries.row(0), &corpus.slice(s![..3, ..]), 10, 0.5).unwrap();
    assert_eq!(all.len(), 3);
}

#[test]
fn small_sets() {
    let (_, corpus, _) = inputs();
    for rows in 0..2 {
        let few = corpus.slice(s![..rows, ..]);
        assert!(paraphrase_mining(&few, &ParaphraseOptions::default()).unwrap().is_empty());
        assert!(community_detection(&few, &CommunityOptions::default()).unwrap().is_empty());
    }
    let one = CommunityOptions::default().min_community_size(1).threshold(2.0);
    let alone = community_detection(&corpus.slice(s![..2, ..]), &one).unwrap();
    assert_eq!(alone, [[0], [1]], "a centre belongs to its community whatever the threshold");
}

#[test]
fn wrong_input_is_an_error() {
    let (queries, corpus, _) = inputs();
    let mut broken = corpus.clone();
    broken[[8, 3]] = f32::NAN;
    let pairs = |options| paraphrase_mining(&corpus.view(), &options).map(|pairs| pairs.len());
    let default = ParaphraseOptions::default;
    for options in [default().top_k(0), default().max_pairs(0), default().query_chunk_size(0)] {
        assert!(matches!(pairs(options), Err(Error::Option { .. })));
    }
    let error = paraphrase_mining(&broken.view(), &default()).unwrap_err();
    assert!(
        matches!(error, Error::Input { problem: InputProblem::NotFinite { row: 8, .. }, .. }),
        "{error}"
    );

    let default = CommunityOptions::default;
    let wrong =
        [default().min_community_size(0), default().batch_size(0), default().threshold(f32::NAN)];
    for options in wrong {
        let error = community_detection(&corpus.view(), &options).unwrap_err();
        assert!(matches!(error, Error::Option { .. }), "{error}");
    }
    assert!(matches!(
        community_detection(&broken.view(), &default()),
        Err(Error::Input { problem: InputProblem::NotFinite { .. }, .. })
    ));

    let default = NegativeOptions::default;
    let mine = |corpus: &Array2<f32>, positives: Vec<Vec<usize>>, options: NegativeOptions| {
        mine_hard_negatives(&queries.view(), &corpus.view(), &positives, &options).unwrap_err()
    };
    let wrong = [
        default().num_negatives(0),
        default().range_min(5).range_max(5),
        default().range_max(2),
        default().max_score(f32::NAN),
    ];
    for options in wrong {
        let error = mine(&corpus, vec![vec![0]; 12], options);
        assert!(matches!(error, Error::Option { .. }), "{error}");
    }
    for positives in [vec![vec![0]; 11], vec![vec![90]; 12]] {
        let error = mine(&corpus, positives, default());
        assert!(matches!(error, Error::Option { option: "positives", .. }), "{error}");
    }
    assert!(matches!(
        mine(&corpus, vec![vec![]; 12], default()),
        Error::Input { problem: InputProblem::Empty, .. }
    ));
    let none = Array2::zeros((0, 20));
    assert!(matches!(
        mine(&none, vec![vec![0]; 12], default()),
        Error::Input { problem: InputProblem::Empty, .. }
    ));
    let narrow = Array2::zeros((3, 19));
    assert!(matches!(
        mine(&narrow, vec![vec![0]; 12], default()),
        Error::Input { problem: InputProblem::Width { .. }, .. }
    ));
    let error = mine(&broken, vec![vec![0]; 12], default());
    assert!(
        matches!(error, Error::Input { problem: InputProblem::NotFinite { row: 8, .. }, .. }),
        "{error}"
    );
    let options = default().similarity(Similarity::Dot);
    let none = Array2::zeros((0, 20));
    assert!(mine_hard_negatives(&none.view(), &corpus.view(), &[], &options).unwrap().is_empty());

    let query = queries.index_axis(Axis(0), 0);
    let corpus = corpus.view();
    for (top_k, lambda) in [(0, 0.5), (3, -0.1), (3, 1.1), (3, f32::NAN)] {
        assert!(matches!(mmr(&query, &corpus, top_k, lambda), Err(Error::Option { .. })));
    }
    assert!(matches!(
        mmr(&query, &corpus.slice(s![..0, ..]), 3, 0.5),
        Err(Error::Input { problem: InputProblem::Empty, .. })
    ));
    assert!(matches!(
        mmr(&query, &corpus.slice(s![.., ..3]), 3, 0.5),
        Err(Error::Input { problem: InputProblem::Width { .. }, .. })
    ));
    assert!(matches!(
        mmr(&query, &broken.view(), 3, 0.5),
        Err(Error::Input { problem: InputProblem::NotFinite { row: 8, .. }, .. })
    ));
}

#[test]
fn rows_without_columns_are_an_error() {
    let (none, rows) = (Array2::<f32>::zeros((12, 0)), Array2::<f32>::zeros((3, 4)));
    let columns = |error: Error, whose: &str| {
        assert!(matches!(error, Error::Input { problem: InputProblem::NoColumns, .. }), "{error}");
        assert_eq!(error.to_string(), format!("`{whose}`: its rows have no columns"));
    };
    columns(paraphrase_mining(&none.view(), &Default::default()).unwrap_err(), "embeddings");
    columns(community_detection(&none.view(), &Default::default()).unwrap_err(), "embeddings");
    columns(mmr(&none.row(0), &none.view(), 2, 0.5).unwrap_err(), "documents");
    let mine = |queries: &Array2<f32>, corpus: &Array2<f32>| {
        let positives = vec![vec![0]; queries.nrows()];
        mine_hard_negatives(&queries.view(), &corpus.view(), &positives, &Default::default())
    };
    columns(mine(&none, &none).unwrap_err(), "corpus");
    columns(mine(&none, &rows).unwrap_err(), "queries");
}
