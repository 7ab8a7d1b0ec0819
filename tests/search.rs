//! Search over `f32`, integers and bits, beside the reference.

mod common;

use std::collections::BTreeMap;

use common::search::{inputs, tolerance};
use mpnet::ndarray::{Array2, ArrayView1, s};
use mpnet::quantization::{
    EmbeddingPrecision, QuantizedView, Ranges, quantize_binary, quantize_embeddings, quantize_int8,
};
use mpnet::search::{
    Hit, Rescore, RescoreOptions, SearchOptions, semantic_search, semantic_search_quantized,
    semantic_search_rescored, semantic_search_with,
};
use mpnet::{Error, InputProblem, Similarity};

#[derive(serde::Deserialize)]
struct Goldens {
    semantic_search: BTreeMap<String, Vec<Vec<(usize, f64)>>>,
    rescored: Vec<Rescored>,
    rescored_by_int8: Vec<RescoredByInt8>,
}

/// Rows of equal scores are in ascending order; those of the last score are left out where chance
/// chose among more of them.
#[derive(serde::Deserialize)]
struct Rescored {
    library: String,
    precision: String,
    top_k: usize,
    multiplier: usize,
    rescore: bool,
    hits: BTreeMap<usize, Vec<(usize, f64)>>,
}

#[derive(serde::Deserialize)]
struct RescoredByInt8 {
    top_k: usize,
    multiplier: usize,
    hits: BTreeMap<usize, Vec<(usize, f64)>>,
}

#[track_caller]
fn same(what: &str, got: &[Hit], want: &[(usize, f64)], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert_eq!(got.corpus_id, want.0, "{what}: {got:?}, {want:?}");
        assert!((f64::from(got.score) - want.1).abs() <= tolerance, "{what}: {got:?}, {want:?}");
    }
}

#[test]
fn hits_of_the_reference_by_every_similarity_and_in_any_chunks() {
    let (queries, corpus, _) = inputs();
    let goldens: Goldens = common::json("search.json");
    assert_eq!(goldens.semantic_search.len(), 4);
    for (name, want) in &goldens.semantic_search {
        let similarity: Similarity = name.parse().unwrap();
        let options = SearchOptions::default().similarity(similarity).top_k(7);
        let plain = semantic_search_with(&queries.view(), &corpus.view(), &options).unwrap();
        if similarity == Similarity::Cosine {
            assert_eq!(semantic_search(&queries.view(), &corpus.view(), 7), plain);
        }
        for (got, want) in plain.iter().zip(want) {
            same(name, got, want, tolerance(name));
        }
        for (queries_at_once, rows_at_once) in [(1, 1), (5, 7), (100, 64), (usize::MAX, usize::MAX)]
        {
            let options = options.query_chunk_size(queries_at_once).corpus_chunk_size(rows_at_once);
            let got = semantic_search_with(&queries.view(), &corpus.view(), &options).unwrap();
            assert_eq!(got, plain, "{name}, {queries_at_once}, {rows_at_once}");
        }
    }
}

/// How far the rescored hits of a query may be from `float64`, which the reference computes in: the
/// value of a bucket is rounded twice, to half an epsilon of the dimension's span and of its
/// largest value; the score of exact products once. Bits are exact.
fn rescored_tolerance(
    query: ArrayView1<f32>,
    ranges: Option<&Ranges>,
    want: &[(usize, f64)],
) -> f64 {
    let value = |k: usize| match ranges {
        None => 0.0,
        Some(ranges) => {
            let (low, high) = (ranges.as_array()[[0, k]], ranges.as_array()[[1, k]]);
            f64::from(high - low) + f64::from(low.abs().max(high.abs()))
        }
    };
    let values = query.iter().enumerate().map(|(k, x)| f64::from(x.abs()) * value(k)).sum::<f64>();
    let score = want.iter().map(|hit| hit.1.abs()).fold(0.0, f64::max);
    f64::from(f32::EPSILON) / 2.0 * (values + score)
}

