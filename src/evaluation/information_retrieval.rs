//! Are the documents that answer a query ranked before the others?

use std::collections::{BTreeMap, HashSet};

use ndarray::ArrayRef2;

use super::Metrics;
use super::input::{Role, Texts, not_empty, same_length, wrong};
use crate::error::{Result, at_least_one};
use crate::rows::{same_width, usable};
use crate::search::{Chunks, search};
use crate::sentence::SentenceEncoder;
use crate::similarity::Similarity;

/// Ranks a corpus for each query and says how high its relevant documents stand.
///
/// As sentence-transformers' `InformationRetrievalEvaluator`; where that breaks ties by document
/// id, this does by the document's place in the corpus. Queries without relevant documents are left
/// out.
///
/// ```
/// use mpnet::evaluation::InformationRetrievalEvaluator;
///
/// let evaluator = InformationRetrievalEvaluator { mrr_at_k: vec![3], ..Default::default() };
/// // The documents in the order found, and those that answer the query.
/// let metrics = evaluator.score_rankings(&[vec![4, 2, 0]], &[vec![2, 9]])?;
/// assert_eq!(metrics.mrr_at_k[&3], 0.5);
/// assert_eq!(metrics.recall_at_k[&3], 0.5);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InformationRetrievalEvaluator {
    /// The `k` of accuracy@k.
    pub accuracy_at_k: Vec<usize>,
    /// The `k` of precision@k and recall@k.
    pub precision_recall_at_k: Vec<usize>,
    /// The `k` of MRR@k.
    pub mrr_at_k: Vec<usize>,
    /// The `k` of NDCG@k.
    pub ndcg_at_k: Vec<usize>,
    /// The `k` of MAP@k.
    pub map_at_k: Vec<usize>,
    /// The similarity to rank by; `None`: the model's own, or the cosine of embeddings that come
    /// without one.
    pub similarity: Option<Similarity>,
    /// Put before each query instead of the model's prompt `query`.
    pub query_prompt: Option<String>,
    /// Put before each document instead of the model's prompt `document`.
    pub corpus_prompt: Option<String>,
    /// Components of the embeddings that are used; `None`: all.
    pub truncate_dim: Option<usize>,
}

impl Default for InformationRetrievalEvaluator {
    fn default() -> Self {
        Self {
            accuracy_at_k: vec![1, 3, 5, 10],
            precision_recall_at_k: vec![1, 3, 5, 10],
            mrr_at_k: vec![10],
            ndcg_at_k: vec![10],
            map_at_k: vec![100],
            similarity: None,
            query_prompt: None,
            corpus_prompt: None,
            truncate_dim: None,
        }
    }
}

/// How high relevant documents stand: means over the queries, by `k`.
///
/// ```
/// use mpnet::evaluation::{InformationRetrievalEvaluator, Metrics};
///
/// let metrics = InformationRetrievalEvaluator::default().score_rankings(&[vec![0]], &[vec![0]])?;
/// assert_eq!(metrics.mrr_at_k[&10], 1.0);
/// assert!(metrics.entries().iter().any(|(name, _)| name == "mrr@10"));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct InformationRetrievalMetrics {
    /// The part of the queries with a relevant document among the first `k`.
    pub accuracy_at_k: BTreeMap<usize, f64>,
    /// Relevant documents among the first `k`, divided by `k`, however few documents there are.
    pub precision_at_k: BTreeMap<usize, f64>,
    /// Relevant documents among the first `k`, divided by how many there are.
    pub recall_at_k: BTreeMap<usize, f64>,
    /// 1 over the rank of the first relevant document; 0 if that is beyond `k`.
    pub mrr_at_k: BTreeMap<usize, f64>,
    /// `Σ 1 / log₂(rank + 1)` over the relevant documents among the first `k`, divided by what it
    /// could be. The main metric.
    pub ndcg_at_k: BTreeMap<usize, f64>,
    /// The precision at each relevant document among the first `k`, added up and divided by the
    /// smaller of `k` and the number of relevant documents.
    pub map_at_k: BTreeMap<usize, f64>,
}

