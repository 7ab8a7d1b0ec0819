//! [`Pooling`]: the hidden states of a text → one vector.

use std::ops::Range;

use ndarray::{Array2, ArrayRef2, ArrayView1, ArrayView2, ArrayViewMut1, Axis, s};
use serde_json::{Map, Value};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::files::{is_true, parse_json};
use crate::kernels::Team;

/// One way to make a vector of a text's hidden states. Special tokens count as tokens in all of
/// them.
///
/// ```
/// use mpnet::{Pooling, PoolingMode};
///
/// let pooling = Pooling::new([PoolingMode::Cls]); // as multi-qa-mpnet-base-dot-v1
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PoolingMode {
    /// The first token.
    Cls,
    /// The largest value of each component.
    Max,
    /// The mean of the tokens.
    Mean,
    /// The sum of the tokens, divided by the root of their number.
    MeanSqrtLen,
    /// The mean of the tokens, the first weighing 1, the second 2, and so on.
    WeightedMean,
    /// The last token.
    LastToken,
}

impl PoolingMode {
    /// In the order in which sentence-transformers concatenates them, with their names in its
    /// configuration: of the older boolean fields and of `pooling_mode`.
    const ALL: [(Self, &'static str, &'static str); 6] = [
        (Self::Cls, "pooling_mode_cls_token", "cls"),
        (Self::Max, "pooling_mode_max_tokens", "max"),
        (Self::Mean, "pooling_mode_mean_tokens", "mean"),
        (Self::MeanSqrtLen, "pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
        (Self::WeightedMean, "pooling_mode_weightedmean_tokens", "weightedmean"),
        (Self::LastToken, "pooling_mode_lasttoken", "lasttoken"),
    ];

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, _, known)| *known == name).map(|&(mode, _, _)| mode)
    }

    /// Pools one text: `hidden: [T, D]`, of which `kept` take part, into `out: [D]`.
    fn apply(self, hidden: ArrayView2<f32>, kept: Range<usize>, mut out: ArrayViewMut1<f32>) {
        let pooled = hidden.slice(s![kept.clone(), ..]);
        let rows = || pooled.rows().into_iter();
        match self {
            // With nothing kept the reference takes the first token for `cls`, and zeros for the
            // last.
            Self::Cls => out.assign(&hidden.row(if kept.is_empty() { 0 } else { kept.start })),
            Self::LastToken if kept.is_empty() => {}
            Self::LastToken => out.assign(&hidden.row(kept.end - 1)),
            Self::Max => {
                out.fill(f32::NEG_INFINITY);
                for row in rows() {
                    out.zip_mut_with(&row, |max, &x| *max = max.max(x));
                }
            }
            Self::Mean => weighted_mean(rows().map(|row| (1.0, row)), out),
            Self::WeightedMean => {
                let weights = kept.clone().map(|s| (s + 1) as f32);
                weighted_mean(weights.zip(rows()), out);
            }
            Self::MeanSqrtLen => {
                for row in rows() {
                    out += &row;
                }
                out /= (kept.len() as f32).max(SMALLEST_WEIGHT).sqrt();
            }
        }
    }
}

/// What the reference divides by if nothing is to be pooled, which makes the result zero.
const SMALLEST_WEIGHT: f32 = 1e-9;

fn weighted_mean<'a>(
    rows: impl Iterator<Item = (f32, ArrayView1<'a, f32>)>,
    mut out: ArrayViewMut1<f32>,
) {
    let mut total = 0.0;
    for (weight, row) in rows {
        out.scaled_add(weight, &row);
        total += weight;
    }
    out /= total.max(SMALLEST_WEIGHT);
}

/// The pooling of a sentence-transformers model: one or more modes, concatenated, and whether a
/// prompt takes part.
///
/// ```
/// use mpnet::{Pooling, PoolingMode};
///
/// let pooling = Pooling::new([PoolingMode::Cls, PoolingMode::Mean]);
/// assert_eq!(pooling.dim(768), 1536);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooling {
    modes: Vec<PoolingMode>,
    include_prompt: bool,
}