#[test]
fn rescored_as_the_reference() {
    let (queries, corpus, ranges) = inputs();
    let ranges = Ranges::new(ranges).unwrap();
    let goldens: Goldens = common::json("search.json");
    for case in goldens.rescored.iter().filter(|case| case.rescore) {
        let precision: EmbeddingPrecision = case.precision.parse().unwrap();
        let coded = quantize_embeddings(&corpus.view(), precision, Some(&ranges)).unwrap();
        let options = RescoreOptions::default().top_k(case.top_k).ranges(&ranges);
        let options = options.rescore_multiplier(case.multiplier).rescore(Rescore::Corpus);
        let hits = semantic_search_rescored(&queries.view(), &coded.view(), &options).unwrap();
        let buckets = matches!(coded.view(), QuantizedView::Int8(_) | QuantizedView::Uint8(_));
        let ranges = buckets.then_some(&ranges);
        assert!(!case.hits.is_empty());
        for (&query, want) in &case.hits {
            let what = format!("{}, {precision}, query {query}", case.library);
            assert_eq!(hits[query].len(), case.top_k, "{what}");
            let tolerance = rescored_tolerance(queries.row(query), ranges, want);
            same(&what, &hits[query][..want.len()], want, tolerance);
        }
    }
}

/// The same by codes and by embeddings that are coded on the way. Whole numbers, so the scores are
/// exact.
#[test]
fn codes_alone_as_the_reference() {
    let (queries, corpus, ranges) = inputs();
    let ranges = Ranges::new(ranges).unwrap();
    let goldens: Goldens = common::json("search.json");
    let mut precisions = Vec::new();
    for case in goldens.rescored.iter().filter(|case| !case.rescore) {
        let precision: EmbeddingPrecision = case.precision.parse().unwrap();
        let coded = |rows: &Array2<f32>| {
            quantize_embeddings(&rows.view(), precision, Some(&ranges)).unwrap()
        };
        let (asked, coded) = (coded(&queries), coded(&corpus));
        let hits = semantic_search_quantized(&asked.view(), &coded.view(), case.top_k).unwrap();
        let options = RescoreOptions::default().top_k(case.top_k).ranges(&ranges);
        let options = options.rescore(Rescore::None);
        let of_floats = semantic_search_rescored(&queries.view(), &coded.view(), &options).unwrap();
        assert_eq!(hits, of_floats, "{precision}");
        // Distances of bits; usearch takes one minus the dot product for another.
        let score = |score: f64| match (case.library.as_str(), precision) {
            ("faiss", EmbeddingPrecision::Uint8) => score,
            ("usearch", EmbeddingPrecision::Int8) => 1.0 - score,
            _ => -score,
        };
        assert_eq!(case.hits.len(), queries.nrows());
        for (&query, want) in &case.hits {
            let what = format!("{}, {precision}, query {query}", case.library);
            assert_eq!(hits[query].len(), case.top_k, "{what}");
            let want: Vec<_> = want.iter().map(|&(row, distance)| (row, score(distance))).collect();
            same(&what, &hits[query][..want.len()], &want, 0.0);
        }
        precisions.push(precision);
    }
    assert!(EmbeddingPrecision::ALL[1..].iter().all(|precision| precisions.contains(precision)));
}

/// The reference has no call for this, but both halves: candidates by bits, and scores by `int8`
/// for every row.
#[test]
fn bits_rescored_by_int8_as_the_reference() {
    let (queries, corpus, ranges) = inputs();
    let ranges = Ranges::new(ranges).unwrap();
    let bits = quantize_binary(&corpus.view()).unwrap();
    let bytes = quantize_int8(&corpus.view(), &ranges).unwrap();
    let goldens: Goldens = common::json("search.json");
    assert!(!goldens.rescored_by_int8.is_empty());
    for case in &goldens.rescored_by_int8 {
        let options = RescoreOptions::default().top_k(case.top_k);
        let options = options.rescore_multiplier(case.multiplier);
        let options = options.rescore(Rescore::Int8(bytes.view(), &ranges));
        let bits = QuantizedView::Binary(bits.view());
        let hits = semantic_search_rescored(&queries.view(), &bits, &options).unwrap();
        for (&query, want) in &case.hits {
            let tolerance = rescored_tolerance(queries.row(query), Some(&ranges), want);
            same(&format!("query {query}"), &hits[query], want, tolerance);
        }
    }
}