impl Metrics for InformationRetrievalMetrics {
    fn entries(&self) -> Vec<(String, f64)> {
        let metrics = [
            ("accuracy", &self.accuracy_at_k),
            ("precision", &self.precision_at_k),
            ("recall", &self.recall_at_k),
            ("mrr", &self.mrr_at_k),
            ("ndcg", &self.ndcg_at_k),
            ("map", &self.map_at_k),
        ];
        let named = |(name, values): (&str, &BTreeMap<usize, f64>)| -> Vec<(String, f64)> {
            values.iter().map(|(k, &value)| (format!("{name}@{k}"), value)).collect()
        };
        metrics.into_iter().flat_map(named).collect()
    }
}

super::printed!(InformationRetrievalMetrics);

impl InformationRetrievalEvaluator {
    /// Encodes queries and corpus, ranks the corpus for each query; `relevant[q]` are the places in
    /// `corpus` of the documents that answer query `q`.
    ///
    /// ```
    /// use mpnet::evaluation::InformationRetrievalEvaluator;
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let queries = ["who was there?", "which house is it?"];
    /// let corpus = ["no one was there", "the house is new", "an old train"];
    /// let metrics = InformationRetrievalEvaluator::default()
    ///     .evaluate(&encoder, &queries, &corpus, &[vec![0], vec![1]])?;
    /// println!("NDCG@10 {:.3}", metrics.ndcg_at_k[&10]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if `relevant` has another length than `queries` or
    /// names a document beyond the corpus, or no query has a relevant document;
    /// [`Error::Option`](crate::Error::Option) for a `k` of 0; those of
    /// [`SentenceEncoder::encode_with`].
    pub fn evaluate<S: AsRef<str>>(
        &self,
        encoder: &SentenceEncoder,
        queries: &[S],
        corpus: &[S],
        relevant: &[Vec<usize>],
    ) -> Result<InformationRetrievalMetrics> {
        self.check(("queries", queries.len()), Some(corpus.len()), relevant)?;
        let texts = Texts::new(encoder, self.truncate_dim);
        let queries =
            texts.role(Role::Query).prompt(self.query_prompt.as_deref()).encode(queries)?;
        let corpus =
            texts.role(Role::Document).prompt(self.corpus_prompt.as_deref()).encode(corpus)?;
        let similarity = self.similarity.unwrap_or(encoder.similarity_fn());
        self.score(similarity, &queries.view(), &corpus.view(), relevant)
    }

    /// The same of embeddings: `queries` `[Q, D]`, `corpus` `[C, D]`.
    ///
    /// ```
    /// use mpnet::{evaluation::InformationRetrievalEvaluator, ndarray::arr2};
    ///
    /// let corpus = arr2(&[[1.0_f32, 0.0], [0.0, 1.0]]);
    /// let queries = arr2(&[[0.2_f32, 1.0]]);
    /// let metrics = InformationRetrievalEvaluator::default()
    ///     .score_embeddings(&queries.view(), &corpus.view(), &[vec![1]])?;
    /// assert_eq!(metrics.accuracy_at_k[&1], 1.0);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`evaluate`](Self::evaluate), and [`Error::Input`](crate::Error::Input) if the widths
    /// differ or a component is not finite.
    pub fn score_embeddings(
        &self,
        queries: &ArrayRef2<f32>,
        corpus: &ArrayRef2<f32>,
        relevant: &[Vec<usize>],
    ) -> Result<InformationRetrievalMetrics> {
        self.score(self.similarity.unwrap_or_default(), queries, corpus, relevant)
    }