impl Default for Pooling {
    /// The mean, as sentence-transformers pools a plain encoder.
    fn default() -> Self {
        Self::new([PoolingMode::Mean])
    }
}

impl Pooling {
    /// The concatenation of `modes`, prompts included; no mode at all means the mean.
    ///
    /// ```
    /// use mpnet::{Pooling, PoolingMode};
    ///
    /// let pooling = Pooling::new([PoolingMode::Mean, PoolingMode::Max]);
    /// assert_eq!(pooling.dim(768), 1536);
    /// ```
    pub fn new(modes: impl IntoIterator<Item = PoolingMode>) -> Self {
        let mut modes: Vec<PoolingMode> = modes.into_iter().collect();
        if modes.is_empty() {
            modes.push(PoolingMode::Mean);
        }
        Self { modes, include_prompt: true }
    }

    /// Whether the tokens of a prompt are pooled (the default) or only seen by the encoder.
    ///
    /// ```
    /// use mpnet::{Pooling, PoolingMode, SentenceEncoder};
    ///
    /// let pooling = Pooling::new([PoolingMode::Mean]).include_prompt(false);
    /// # let directory = "tests/data/tiny";
    /// let encoder = SentenceEncoder::builder(directory).pooling(pooling).build()?;
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    #[must_use]
    pub fn include_prompt(mut self, include: bool) -> Self {
        self.include_prompt = include;
        self
    }

    /// Reads a pooling module's `config.json` for hidden states of width `d`: booleans such as
    /// `pooling_mode_mean_tokens` (sentence-transformers before 5.4), or `pooling_mode`, a name or
    /// a list of names. `file` names it in errors.
    ///
    /// ```
    /// use mpnet::{Pooling, PoolingMode};
    ///
    /// let json = r#"{"word_embedding_dimension": 768, "pooling_mode_cls_token": true}"#;
    /// assert_eq!(Pooling::from_json(json, 768, "config.json")?.modes(), [PoolingMode::Cls]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`FileProblem::Json`](crate::FileProblem::Json) or [`Error::Field`] if it is not such a
    /// file, names an unknown mode or is for another width.
    pub fn from_json(json: impl AsRef<[u8]>, d: usize, file: &str) -> Result<Self> {
        let fields = parse_json(json.as_ref(), file)?;
        Self::from_fields(&fields, d, file)
    }

    /// As [`Pooling::from_json`], the file having been parsed.
    pub(crate) fn from_fields(fields: &Map<String, Value>, d: usize, file: &str) -> Result<Self> {
        let wrong = |field: &str, problem: String| Error::Field {
            file: file.to_owned(),
            field: field.to_owned(),
            problem,
        };
        let is_flag = |field: &str| PoolingMode::ALL.iter().any(|(_, flag, _)| *flag == field);
        let widths = ["embedding_dimension", "word_embedding_dimension"];
        for (field, value) in fields {
            match field.as_str() {
                "pooling_mode" | "include_prompt" => {}
                width if widths.contains(&width) => {}
                flag if is_flag(flag) => {
                    // Python takes null and numbers, too; of a word nobody can say what it means.
                    if !(value.is_boolean() || value.is_null() || value.is_number()) {
                        return Err(wrong(field, format!("is {value}, must be true or false")));
                    }
                }
                _ => {
                    return Err(wrong(
                        field,
                        "is not a field of a pooling that is known".to_owned(),
                    ));
                }
            }
        }
        let width = widths.iter().find_map(|width| Some((*width, fields.get(*width)?)));
        if let Some((field, found)) = width.filter(|(_, found)| **found != d) {
            let problem = format!("is {found}, but the hidden states have width {d}");
            return Err(wrong(field, problem));
        }
        let modes = match fields.get("pooling_mode") {
            Some(names) => named(names).map_err(|problem| wrong("pooling_mode", problem))?,
            None => {
                let on = |flag: &str| is_true(fields.get(flag));
                let on = PoolingMode::ALL.iter().filter(|(_, flag, _)| on(flag));
                on.map(|&(mode, _, _)| mode).collect()
            }
        };
        let include = fields.get("include_prompt").is_none_or(|include| is_true(Some(include)));
        Ok(Self::new(modes).include_prompt(include))
    }