/// Bits and integers against plain loops, for widths around a word and more rows than a block.
#[test]
fn whole_numbers_are_exact() {
    for d in [1, 7, 8, 20, 64, 65, 200] {
        let value = |seed: usize| {
            move |(i, j): (usize, usize)| ((i * 31 + j * 17 + seed) as f32 * 1.7).sin()
        };
        let corpus = Array2::from_shape_fn((1100, d), value(1));
        let queries = Array2::from_shape_fn((3, d), value(5));
        let ranges = Ranges::calibrate(&corpus.view()).unwrap();
        for precision in EmbeddingPrecision::ALL.into_iter().skip(1) {
            let coded = |rows: &Array2<f32>| {
                quantize_embeddings(&rows.view(), precision, Some(&ranges)).unwrap()
            };
            let (a, b) = (coded(&queries), coded(&corpus));
            let hits = semantic_search_quantized(&a.view(), &b.view(), 1100).unwrap();
            for (i, hits) in hits.iter().enumerate() {
                let mut last = (f32::INFINITY, 0);
                assert_eq!(hits.len(), 1100);
                for hit in hits {
                    let score = pair(&a.view(), i, &b.view(), hit.corpus_id);
                    assert_eq!(hit.score, score as f32, "{precision}, width {d}");
                    let key = (hit.score, hit.corpus_id);
                    assert!(key.0 < last.0 || (key.0 == last.0 && key.1 > last.1));
                    last = key;
                }
            }
            let top = semantic_search_quantized(&a.view(), &b.view(), 9).unwrap();
            assert!(top.iter().zip(&hits).all(|(top, all)| top[..] == all[..9]));
        }
    }
}

fn pair(a: &QuantizedView, i: usize, b: &QuantizedView, j: usize) -> i64 {
    use QuantizedView::{Binary, Int8, Ubinary, Uint8};
    let dot = |a: i64, b: i64| a * b;
    match (a, b) {
        (Int8(a), Int8(b)) => {
            a.row(i).iter().zip(b.row(j)).map(|(&a, &b)| dot(a.into(), b.into())).sum()
        }
        (Uint8(a), Uint8(b)) => {
            a.row(i).iter().zip(b.row(j)).map(|(&a, &b)| dot(a.into(), b.into())).sum()
        }
        (Ubinary(a), Ubinary(b)) => -a
            .row(i)
            .iter()
            .zip(b.row(j))
            .map(|(a, b)| i64::from((a ^ b).count_ones()))
            .sum::<i64>(),
        (Binary(a), Binary(b)) => -a
            .row(i)
            .iter()
            .zip(b.row(j))
            .map(|(a, b)| i64::from((a ^ b).count_ones()))
            .sum::<i64>(),
        _ => panic!("one precision"),
    }
}