    fn score(
        &self,
        similarity: Similarity,
        queries: &ArrayRef2<f32>,
        corpus: &ArrayRef2<f32>,
        relevant: &[Vec<usize>],
    ) -> Result<InformationRetrievalMetrics> {
        self.check(("queries", queries.nrows()), Some(corpus.nrows()), relevant)?;
        same_width("corpus", corpus.ncols(), queries.ncols())?;
        usable("queries", queries)?;
        usable("corpus", corpus)?;
        let deepest = self.ks().into_iter().flat_map(|(_, ks)| ks).copied().max().unwrap_or(0);
        let hits = search(similarity, queries, corpus, deepest, Chunks::default(), None);
        let ids = |hits: Vec<crate::search::Hit>| hits.iter().map(|hit| hit.corpus_id).collect();
        self.score_rankings(&hits.into_iter().map(ids).collect::<Vec<_>>(), relevant)
    }

    /// The same of rankings: `rankings[q]` are the documents found for query `q`, best first, each
    /// once; `relevant[q]` those that answer it, found or not.
    ///
    /// ```
    /// use mpnet::evaluation::InformationRetrievalEvaluator;
    ///
    /// let found = [vec![3, 1, 2]]; // by any search
    /// let metrics = InformationRetrievalEvaluator::default().score_rankings(&found, &[vec![1, 2]])?;
    /// assert_eq!(metrics.recall_at_k[&3], 1.0);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if the lengths differ, a document is twice in a
    /// ranking, or no query has a relevant document; [`Error::Option`](crate::Error::Option) for a
    /// `k` of 0.
    pub fn score_rankings(
        &self,
        rankings: &[Vec<usize>],
        relevant: &[Vec<usize>],
    ) -> Result<InformationRetrievalMetrics> {
        self.check(("rankings", rankings.len()), None, relevant)?;
        for (query, ranking) in rankings.iter().enumerate() {
            let mut seen = HashSet::new();
            if let Some(twice) = ranking.iter().find(|&&document| !seen.insert(document)) {
                let problem = format!("query {query} has document {twice} twice");
                return Err(wrong("rankings", problem));
            }
        }
        let queries: Vec<Ranked> = rankings
            .iter()
            .zip(relevant)
            .filter(|(_, relevant)| !relevant.is_empty())
            .map(|(ranking, relevant)| Ranked::new(ranking, relevant))
            .collect();
        let means = |ks: &[usize], metric: fn(&Ranked, usize) -> f64| -> BTreeMap<usize, f64> {
            let mean = |&k: &usize| {
                let sum: f64 = queries.iter().map(|query| metric(query, k)).sum();
                (k, sum / queries.len() as f64)
            };
            ks.iter().map(mean).collect()
        };
        Ok(InformationRetrievalMetrics {
            accuracy_at_k: means(&self.accuracy_at_k, Ranked::accuracy),
            precision_at_k: means(&self.precision_recall_at_k, Ranked::precision),
            recall_at_k: means(&self.precision_recall_at_k, Ranked::recall),
            mrr_at_k: means(&self.mrr_at_k, Ranked::reciprocal_rank),
            ndcg_at_k: means(&self.ndcg_at_k, Ranked::ndcg),
            map_at_k: means(&self.map_at_k, Ranked::average_precision),
        })
    }

