//! L-BFGS: minimises a smooth function of many variables.
//!
//! Steps, line search and stopping rules are those of L-BFGS-B without bounds, which scikit-learn's
//! logistic regression uses: it stops before the last digit has settled, so only the same path
//! leads to the same coefficients.
//!
//! Source: Liu and Nocedal 1989, <https://doi.org/10.1007/BF01589116>; Zhu, Byrd, Lu and Nocedal
//! 1997,
//! <https://doi.org/10.1145/279232.279236>.

use std::collections::VecDeque;

use super::line_search::search;

/// Steps that are remembered.
const MEMORY: usize = 10;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_iter: usize,
    /// Stops when no component of the gradient is larger.
    pub(super) gradient: f64,
    /// Stops when an iteration makes the value smaller by less, relative to the value or 1.
    pub(super) decrease: f64,
}

/// A point, the function's value and its gradient there.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) x: Vec<f64>,
    pub(super) value: f64,
    pub(super) gradient: Vec<f64>,
}

impl Point {
    fn new(x: Vec<f64>, function: &mut impl FnMut(&[f64]) -> (f64, Vec<f64>)) -> Self {
        let (value, gradient) = function(&x);
        Self { x, value, gradient }
    }
}

/// One remembered step: by how much the point and the gradient changed.
struct Step {
    point: Vec<f64>,
    gradient: Vec<f64>,
    /// `point · gradient`
    curvature: f64,
}

/// Follows `function`, which gives value and gradient, downhill from `x`; returns where it ended
/// and after how many iterations.
pub(super) fn minimize(
    x: Vec<f64>,
    limits: Limits,
    mut function: impl FnMut(&[f64]) -> (f64, Vec<f64>),
) -> (Point, usize) {
    let mut here = Point::new(x, &mut function);
    let mut memory: VecDeque<Step> = VecDeque::with_capacity(MEMORY);
    let mut iterations = 0;
    while iterations < limits.max_iter && largest(&here.gradient) > limits.gradient {
        let direction = direction(&here.gradient, &memory);
        let slope = dot(&here.gradient, &direction);
        let first = if iterations == 0 { 1.0 / dot(&direction, &direction).sqrt() } else { 1.0 };
        let mut there = here.clone();
        let mut along = |step: f64| {
            let x = here.x.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
            there = Point::new(x, &mut function);
            (there.value, dot(&there.gradient, &direction))
        };
        let found = if slope < 0.0 { search(here.value, slope, first, &mut along) } else { None };
        let Some(step) = found else {
            if memory.is_empty() {
                break; // Not even the steepest way leads down: rounding is all that is left.
            }
            memory.clear();
            continue;
        };
        iterations += 1;
        remember(&mut memory, &here, &there, -slope * step);
        let decrease = here.value - there.value;
        let scale = here.value.abs().max(there.value.abs()).max(1.0);
        here = there;
        if decrease <= limits.decrease * scale {
            break;
        }
    }
    (here, iterations)
}

/// `−H · gradient`, where `H` is the inverse Hessian that the remembered steps suggest (the
/// two-loop recursion).
fn direction(gradient: &[f64], memory: &VecDeque<Step>) -> Vec<f64> {
    let mut q: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut weights = Vec::with_capacity(memory.len());
    for step in memory.iter().rev() {
        let weight = dot(&step.point, &q) / step.curvature;
        add(&mut q, -weight, &step.gradient);
        weights.push(weight);
    }
    if let Some(last) = memory.back() {
        let scale = last.curvature / dot(&last.gradient, &last.gradient);
        q.iter_mut().for_each(|q| *q *= scale);
    }
    for (step, weight) in memory.iter().zip(weights.into_iter().rev()) {
        let correction = weight - dot(&step.gradient, &q) / step.curvature;
        add(&mut q, correction, &step.point);
    }
    q
}

/// Keeps a step, unless the gradient hardly changed along it; `descent` is how much the slope
/// promised.
fn remember(memory: &mut VecDeque<Step>, from: &Point, to: &Point, descent: f64) {
    let difference = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect();
    let point: Vec<f64> = difference(&to.x, &from.x);
    let gradient: Vec<f64> = difference(&to.gradient, &from.gradient);
    let curvature = dot(&point, &gradient);
    if curvature <= f64::EPSILON * descent {
        return;
    }
    if memory.len() == MEMORY {
        memory.pop_front();
    }
    memory.push_back(Step { point, gradient, curvature });
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(a: &mut [f64], weight: f64, b: &[f64]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += weight * b);
}

fn largest(gradient: &[f64]) -> f64 {
    gradient.iter().fold(0.0, |largest, g| largest.max(g.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rosenbrock's valley, `Σ 100 (x₂ − x₁²)² + (1 − x₁)²`, minimal at 1: it bends, so that
    /// directions must be learnt.
    fn rosenbrock(x: &[f64]) -> (f64, Vec<f64>) {
        let (mut value, mut gradient) = (0.0, vec![0.0; x.len()]);
        for i in 0..x.len() - 1 {
            let (a, b) = (x[i + 1] - x[i] * x[i], 1.0 - x[i]);
            value += 100.0 * a * a + b * b;
            gradient[i] += -400.0 * a * x[i] - 2.0 * b;
            gradient[i + 1] += 200.0 * a;
        }
        (value, gradient)
    }

    /// After at most how many iterations, after how many, at what value.
    const SCIPY: [(usize, usize, f64); 6] = [
        (1, 1, 304.113_710_017_164_6),
        (2, 2, 97.541_785_820_771_86),
        (5, 5, 70.196_714_283_637_86),
        (20, 20, 2.134_582_590_729_647_4),
        (30, 30, 0.248_246_192_258_954_56),
        (1000, 50, 0.0),
    ];

    /// scipy 1.17.1, `minimize(…, method="L-BFGS-B")` with the same limits, takes this many
    /// iterations to this value.
    #[test]
    fn the_path_of_scipy() {
        let start = [-1.2, 1.0, -1.2, 1.0, 0.3, 2.0];
        for (max_iter, iterations, value) in SCIPY {
            let limits = Limits { max_iter, gradient: 1e-8, decrease: 1e-15 };
            let (end, taken) = minimize(start.to_vec(), limits, rosenbrock);
            assert_eq!(taken, iterations, "{max_iter}");
            // Rounding, which the bends of the valley amplify.
            let allowed = 1e-6 * f64::max(value, 1e-6);
            assert!((end.value - value).abs() < allowed, "{max_iter}: {} {value}", end.value);
        }
    }

    #[test]
    fn a_minimum_is_left_alone() {
        let limits = Limits { max_iter: 10, gradient: 1e-8, decrease: 1e-15 };
        let (end, iterations) = minimize(vec![1.0; 4], limits, rosenbrock);
        assert_eq!((end.x, iterations), (vec![1.0; 4], 0));
    }
}