#[test]
fn finer_numbers_correct_the_first_stage() {
    let (queries, corpus, _) = inputs();
    let exact = SearchOptions::default().similarity(Similarity::Dot).top_k(4);
    let exact = semantic_search_with(&queries.view(), &corpus.view(), &exact).unwrap();
    let bits = quantize_binary(&corpus.view()).unwrap();
    let bits = QuantizedView::Binary(bits.view());
    let ranges = Ranges::calibrate(&corpus.view()).unwrap();
    let bytes = quantize_int8(&corpus.view(), &ranges).unwrap();
    // All rows are candidates, so what decides is the second stage.
    let options = RescoreOptions::default().top_k(4).rescore_multiplier(23);
    let by = |rescore| {
        let options = options.rescore(rescore);
        semantic_search_rescored(&queries.view(), &bits, &options).unwrap()
    };
    for (got, want) in
        by(Rescore::Float32(corpus.view())).iter().flatten().zip(exact.iter().flatten())
    {
        assert_eq!(got.corpus_id, want.corpus_id);
        assert!((f64::from(got.score) - f64::from(want.score)).abs() <= tolerance("dot"));
    }
    for (got, want) in by(Rescore::Int8(bytes.view(), &ranges)).iter().zip(&exact) {
        // A bucket is up to 1/255 of 4 to 7 wide: over 20 components of up to 3 that is off by 1 at
        // most.
        assert!((got[0].score - want[0].score).abs() < 1.0, "{got:?}, {want:?}");
    }
    let first = by(Rescore::None);
    assert!(first.iter().all(|hits| hits.len() == 4 && hits[0].score <= 0.0));
}

#[test]
fn wrong_input_is_an_error() {
    let (queries, mut corpus, ranges) = inputs();
    let ranges = Ranges::new(ranges).unwrap();
    let search = |queries: &Array2<f32>, corpus: &Array2<f32>, options: SearchOptions| {
        semantic_search_with(&queries.view(), &corpus.view(), &options).map(|hits| hits.len())
    };
    let default = SearchOptions::default;
    for options in
        [default().top_k(0), default().query_chunk_size(0), default().corpus_chunk_size(0)]
    {
        assert!(matches!(search(&queries, &corpus, options), Err(Error::Option { .. })));
    }
    assert!(matches!(
        search(&queries, &Array2::zeros((0, 20)), default()),
        Err(Error::Input { problem: InputProblem::Empty, .. })
    ));
    let narrow = Array2::zeros((2, 19));
    let error = search(&narrow, &corpus, default()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Input { problem: InputProblem::Width { found: 19, expected: 20, .. }, .. }
        ),
        "{error}"
    );
    assert_eq!(search(&Array2::zeros((0, 20)), &corpus, default()).unwrap(), 0);

    let coded = quantize_embeddings(&corpus.view(), EmbeddingPrecision::Uint8, Some(&ranges));
    let (coded, bits) = (coded.unwrap(), quantize_binary(&corpus.view()).unwrap());
    let bits = QuantizedView::Binary(bits.view());
    let mixed = semantic_search_quantized(&bits, &coded.view(), 3);
    assert!(matches!(mixed, Err(Error::Option { option: "precision", .. })));
    assert!(matches!(semantic_search_quantized(&bits, &bits, 0), Err(Error::Option { .. })));
    let wide = Array2::<u8>::zeros((1, 33_026));
    let wide = QuantizedView::Uint8(wide.view());
    assert!(matches!(semantic_search_quantized(&wide, &wide, 1), Err(Error::Option { .. })));
    let none = Array2::<u8>::zeros((0, 3));
    let none = QuantizedView::Ubinary(none.view());
    assert!(matches!(
        semantic_search_quantized(&none, &none, 1),
        Err(Error::Input { problem: InputProblem::Empty, .. })
    ));

    let rescored = |corpus: &QuantizedView, options: &RescoreOptions| {
        semantic_search_rescored(&queries.view(), corpus, options).map(|hits| hits.len())
    };
    let error = rescored(&coded.view(), &RescoreOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Option { option: "ranges", .. }), "{error}");
    let options = RescoreOptions::default().rescore_multiplier(0);
    assert!(matches!(rescored(&bits, &options), Err(Error::Option { .. })));
    let fewer = RescoreOptions::default().rescore(Rescore::Float32(corpus.slice(s![..5, ..])));
    assert!(matches!(rescored(&bits, &fewer), Err(Error::Option { option: "rescore", .. })));
    let narrow = RescoreOptions::default().rescore(Rescore::Float32(corpus.slice(s![.., ..5])));
    assert!(matches!(
        rescored(&bits, &narrow),
        Err(Error::Input { problem: InputProblem::Width { .. }, .. })
    ));
    assert_eq!(rescored(&bits, &RescoreOptions::default()).unwrap(), 12);
    assert!(matches!(
        rescored(&none, &RescoreOptions::default()),
        Err(Error::Input { problem: InputProblem::Empty, .. })
    ));
    let zero = RescoreOptions::default().top_k(0);
    assert!(matches!(rescored(&bits, &zero), Err(Error::Option { option: "top_k", .. })));
    let narrow = Ranges::new(Array2::zeros((2, 19))).unwrap();
    let error = rescored(&coded.view(), &RescoreOptions::default().ranges(&narrow)).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Input { problem: InputProblem::Width { found: 19, expected: 20, .. }, .. }
        ),
        "{error}"
    );
    let codes = Array2::<i8>::zeros((90, 20));
    let options = RescoreOptions::default().rescore(Rescore::Int8(codes.view(), &narrow));
    let error = rescored(&bits, &options).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Input { problem: InputProblem::Width { found: 19, expected: 20, .. }, .. }
        ),
        "{error}"
    );
    let narrow = Array2::<i8>::zeros((90, 2));
    let error = rescored(&QuantizedView::Binary(narrow.view()), &RescoreOptions::default());
    assert!(
        matches!(error, Err(Error::Input { problem: InputProblem::Width { .. }, .. })),
        "{error:?}"
    );

    let mut broken = queries.clone();
    broken[[3, 19]] = f32::INFINITY;
    let error = search(&broken, &corpus, default()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Input { input: "queries", problem: InputProblem::NotFinite { row: 3, .. } }
        ),
        "{error}"
    );
    corpus[[71, 0]] = f32::NAN;
    corpus[[70, 19]] = f32::NEG_INFINITY;
    for similarity in ["cosine", "dot", "euclidean", "manhattan"] {
        let options = default().similarity(similarity.parse().unwrap());
        let error = search(&queries, &corpus, options).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Input { input: "corpus", problem: InputProblem::NotFinite { row: 70, .. } }
            ),
            "{error}"
        );
    }
}

