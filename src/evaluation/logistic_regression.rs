//! Logistic regression on embeddings.

use std::cell::RefCell;

use ndarray::{Array1, Array2, ArrayRef2, ArrayView2, Axis, s};

use super::input::{not_empty, same_length, wrong};
use super::lbfgs::{Limits, minimize};
use crate::error::{Error, Result, at_least_one};
use crate::kernels::activation::Activation;
use crate::kernels::gemm::{Epilogue, PackedMatrix, par_matmul};
use crate::kernels::isa::Isa;
use crate::kernels::{Precision, Team};
use crate::rows::usable;

/// Logistic regression: two classes by the logistic function, more by softmax; an L2 penalty, but
/// not on intercepts.
///
/// Minimises `Σ −ln p(label) + ‖coef‖² / (2 C)`. As scikit-learn's `LogisticRegression`, of which
/// it takes the objective, the solver (`lbfgs`) and its stopping rules, so that coefficients agree
/// too.
///
/// ```
/// use mpnet::{evaluation::LogisticRegression, ndarray::arr2};
///
/// let embeddings = arr2(&[[1.0_f32, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]);
/// let labels = ["greeting", "greeting", "order", "order"];
/// let model = LogisticRegression::default().fit(&embeddings.view(), &labels)?;
/// let query = arr2(&[[0.2_f32, 0.7]]);
/// assert_eq!(model.predict(&query.view())?, ["order"]);
/// assert!(model.predict_proba(&query.view())?[[0, 1]] > 0.5);
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogisticRegression {
    /// `C`, one over the strength of the penalty.
    pub c: f64,
    /// The most iterations.
    pub max_iter: usize,
    /// It ends when no component of the mean loss's gradient is larger.
    pub tol: f64,
}

impl Default for LogisticRegression {
    /// scikit-learn's: `C` 1, at most 100 iterations, tolerance 10⁻⁴.
    fn default() -> Self {
        Self { c: 1.0, max_iter: 100, tol: 1e-4 }
    }
}

/// What was learnt from labelled embeddings.
///
/// ```
/// use mpnet::{evaluation::LogisticRegression, ndarray::arr2};
///
/// let rows = arr2(&[[1.0_f32, 0.0], [0.0, 1.0]]);
/// let model = LogisticRegression::default().fit(&rows.view(), &[0, 1])?;
/// assert_eq!((model.coef.dim(), model.intercept.len()), ((1, 2), 1));
/// # Ok::<(), mpnet::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LogisticRegressionModel<L> {
    /// The classes, ascending.
    pub classes: Vec<L>,
    /// `[C, D]`; `[1, D]` if there are two classes, for the second.
    pub coef: Array2<f32>,
    /// `[C]`, or `[1]`.
    pub intercept: Array1<f32>,
    /// Iterations that were needed.
    pub n_iter: usize,
}

impl LogisticRegression {
    /// Learns from `embeddings` `[B, D]` and their `labels` `[B]`.
    ///
    /// ```
    /// use mpnet::{evaluation::LogisticRegression, ndarray::arr2};
    ///
    /// let rows = arr2(&[[1.0_f32, 0.0], [0.9, 0.1], [0.0, 1.0]]);
    /// let model = LogisticRegression::default().fit(&rows.view(), &["greeting", "greeting", "order"])?;
    /// assert_eq!(model.classes, ["greeting", "order"]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if the lengths differ, there are fewer than two
    /// classes, or a component is not finite; [`Error::Option`] if `c` is not positive, `max_iter`
    /// is 0, or `tol` is negative.
    pub fn fit<L: Ord + Clone>(
        &self,
        embeddings: &ArrayRef2<f32>,
        labels: &[L],
    ) -> Result<LogisticRegressionModel<L>> {
        self.check()?;
        let (classes, targets) = classes_of(embeddings, labels)?;
        if classes.len() < 2 {
            return Err(wrong("labels", "all are of one class".into()));
        }
        let outputs = if classes.len() == 2 { 1 } else { classes.len() };
        let d = embeddings.ncols();
        let objective = Objective::new(embeddings, targets, outputs, self.c);
        let limits =
            Limits { max_iter: self.max_iter, gradient: self.tol, decrease: 64.0 * f64::EPSILON };
        let start = vec![0.0; outputs * (d + 1)];
        let (end, n_iter) = minimize(start, limits, |x| objective.evaluate(x));
        let (coef, intercept) = end.x.split_at(outputs * d);
        let coef = coef.iter().map(|&w| w as f32).collect();
        Ok(LogisticRegressionModel {
            classes,
            coef: Array2::from_shape_vec((outputs, d), coef).expect("outputs · D of them"),
            intercept: intercept.iter().map(|&b| b as f32).collect(),
            n_iter,
        })
    }