    fn ks(&self) -> [(&'static str, &[usize]); 5] {
        [
            ("accuracy_at_k", &self.accuracy_at_k),
            ("precision_recall_at_k", &self.precision_recall_at_k),
            ("mrr_at_k", &self.mrr_at_k),
            ("ndcg_at_k", &self.ndcg_at_k),
            ("map_at_k", &self.map_at_k),
        ]
    }

    fn check(
        &self,
        queries: (&'static str, usize),
        corpus: Option<usize>,
        relevant: &[Vec<usize>],
    ) -> Result<()> {
        for (option, ks) in self.ks() {
            ks.iter().try_for_each(|&k| at_least_one(option, k))?;
        }
        not_empty(queries.0, queries.1)?;
        same_length(("relevant", relevant.len()), queries)?;
        if relevant.iter().all(Vec::is_empty) {
            return Err(wrong("relevant", "no query has a relevant document".into()));
        }
        let Some(corpus) = corpus else { return Ok(()) };
        not_empty("corpus", corpus)?;
        for (query, documents) in relevant.iter().enumerate() {
            if let Some(beyond) = documents.iter().find(|&&document| document >= corpus) {
                let problem = format!("query {query} names document {beyond} of {corpus}");
                return Err(wrong("relevant", problem));
            }
        }
        Ok(())
    }
}

/// What one query found.
struct Ranked {
    /// The ranks of the relevant documents found, from 1, ascending.
    ranks: Vec<usize>,
    /// How many relevant documents there are.
    relevant: usize,
}

impl Ranked {
    fn new(ranking: &[usize], relevant: &[usize]) -> Self {
        let relevant: HashSet<usize> = relevant.iter().copied().collect();
        let ranked = (1..).zip(ranking).filter(|(_, document)| relevant.contains(document));
        Self { ranks: ranked.map(|(rank, _)| rank).collect(), relevant: relevant.len() }
    }

    fn within(&self, k: usize) -> &[usize] {
        &self.ranks[..self.ranks.partition_point(|&rank| rank <= k)]
    }

    fn accuracy(&self, k: usize) -> f64 {
        f64::from(u8::from(!self.within(k).is_empty()))
    }

    fn precision(&self, k: usize) -> f64 {
        self.within(k).len() as f64 / k as f64
    }

    fn recall(&self, k: usize) -> f64 {
        self.within(k).len() as f64 / self.relevant as f64
    }

    fn reciprocal_rank(&self, k: usize) -> f64 {
        self.within(k).first().map_or(0.0, |&rank| 1.0 / rank as f64)
    }

    fn ndcg(&self, k: usize) -> f64 {
        let gain = |rank: usize| 1.0 / (rank as f64 + 1.0).log2();
        let best: f64 = (1..=k.min(self.relevant)).map(gain).sum();
        self.within(k).iter().copied().map(gain).sum::<f64>() / best
    }

    fn average_precision(&self, k: usize) -> f64 {
        let precisions =
            (1..).zip(self.within(k)).map(|(hits, &rank)| f64::from(hits) / rank as f64);
        precisions.sum::<f64>() / k.min(self.relevant) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three queries; of the last, scores .9, .9, .5, .4, .3 with a tie broken by place. The
    /// reference's values.
    #[test]
    fn of_a_small_example() {
        let rankings = [vec![2, 1, 3, 4], vec![1, 2], vec![1, 5, 2, 6, 4]];
        let relevant = [vec![1, 3, 3], vec![9], vec![2, 4, 5]];
        let evaluator = InformationRetrievalEvaluator {
            ndcg_at_k: vec![3, 10],
            map_at_k: vec![3, 100],
            ..Default::default()
        };
        let got = evaluator.score_rankings(&rankings, &relevant).unwrap();
        for (got, want) in [
            (got.accuracy_at_k[&1], 0.0),
            (got.accuracy_at_k[&3], 0.666_666_666_7),
            (got.precision_at_k[&3], 0.444_444_444_4),
            (got.recall_at_k[&3], 0.555_555_555_6),
            (got.mrr_at_k[&10], 0.333_333_333_3),
            (got.ndcg_at_k[&3], 0.408_049_225_9),
            (got.ndcg_at_k[&10], 0.468_563_156_7),
            (got.map_at_k[&3], 0.324_074_074_1),
            (got.map_at_k[&100], 0.390_740_740_7),
        ] {
            assert!((got - want).abs() < 1e-9, "{got} {want}");
        }
        let printed = got.to_string();
        assert!(printed.starts_with("accuracy@1    0.0000\n"), "{printed}");
        assert!(printed.ends_with("map@100       0.3907"), "{printed}");
    }
}
