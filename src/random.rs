//! Pseudo-random numbers: the Mersenne Twister, drawn from as numpy's `RandomState` draws.
//!
//! scikit-learn and MTEB take their samples from `RandomState(seed)`. Drawing in the same way, this
//! crate takes the same samples, so that its results can be compared with theirs one by one instead
//! of on average.
//!
//! Source: Matsumoto and Nishimura 1998, <https://doi.org/10.1145/272991.272995> (MT19937), with
//! its seeding of 2002.

/// Words of the state.
const N: usize = 624;
/// How far ahead the recurrence reaches.
const M: usize = 397;

/// A stream of numbers that its seed determines, the same on every machine.
#[derive(Debug, Clone)]
pub(crate) struct RandomState {
    state: [u32; N],
    next: usize,
}

impl RandomState {
    /// `numpy.random.RandomState(seed)`
    pub(crate) fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let last = state[i - 1];
            state[i] = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: N }
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == N {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn refill(&mut self) {
        for i in 0..N {
            // The highest bit of one word and the others of the next.
            let y = (self.state[i] & (1 << 31)) | (self.state[(i + 1) % N] & !(1 << 31));
            let twist = if y & 1 == 0 { 0 } else { 0x9908_b0df };
            self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ twist;
        }
        self.next = 0;
    }

    /// Uniform in `[0, 1)`, with all 53 bits: `random_sample()`.
    pub(crate) fn uniform(&mut self) -> f64 {
        let (high, low) = (self.next_u32() >> 5, self.next_u32() >> 6);
        (f64::from(high) * f64::from(1 << 26) + f64::from(low)) / (1_u64 << 53) as f64
    }

    /// Uniform in `0..n`: `randint(n)`. Values beyond `n` are drawn again, so none is likelier than
    /// another.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let largest = n.checked_sub(1).expect("a range of at least one value") as u64;
        if largest == 0 {
            return 0;
        }
        let mask = u64::MAX >> largest.leading_zeros();
        loop {
            let value = if largest <= u64::from(u32::MAX) {
                u64::from(self.next_u32())
            } else {
                u64::from(self.next_u32()) << 32 | u64::from(self.next_u32())
            };
            if value & mask <= largest {
                return (value & mask) as usize;
            }
        }
    }

    /// Uniform in `0..n` by one [`uniform`](Self::uniform): `choice(n, p=[1/n, …])`.
    pub(crate) fn choice(&mut self, n: usize) -> usize {
        ((self.uniform() * n as f64) as usize).min(n - 1)
    }

    /// Puts `values` into a random order: `shuffle(values)`.
    pub(crate) fn shuffle<T>(&mut self, values: &mut [T]) {
        for i in (1..values.len()).rev() {
            values.swap(i, self.below(i + 1));
        }
    }

    /// `k` different numbers below `n`: `choice(n, k, replace=False)`.
    pub(crate) fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        self.shuffle(&mut all);
        all.truncate(k);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by numpy 2.4.6 for `RandomState(42)`, each from a fresh one.
    #[test]
    fn draws_as_numpy_does() {
        let mut random = RandomState::new(42);
        let uniform: Vec<f64> = (0..3).map(|_| random.uniform()).collect();
        assert_eq!(uniform, [0.3745401188473625, 0.9507143064099162, 0.7319939418114051]);

        assert_eq!(RandomState::new(42).sample(10, 10), [8, 1, 5, 0, 7, 2, 9, 4, 3, 6]);

        let mut random = RandomState::new(42);
        let below: Vec<usize> = (0..8).map(|_| random.below(100)).collect();
        assert_eq!(below, [51, 92, 14, 71, 60, 20, 82, 86]);
    }

    /// Beyond the first 624 words, so that the state has been renewed twice.
    #[test]
    fn goes_on_as_numpy_does() {
        let mut random = RandomState::new(7);
        let last = (0..1000).map(|_| random.uniform()).last().unwrap();
        assert_eq!(last, 0.016448753231374513);
        let mut random = RandomState::new(0);
        assert_eq!(random.choice(1), 0);
        assert_eq!(random.below(1), 0);
    }
}
