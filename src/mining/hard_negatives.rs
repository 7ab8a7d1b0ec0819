//! [`mine_hard_negatives`]: rows that look like answers and are not, to train with.

use ndarray::{ArrayRef2, s};

use crate::error::{Error, InputProblem, Result, at_least_one};
use crate::rows::{finite, has_columns, same_width};
use crate::search::{Chunks, Hit, search};
use crate::similarity::Similarity;

/// Which of the candidates that remain become negatives.
///
/// ```
/// use mpnet::mining::{NegativeOptions, SamplingStrategy};
///
/// let options = NegativeOptions::default()
///     .range_max(50)
///     .sampling_strategy(SamplingStrategy::Random { seed: 1 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SamplingStrategy {
    /// The most similar ones.
    #[default]
    Top,
    /// Any, drawn without replacement; the same seed draws the same ones.
    Random {
        /// Where the generator begins.
        seed: u64,
    },
}

/// Options of [`mine_hard_negatives`]. The default is the reference's: the 3 most similar rows that
/// are not positives.
///
/// ```
/// use mpnet::mining::NegativeOptions;
///
/// let options = NegativeOptions::default().num_negatives(5).relative_margin(0.05);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct NegativeOptions {
    similarity: Similarity,
    range_min: usize,
    range_max: Option<usize>,
    max_score: Option<f32>,
    min_score: Option<f32>,
    absolute_margin: Option<f32>,
    relative_margin: Option<f32>,
    num_negatives: usize,
    sampling_strategy: SamplingStrategy,
}

impl Default for NegativeOptions {
    fn default() -> Self {
        Self {
            similarity: Similarity::Cosine,
            range_min: 0,
            range_max: None,
            max_score: None,
            min_score: None,
            absolute_margin: None,
            relative_margin: None,
            num_negatives: 3,
            sampling_strategy: SamplingStrategy::Top,
        }
    }
}

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $type:ty => $value:expr;)*) => {
        impl NegativeOptions {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(mut self, $name: $type) -> Self {
                self.$name = $value;
                self
            })*
        }
    };
}
options! {
    /// What candidates are scored by.
    ///
    /// ```
    /// let options = mpnet::mining::NegativeOptions::default().similarity(mpnet::Similarity::Dot);
    /// ```
    similarity: Similarity => similarity;
    /// How many of the most similar candidates, of those that pass margins and scores, are left
    /// out: they may be answers that nobody marked.
    ///
    /// ```
    /// let options = mpnet::mining::NegativeOptions::default().range_min(10);
    /// ```
    range_min: usize => range_min;
    /// How many candidates are looked at, besides positives. Without it `range_min + num_negatives`
    /// and the most positives that a query has; ten times `num_negatives` with a margin or a
    /// largest score.
    ///
    /// ```
    /// let options = mpnet::mining::NegativeOptions::default().range_max(50);
    /// ```
    range_max: usize => Some(range_max);
    /// The score that a negative may have at most.
    ///
    /// ```
    /// let options = mpnet::mining::NegativeOptions::default().max_score(0.8);
    /// ```
    max_score: f32 => Some(max_score);
    /// The score that a negative must have at least.
    ///
    /// ```
    /// let options = mpnet::mining::NegativeOptions::default().min_score(0.2);
    /// ```
    min_score: f32 => Some(min_score);
    /// How far a negative's score must be below that of the query's worst positive.
    ///
    /// ```
    /// let options = mpnet::mining::NegativeOptions::default().absolute_margin(0.1);
    /// ```
    absolute_margin: f32 => Some(absolute_margin);
    /// The same as a share of the size of that positive's score: 0.05 keeps what scores below 95 %
    /// of it.
    ///
    /// ```
    /// let options = mpnet::mining::NegativeOptions::default().relative_margin(0.05);
    /// ```
    relative_margin: f32 => Some(relative_margin);
    /// Negatives for each query, at most.
    ///
    /// ```
    /// let options = mpnet::mining::NegativeOptions::default().num_negatives(5);
    /// ```
    num_negatives: usize => num_negatives;
    /// Which of the candidates that remain.
    ///
    /// ```
    /// let options = mpnet::mining::NegativeOptions::default().sampling_strategy(mpnet::mining::SamplingStrategy::Random { seed: 1 });
    /// ```
    sampling_strategy: SamplingStrategy => sampling_strategy;
}

