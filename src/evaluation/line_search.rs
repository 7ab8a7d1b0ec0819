//! How far to go in a direction: a step that makes a function of one variable sufficiently smaller
//! and its slope sufficiently flatter (the strong Wolfe conditions).
//!
//! Source: Moré and Thuente 1994, <https://doi.org/10.1145/192115.192132>, with the rules of
//! MINPACK-2's `dcsrch` and `dcstep`.

/// Of the decrease that the slope promises, what a step must achieve.
const DECREASE: f64 = 1e-3;
/// Of the slope, what may be left after a step.
const FLATTER: f64 = 0.9;
/// An interval of this relative width is not searched further.
const NARROW: f64 = 0.1;
/// The longest step.
const LONGEST: f64 = 1e10;
/// Evaluations before giving up; scikit-learn's `maxls`.
const EVALUATIONS: usize = 50;

/// A step, and value and slope of the function there.
#[derive(Debug, Clone, Copy)]
struct Trial {
    step: f64,
    value: f64,
    slope: f64,
}

/// Where the step is looked for: between the best trial and one beyond the minimum, once there is
/// one.
struct Interval {
    best: Trial,
    other: Trial,
    bracketed: bool,
    /// Bounds of the next step.
    low: f64,
    high: f64,
}

/// The step from 0, where the function has `value` and the negative `slope`, that begins with
/// `first`; `None` if none was found. The last call of `function`, which gives value and slope, is
/// at the step returned.
pub(super) fn search(
    value: f64,
    slope: f64,
    first: f64,
    function: &mut impl FnMut(f64) -> (f64, f64),
) -> Option<f64> {
    let start = Trial { step: 0.0, value, slope };
    let enough = DECREASE * slope;
    let mut interval =
        Interval { best: start, other: start, bracketed: false, low: 0.0, high: 5.0 * first };
    let (mut width, mut width_before) = (LONGEST, 2.0 * LONGEST);
    let (mut step, mut lowered) = (first.min(LONGEST), false);
    for _ in 0..EVALUATIONS {
        let (value, slope) = function(step);
        if !value.is_finite() || !slope.is_finite() {
            return None;
        }
        let now = Trial { step, value, slope };
        let aim = start.value + step * enough;
        let wolfe = value <= aim && slope.abs() <= FLATTER * -start.slope;
        let at_the_end = step == LONGEST && value <= aim && slope <= enough;
        if wolfe || at_the_end || interval.exhausted(step) {
            return Some(step);
        }
        lowered |= value <= aim && slope >= 0.0;
        if !lowered && value <= interval.best.value && value > aim {
            // Until a step is low enough, the function less the aim is searched, whose minimum has
            // the decrease.
            step = interval.shifted(-enough, |interval, shift| interval.next(shift(now)));
        } else {
            step = interval.next(now);
        }
        if interval.bracketed {
            let apart = (interval.other.step - interval.best.step).abs();
            if apart >= 0.66 * width_before {
                // It narrows too slowly: halve it.
                step = f64::midpoint(interval.best.step, interval.other.step);
            }
            (width_before, width) = (width, apart);
        }
        step = interval.bounded(step);
    }
    None
}

impl Interval {
    /// Whether rounding or a narrow interval leaves nothing to search; `step` then is as good as
    /// any.
    fn exhausted(&self, step: f64) -> bool {
        let outside = step <= self.low || step >= self.high;
        self.bracketed && (outside || self.high - self.low <= NARROW * self.high)
    }

    /// The bounds for the next step, and `step` within them.
    fn bounded(&mut self, step: f64) -> f64 {
        let (a, b) = (self.best.step, self.other.step);
        (self.low, self.high) = match self.bracketed {
            true => (a.min(b), a.max(b)),
            false => (step + 1.1 * (step - a), step + 4.0 * (step - a)),
        };
        let step = step.clamp(0.0, LONGEST);
        if self.exhausted(step) { self.best.step } else { step }
    }

    /// `f` on the interval of the function plus `slope · step`, to which its second argument takes
    /// a trial.
    fn shifted(
        &mut self,
        slope: f64,
        f: impl FnOnce(&mut Self, &dyn Fn(Trial) -> Trial) -> f64,
    ) -> f64 {
        let by = |slope: f64| {
            move |t: Trial| Trial { value: t.value + t.step * slope, slope: t.slope + slope, ..t }
        };
        let (to, back) = (by(slope), by(-slope));
        (self.best, self.other) = (to(self.best), to(self.other));
        let step = f(self, &to);
        (self.best, self.other) = (back(self.best), back(self.other));
        step
    }