    fn check(&self) -> Result<()> {
        let refuse = |option, problem| Err(Error::Option { option, problem });
        if !(self.c > 0.0 && self.c.is_finite()) {
            return refuse("c", format!("is {}, must be positive", self.c));
        }
        at_least_one("max_iter", self.max_iter)?;
        if self.tol.is_nan() || self.tol < 0.0 {
            return refuse("tol", format!("is {}, must not be negative", self.tol));
        }
        Ok(())
    }
}

/// The different labels, ascending, and which of them each label is.
pub(super) fn classes_of<L: Ord + Clone>(
    embeddings: &ArrayRef2<f32>,
    labels: &[L],
) -> Result<(Vec<L>, Vec<usize>)> {
    same_length(("labels", labels.len()), ("embeddings", embeddings.nrows()))?;
    not_empty("labels", labels.len())?;
    usable("embeddings", embeddings)?;
    let mut classes = labels.to_vec();
    classes.sort();
    classes.dedup();
    let class = |label: &L| classes.binary_search(label).expect("each label is a class");
    let targets = labels.iter().map(class).collect();
    Ok((classes, targets))
}

/// The mean loss with its penalty, as scikit-learn computes it: products in `f32`, everything else
/// in `f64`.
struct Objective<'a> {
    /// `[B, D]`
    rows: ArrayView2<'a, f32>,
    /// `[D, B]`, packed once for all gradients.
    columns: PackedMatrix,
    targets: Vec<usize>,
    /// `C`, or 1 for two classes.
    outputs: usize,
    /// Of half the sum of the squared coefficients, in the mean loss.
    penalty: f64,
    /// `[B, C]`, of which each evaluation makes what it needs.
    logits: RefCell<Array2<f32>>,
}

impl<'a> Objective<'a> {
    fn new(rows: &'a ArrayRef2<f32>, targets: Vec<usize>, outputs: usize, c: f64) -> Self {
        let n = rows.nrows();
        Self {
            rows: rows.view(),
            columns: PackedMatrix::new(Isa::exact(), Precision::F32, rows.t()),
            targets,
            outputs,
            penalty: 1.0 / (c * n as f64),
            logits: RefCell::new(Array2::zeros((n, outputs))),
        }
    }

    /// Value and gradient at `x`: coefficients `[C, D]`, then intercepts `[C]`.
    fn evaluate(&self, x: &[f64]) -> (f64, Vec<f64>) {
        let ((n, d), outputs) = (self.rows.dim(), self.outputs);
        let (coef, intercept) = x.split_at(outputs * d);
        let short = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let weights = Array2::from_shape_vec((outputs, d), short(coef)).expect("C · D of them");
        let mut logits = self.logits.borrow_mut();
        product(&self.rows, &weights, &short(intercept), &mut logits);

        let mut loss = 0.0;
        // dL/dlogit, [B, C].
        for (mut row, &target) in logits.rows_mut().into_iter().zip(&self.targets) {
            loss += match outputs {
                1 => logistic_loss(&mut row[0], target),
                _ => softmax_loss(row.as_slice_mut().expect("rows are contiguous"), target),
            };
        }
        let scale = 1.0 / n as f64;
        let slopes = logits.t(); // [C, B]
        let mut gradient = Array2::<f32>::zeros((outputs, d)); // [C, D]
        par_matmul(&Team::gather(), slopes, &self.columns, gradient.view_mut(), Epilogue::None);
        let square: f64 = coef.iter().map(|w| w * w).sum();
        let of_coef =
            gradient.iter().zip(coef).map(|(&g, w)| f64::from(g) * scale + self.penalty * w);
        let of_intercept = slopes
            .rows()
            .into_iter()
            .map(|slopes| slopes.iter().map(|&slope| f64::from(slope)).sum::<f64>() * scale);
        let gradient = of_coef.chain(of_intercept).collect();
        (loss * scale + 0.5 * self.penalty * square, gradient)
    }
}

/// `−ln p(target)` for two classes; the logit becomes its derivative.
fn logistic_loss(logit: &mut f32, target: usize) -> f64 {
    let (x, y) = (f64::from(*logit), target as f64);
    // ln(1 + eˣ), which must not overflow.
    let softplus = x.max(0.0) + (-x.abs()).exp().ln_1p();
    *logit = (sigmoid(x) - y) as f32;
    softplus - y * x
}

fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