impl NegativeOptions {
    /// Candidates that are looked at besides positives, checked.
    fn range(&self, most_positives: usize) -> Result<usize> {
        at_least_one("num_negatives", self.num_negatives)?;
        let floats = [
            ("max_score", self.max_score),
            ("min_score", self.min_score),
            ("absolute_margin", self.absolute_margin),
            ("relative_margin", self.relative_margin),
        ];
        for (option, value) in floats {
            if value.is_some_and(f32::is_nan) {
                return Err(Error::Option { option, problem: "is not a number".to_owned() });
            }
        }
        let filtered = self.absolute_margin.or(self.relative_margin).or(self.max_score).is_some();
        let wanted = self.num_negatives.saturating_mul(if filtered { 10 } else { 1 });
        let default = || self.range_min.saturating_add(wanted).saturating_add(most_positives);
        let range_max = self.range_max.unwrap_or_else(default);
        let left = range_max.saturating_sub(self.range_min);
        if self.num_negatives > left {
            let problem = format!(
                "of {range_max} candidates {} are skipped, so {left} remain for {} negatives",
                self.range_min, self.num_negatives
            );
            return Err(Error::Option { option: "range_max", problem });
        }
        Ok(range_max)
    }
}

/// What was found for one query.
///
/// ```
/// use mpnet::{mining::mine_hard_negatives, ndarray::arr2};
///
/// let corpus = arr2(&[[1.0_f32, 0.0], [0.8, 0.6], [0.0, 1.0]]);
/// let mined = mine_hard_negatives(&corpus.slice(mpnet::ndarray::s![..1, ..]), &corpus.view(), &[vec![0]], &Default::default())?;
/// assert_eq!(mined[0].positives[0].corpus_id, 0);
/// assert_eq!(mined[0].negatives.len(), 2);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct HardNegatives {
    /// Its positives, in the order in which they were given, with their scores.
    pub positives: Vec<Hit>,
    /// Its negatives, the most similar first: fewer than asked for if not enough candidates passed.
    pub negatives: Vec<Hit>,
}

/// A query, a positive and a negative, by row.
///
/// ```
/// use mpnet::{mining::mine_hard_negatives, ndarray::{arr2, s}};
///
/// let corpus = arr2(&[[1.0_f32, 0.0], [0.8, 0.6], [0.0, 1.0]]);
/// let queries = corpus.slice(s![..1, ..]);
/// let mined = mine_hard_negatives(&queries, &corpus.view(), &[vec![0]], &Default::default())?;
/// let triplet = mined[0].triplets(0).next().unwrap();
/// assert_eq!((triplet.query, triplet.positive, triplet.negative), (0, 0, 1));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Triplet {
    /// Row of the queries.
    pub query: usize,
    /// Row of the corpus.
    pub positive: usize,
    /// Row of the corpus.
    pub negative: usize,
}

impl HardNegatives {
    /// Every positive with every negative, for row `query` of the queries: the reference's output
    /// format `triplet`.
    ///
    /// ```
    /// use mpnet::{mining::mine_hard_negatives, ndarray::{arr2, s}};
    ///
    /// let corpus = arr2(&[[1.0_f32, 0.0], [0.8, 0.6], [0.0, 1.0]]);
    /// let queries = corpus.slice(s![..1, ..]);
    /// let mined = mine_hard_negatives(&queries, &corpus.view(), &[vec![0]], &Default::default())?;
    /// for (query, mined) in mined.iter().enumerate() {
    ///     for triplet in mined.triplets(query) {
    ///         println!("{triplet:?}");
    ///     }
    /// }
    /// # assert_eq!(mined[0].triplets(0).count(), 2);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    pub fn triplets(&self, query: usize) -> impl Iterator<Item = Triplet> + '_ {
        self.positives.iter().flat_map(move |positive| {
            let (positive, negatives) = (positive.corpus_id, self.negatives.iter());
            negatives.map(move |hit| Triplet { query, positive, negative: hit.corpus_id })
        })
    }
}