/// Rows that have no columns are like nothing, so that no row of them is the best.
#[test]
fn rows_without_columns_are_an_error() {
    #[track_caller]
    fn no_columns(result: Result<Vec<Vec<Hit>>, Error>, whose: &str) {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Input { problem: InputProblem::NoColumns, .. }), "{error}");
        assert_eq!(error.to_string(), format!("`{whose}`: its rows have no columns"));
    }
    let (none, bytes, codes) =
        (Array2::<f32>::zeros((3, 0)), Array2::<u8>::zeros((3, 0)), Array2::<i8>::zeros((3, 0)));
    let (row, byte) = (Array2::<f32>::zeros((1, 4)), Array2::<u8>::zeros((1, 4)));
    for similarity in ["cosine", "dot", "euclidean", "manhattan"] {
        let options = SearchOptions::default().similarity(similarity.parse().unwrap());
        no_columns(semantic_search_with(&none.view(), &none.view(), &options), "corpus");
        no_columns(semantic_search_with(&row.view(), &none.view(), &options), "corpus");
        no_columns(semantic_search_with(&none.view(), &row.view(), &options), "queries");
    }
    let views = [
        QuantizedView::Float32(none.view()),
        QuantizedView::Int8(codes.view()),
        QuantizedView::Uint8(bytes.view()),
        QuantizedView::Binary(codes.view()),
        QuantizedView::Ubinary(bytes.view()),
    ];
    let ranges = Ranges::new(Array2::zeros((2, 0))).unwrap();
    let options = RescoreOptions::default().ranges(&ranges);
    for view in &views {
        no_columns(semantic_search_quantized(view, view, 2), "corpus");
        no_columns(semantic_search_rescored(&none.view(), view, &options), "queries");
    }
    let wide = QuantizedView::Ubinary(byte.view());
    no_columns(semantic_search_quantized(&views[4], &wide, 2), "queries");
}