    /// The `config.json` of a pooling module for hidden states of width `d`: booleans, which every
    /// version of sentence-transformers reads, unless the modes stand in an order that booleans
    /// cannot say.
    pub(crate) fn to_json(&self, d: usize) -> Value {
        let mut fields = Map::new();
        let of_file = || PoolingMode::ALL.iter().filter(|(mode, ..)| self.modes.contains(mode));
        if of_file().map(|(mode, ..)| mode).eq(&self.modes) {
            fields.insert("word_embedding_dimension".to_owned(), d.into());
            for (i, (mode, field, _)) in PoolingMode::ALL.into_iter().enumerate() {
                let on = self.modes.contains(&mode);
                // The first four have been there from the beginning; early versions refuse the
                // others.
                if on || i < 4 {
                    fields.insert(field.to_owned(), on.into());
                }
            }
        } else {
            let name = |mode| PoolingMode::ALL.iter().find(|(known, ..)| known == mode);
            let names: Vec<&str> =
                self.modes.iter().filter_map(name).map(|(.., name)| *name).collect();
            fields.insert("embedding_dimension".to_owned(), d.into());
            fields.insert("pooling_mode".to_owned(), names.into());
        }
        if !self.include_prompt {
            fields.insert("include_prompt".to_owned(), false.into());
        }
        fields.into()
    }

    /// The modes, in the order of concatenation.
    ///
    /// ```
    /// use mpnet::{Pooling, PoolingMode};
    ///
    /// assert_eq!(Pooling::new([]).modes(), [PoolingMode::Mean]);
    /// ```
    #[must_use]
    pub fn modes(&self) -> &[PoolingMode] {
        &self.modes
    }

    /// Whether prompts must be left out of the pooling.
    pub(crate) fn excludes_prompt(&self) -> bool {
        !self.include_prompt
    }

    /// Width of the pooled vector for hidden states of width `d`.
    ///
    /// ```
    /// use mpnet::{Pooling, PoolingMode};
    ///
    /// assert_eq!(Pooling::new([PoolingMode::Cls, PoolingMode::Mean]).dim(768), 1536);
    /// ```
    #[must_use]
    pub fn dim(&self, d: usize) -> usize {
        self.modes.len() * d
    }

    /// Pools each text of `batch`: `hidden: [N, D]` → `[B, dim]`. The first `prompt` tokens of each
    /// text are a prompt, left out if the pooling does not [include](Pooling::include_prompt) it.
    ///
    /// ```
    /// use mpnet::{Batch, Pooling, PoolingMode};
    ///
    /// # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
    /// let batch = Batch::new(&[[0, 7, 2]], encoder.model().config())?;
    /// let hidden = encoder.model().forward(&batch);
    /// let pooled = Pooling::new([PoolingMode::Cls]).apply(&hidden, &batch, 0);
    /// assert_eq!(pooled.row(0), hidden.row(0));
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If `hidden` has fewer rows than `batch` has tokens.
    #[must_use]
    pub fn apply(&self, hidden: &ArrayRef2<f32>, batch: &Batch, prompt: usize) -> Array2<f32> {
        self.apply_by(&Team::gather(), hidden.view(), batch, prompt)
    }