/// For each query rows of the corpus that are most like it and not among its positives.
///
/// `queries`: `[Q, D]`, each once; `corpus`: `[C, D]`, each once; `positives`: for each query the
/// rows that answer it, one or more.
///
/// Of the most similar rows, the positives and all that a margin or a score excludes are removed;
/// of the rest the first `range_max` are kept, of these the first `range_min` are skipped, and from
/// what is left negatives are chosen.
///
/// Mirrors `sentence_transformers.util.mine_hard_negatives`, on embeddings.
///
/// ```
/// use mpnet::mining::{NegativeOptions, mine_hard_negatives};
/// use mpnet::ndarray::arr2;
///
/// let corpus = arr2(&[[1.0_f32, 0.0], [0.8, 0.6], [0.0, 1.0]]);
/// let query = arr2(&[[1.0_f32, 0.1]]);
/// let options = NegativeOptions::default().num_negatives(1);
/// let mined = mine_hard_negatives(&query.view(), &corpus.view(), &[vec![0]], &options)?;
/// assert_eq!(mined[0].negatives[0].corpus_id, 1);
/// # Ok::<(), mpnet::Error>(())
/// ```
///
/// # Errors
///
/// [`InputProblem::Empty`](crate::InputProblem::Empty) for a corpus without rows or a query without
/// positives, [`InputProblem::NoColumns`](crate::InputProblem::NoColumns) for rows without columns,
/// [`InputProblem::Width`](crate::InputProblem::Width) if the widths differ,
/// [`InputProblem::NotFinite`](crate::InputProblem::NotFinite) for a value that is infinite or not
/// a number, [`Error::Option`] for positives that are not one list for each query or not rows of
/// the corpus, `num_negatives` of 0, ranges that leave fewer candidates than that, or a limit that
/// is not a number.
pub fn mine_hard_negatives(
    queries: &ArrayRef2<f32>,
    corpus: &ArrayRef2<f32>,
    positives: &[Vec<usize>],
    options: &NegativeOptions,
) -> Result<Vec<HardNegatives>> {
    check(queries, corpus, positives)?;
    let most_positives = positives.iter().map(Vec::len).max().unwrap_or(0);
    let range_max = options.range(most_positives)?;
    let wanted = range_max.saturating_add(most_positives);
    let candidates = search(options.similarity, queries, corpus, wanted, Chunks::default(), None);
    let mut random = SplitMix64(match options.sampling_strategy {
        SamplingStrategy::Top => 0,
        SamplingStrategy::Random { seed } => seed,
    });
    let mined = candidates.into_iter().zip(positives).enumerate().map(|(i, (hits, positives))| {
        let score = |&row: &usize| Hit {
            corpus_id: row,
            score: score_of(options.similarity, queries, i, corpus, row),
        };
        let positives: Vec<Hit> = positives.iter().map(score).collect();
        let worst = positives.iter().map(|hit| hit.score).fold(f32::INFINITY, f32::min);
        let passes = |hit: &Hit| {
            positives.iter().all(|positive| positive.corpus_id != hit.corpus_id)
                && options.absolute_margin.is_none_or(|margin| hit.score + margin <= worst)
                && options
                    .relative_margin
                    .is_none_or(|margin| hit.score <= worst - worst.abs() * margin)
                && options.max_score.is_none_or(|max| hit.score <= max)
                && options.min_score.is_none_or(|min| hit.score >= min)
        };
        let remaining = hits.into_iter().filter(passes).take(range_max).skip(options.range_min);
        let mut negatives: Vec<Hit> = remaining.collect();
        if let SamplingStrategy::Random { .. } = options.sampling_strategy {
            random.draw(&mut negatives, options.num_negatives);
            negatives.sort_unstable_by(Hit::rank);
        }
        negatives.truncate(options.num_negatives);
        HardNegatives { positives, negatives }
    });
    Ok(mined.collect())
}

fn check(
    queries: &ArrayRef2<f32>,
    corpus: &ArrayRef2<f32>,
    positives: &[Vec<usize>],
) -> Result<()> {
    if corpus.nrows() == 0 {
        return Err(Error::Input { input: "corpus", problem: InputProblem::Empty });
    }
    has_columns("corpus", corpus.dim())?;
    has_columns("queries", queries.dim())?;
    same_width("queries", queries.ncols(), corpus.ncols())?;
    let wrong = |problem| Err(Error::Option { option: "positives", problem });
    if positives.len() != queries.nrows() {
        return wrong(format!("{} lists for {} queries", positives.len(), queries.nrows()));
    }
    if positives.iter().any(Vec::is_empty) {
        return Err(Error::Input { input: "positives", problem: InputProblem::Empty });
    }
    if let Some(row) = positives.iter().flatten().find(|&&row| row >= corpus.nrows()) {
        return wrong(format!("row {row} of a corpus of {}", corpus.nrows()));
    }
    finite("queries", queries)?;
    finite("corpus", corpus)
}

/// The score of one pair, by the way that all are scored.
fn score_of(
    similarity: Similarity,
    queries: &ArrayRef2<f32>,
    query: usize,
    corpus: &ArrayRef2<f32>,
    row: usize,
) -> f32 {
    let (query, row) = (queries.slice(s![query..=query, ..]), corpus.slice(s![row..=row, ..]));
    search(similarity, &query, &row, 1, Chunks::default(), None)[0][0].score
}

/// Steele, Lea and Flood 2014, *Fast splittable pseudorandom number generators*: small, and good
/// enough to draw a few of many.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Leaves `count` of `hits`, any with the same probability (up to 2⁻⁶⁴ of their number).
    fn draw(&mut self, hits: &mut Vec<Hit>, count: usize) {
        for i in 0..count.min(hits.len()) {
            let left = (hits.len() - i) as u128;
            hits.swap(i, i + ((u128::from(self.next()) * left) >> 64) as usize);
        }
        hits.truncate(count);
    }
}