    /// Takes in the trial `now` and says where to look next: at the minimum of a cubic or a
    /// quadratic through two trials.
    fn next(&mut self, now: Trial) -> f64 {
        let best = self.best;
        let turned = now.slope * best.slope.signum() < 0.0;
        let cubic = Cubic::through(best, now);
        let step = if now.value > best.value {
            // The minimum is between them.
            let (c, q) = (cubic.minimum_from_best(), parabola_of_value(best, now));
            self.bracketed = true;
            if (c - best.step).abs() <= (q - best.step).abs() { c } else { f64::midpoint(c, q) }
        } else if turned {
            // Lower, and the slope points back.
            let (c, q) = (cubic.minimum_from_now(), secant(best, now));
            self.bracketed = true;
            if (c - now.step).abs() > (q - now.step).abs() { c } else { q }
        } else if now.slope.abs() < best.slope.abs() {
            // Lower, further in the same direction, flatter.
            let (c, q) = (cubic.minimum_beyond(self.low, self.high), secant(best, now));
            let nearer = (c - now.step).abs() < (q - now.step).abs();
            if self.bracketed {
                let step = if nearer { c } else { q };
                let limit = now.step + 0.66 * (self.other.step - now.step);
                if now.step > best.step { step.min(limit) } else { step.max(limit) }
            } else {
                (if nearer { q } else { c }).clamp(self.low, self.high)
            }
        } else if self.bracketed {
            // Lower and not flatter: the minimum is towards the other end.
            Cubic::through(self.other, now).minimum_from_now()
        } else if now.step > best.step {
            self.high
        } else {
            self.low
        };
        if now.value > best.value {
            self.other = now;
        } else {
            if turned {
                self.other = best;
            }
            self.best = now;
        }
        step
    }
}

/// The cubic with the values and slopes of two trials, in the terms of the paper.
struct Cubic {
    from: Trial,
    now: Trial,
    theta: f64,
    scale: f64,
}

impl Cubic {
    fn through(from: Trial, now: Trial) -> Self {
        let theta =
            3.0 * (from.value - now.value) / (now.step - from.step) + from.slope + now.slope;
        let scale = theta.abs().max(from.slope.abs()).max(now.slope.abs());
        Self { from, now, theta, scale }
    }

    /// `√(θ² − g₁ g₂)`, without overflow; 0 where that is not real.
    fn root(&self) -> f64 {
        let theta = self.theta / self.scale;
        let product = (self.from.slope / self.scale) * (self.now.slope / self.scale);
        self.scale * (theta * theta - product).max(0.0).sqrt()
    }

    fn minimum_from_best(&self) -> f64 {
        let gamma = if self.now.step < self.from.step { -self.root() } else { self.root() };
        let p = (gamma - self.from.slope) + self.theta;
        let q = ((gamma - self.from.slope) + gamma) + self.now.slope;
        self.from.step + p / q * (self.now.step - self.from.step)
    }

    fn minimum_from_now(&self) -> f64 {
        let gamma = if self.now.step > self.from.step { -self.root() } else { self.root() };
        let p = (gamma - self.now.slope) + self.theta;
        let q = ((gamma - self.now.slope) + gamma) + self.from.slope;
        self.now.step + p / q * (self.from.step - self.now.step)
    }

    /// The minimum if it lies beyond `now`, else the end of the bounds on that side.
    fn minimum_beyond(&self, low: f64, high: f64) -> f64 {
        let gamma = if self.now.step > self.from.step { -self.root() } else { self.root() };
        let p = (gamma - self.now.slope) + self.theta;
        let q = (gamma + (self.from.slope - self.now.slope)) + gamma;
        let r = p / q;
        if r < 0.0 && gamma != 0.0 {
            self.now.step + r * (self.from.step - self.now.step)
        } else if self.now.step > self.from.step {
            high
        } else {
            low
        }
    }
}

/// The minimum of the parabola with both values and the slope at `best`.
fn parabola_of_value(best: Trial, now: Trial) -> f64 {
    let width = now.step - best.step;
    best.step + best.slope / ((best.value - now.value) / width + best.slope) / 2.0 * width
}

/// The minimum of the parabola with both slopes.
fn secant(best: Trial, now: Trial) -> f64 {
    now.step + now.slope / (now.slope - best.slope) * (best.step - now.step)
}