/// `−ln p(target)`; the logits become their derivatives.
fn softmax_loss(logits: &mut [f32], target: usize) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - largest).exp()).sum();
    let loss = sum.ln() - f64::from(logits[target] - largest);
    logits.iter_mut().for_each(|x| *x = (f64::from(*x - largest).exp() / sum) as f32);
    logits[target] -= 1.0;
    loss
}

/// `logits = rows · weightsᵀ + intercept`: `[B, D]`, `[C, D]`, `[C]` → `[B, C]`.
fn product(
    rows: &ArrayRef2<f32>,
    weights: &Array2<f32>,
    intercept: &[f32],
    logits: &mut Array2<f32>,
) {
    let weights = PackedMatrix::new(Isa::exact(), Precision::F32, weights.view());
    let epilogue = Epilogue::Bias(intercept, Activation::Identity);
    par_matmul(&Team::gather(), rows.view(), &weights, logits.view_mut(), epilogue);
}

impl<L: Clone> LogisticRegressionModel<L> {
    /// The logits of `embeddings` `[B, D]`: `[B, C]`, or `[B, 1]` for two classes, positive for the
    /// second.
    ///
    /// ```
    /// use mpnet::{evaluation::LogisticRegression, ndarray::arr2};
    ///
    /// let rows = arr2(&[[-1.0_f32], [1.0]]);
    /// let model = LogisticRegression::default().fit(&rows.view(), &["low", "high"])?;
    /// let decisions = model.decision_function(&rows.view())?;
    /// assert!(decisions[[0, 0]] > 0.0 && decisions[[1, 0]] < 0.0); // above 0: the second class, "low"
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Input`](crate::Error::Input) if the width is another than was learnt from, or a
    /// component is not finite.
    pub fn decision_function(&self, embeddings: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        let (width, want) = (embeddings.ncols(), self.coef.ncols());
        if width != want {
            return Err(wrong("embeddings", format!("has width {width}, the model {want}")));
        }
        usable("embeddings", embeddings)?;
        let mut logits = Array2::zeros((embeddings.nrows(), self.coef.nrows()));
        product(embeddings, &self.coef, &self.intercept.to_vec(), &mut logits);
        Ok(logits)
    }

    /// The probability of each class for `embeddings` `[B, D]`: `[B, C]`, rows adding up to 1.
    ///
    /// ```
    /// use mpnet::{evaluation::LogisticRegression, ndarray::arr2};
    ///
    /// let rows = arr2(&[[1.0_f32, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]);
    /// let model = LogisticRegression::default().fit(&rows.view(), &["a", "a", "b", "b"])?;
    /// let probabilities = model.predict_proba(&rows.view())?;
    /// assert!((probabilities.row(0).sum() - 1.0).abs() < 1e-12);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`decision_function`](Self::decision_function).
    pub fn predict_proba(&self, embeddings: &ArrayRef2<f32>) -> Result<Array2<f64>> {
        let logits = self.decision_function(embeddings)?.mapv(f64::from);
        if self.classes.len() == 2 {
            let second = logits.slice(s![.., 0]).mapv(sigmoid);
            let first = second.mapv(|p| 1.0 - p);
            return Ok(ndarray::stack![Axis(1), first, second]);
        }
        let mut probabilities = logits;
        for mut row in probabilities.rows_mut() {
            let largest = row.fold(f64::NEG_INFINITY, |largest, &x| largest.max(x));
            row.mapv_inplace(|x| (x - largest).exp());
            let sum = row.sum();
            row /= sum;
        }
        Ok(probabilities)
    }

    /// The likeliest class of each of `embeddings` `[B, D]`; of equally likely ones the first.
    ///
    /// ```
    /// use mpnet::{evaluation::LogisticRegression, ndarray::arr2};
    ///
    /// let rows = arr2(&[[1.0_f32, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]);
    /// let model = LogisticRegression::default().fit(&rows.view(), &["a", "a", "b", "b"])?;
    /// assert_eq!(model.predict(&arr2(&[[0.2_f32, 1.0]]).view())?, ["b"]);
    /// # Ok::<(), mpnet::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`decision_function`](Self::decision_function).
    pub fn predict(&self, embeddings: &ArrayRef2<f32>) -> Result<Vec<L>> {
        let logits = self.decision_function(embeddings)?;
        let class = |row: ndarray::ArrayView1<f32>| {
            if row.len() == 1 {
                return usize::from(row[0] > 0.0);
            }
            let mut best = 0;
            (1..row.len()).for_each(|j| best = if row[j] > row[best] { j } else { best });
            best
        };
        Ok(logits.rows().into_iter().map(|row| self.classes[class(row)].clone()).collect())
    }
}