    /// As [`Pooling::apply`], by the threads of `team`.
    pub(crate) fn apply_by(
        &self,
        team: &Team,
        hidden: ArrayView2<f32>,
        batch: &Batch,
        prompt: usize,
    ) -> Array2<f32> {
        let skip = if self.include_prompt { 0 } else { prompt };
        let mut pooled = Array2::zeros((batch.len(), self.dim(hidden.ncols())));
        let rows = pooled.axis_iter_mut(Axis(0)).enumerate().collect();
        team.for_each(rows, |(b, mut row): (usize, ArrayViewMut1<f32>)| {
            let text = hidden.slice(s![batch.range(b), ..]); // [T, D]
            let kept = skip.min(text.nrows())..text.nrows();
            self.pool(text, kept, row.view_mut());
        });
        pooled
    }

    /// Pools one text: `hidden: [T, D]`, of which `kept` take part, into `out: [dim]`.
    pub(crate) fn pool(
        &self,
        hidden: ArrayView2<f32>,
        kept: Range<usize>,
        mut out: ArrayViewMut1<f32>,
    ) {
        for (mode, part) in self.modes.iter().zip(out.exact_chunks_mut(hidden.ncols())) {
            mode.apply(hidden, kept.clone(), part);
        }
    }
}

/// The modes of a `pooling_mode`: a name or a list of names. The error says what is wrong with it.
fn named(names: &Value) -> Result<Vec<PoolingMode>, String> {
    let one = std::slice::from_ref(names);
    let names = names.as_array().map_or(one, Vec::as_slice);
    let mode = |name: &Value| {
        let mode = name.as_str().and_then(PoolingMode::from_name);
        mode.ok_or_else(|| format!("{name} is not known"))
    };
    let modes = names.iter().map(mode).collect::<Result<Vec<_>, _>>()?;
    if modes.is_empty() {
        return Err("is an empty list".to_owned());
    }
    match (1..).zip(&modes).find(|(i, mode)| modes[*i..].contains(mode)) {
        None => Ok(modes),
        Some((i, name)) => Err(format!("has {name:?} twice, at place {i} and later")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Pooling> {
        Pooling::from_json(json, 8, "1_Pooling/config.json")
    }

    #[test]
    fn both_generations_of_the_file() {
        use PoolingMode::*;
        let modes = |json: &str| read(json).unwrap().modes;
        assert_eq!(
            modes(r#"{"word_embedding_dimension": 8, "pooling_mode_mean_tokens": true}"#),
            [Mean]
        );
        // The order of concatenation is fixed, whatever the order in the file.
        assert_eq!(
            modes(
                r#"{"pooling_mode_lasttoken": true, "pooling_mode_mean_tokens": true,
                    "pooling_mode_max_tokens": false, "pooling_mode_cls_token": true}"#
            ),
            [Cls, Mean, LastToken]
        );
        assert_eq!(modes("{}"), [Mean]);
        assert_eq!(
            modes(r#"{"embedding_dimension": 8, "pooling_mode": "weightedmean"}"#),
            [WeightedMean]
        );
        assert_eq!(
            modes(
                r#"{"pooling_mode": ["mean_sqrt_len_tokens", "max"], "pooling_mode_cls_token": true}"#
            ),
            [MeanSqrtLen, Max]
        );
        assert!(read(r#"{"include_prompt": false}"#).unwrap().excludes_prompt());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, field) in [
            (r#"{"word_embedding_dimension": 16}"#, "word_embedding_dimension"),
            (r#"{"pooling_mode": "median"}"#, "pooling_mode"),
            (r#"{"pooling_mode": ["max", "cls", "max"]}"#, "pooling_mode"),
            (r#"{"pooling_mode_mean_tokens": "yes"}"#, "pooling_mode_mean_tokens"),
            (r#"{"pooling_mode_attention": true}"#, "pooling_mode_attention"),
        ] {
            let error = read(json).unwrap_err();
            assert!(
                matches!(&error, Error::Field { field: found, .. } if found == field),
                "{error}"
            );
        }
        assert!(matches!(
            read("[1, 2"),
            Err(Error::File { problem: crate::FileProblem::Json { .. }, .. })
        ));
    }
}
