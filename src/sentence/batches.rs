//! [`Batches`]: many texts, divided among the threads.

use std::sync::{Mutex, OnceLock, PoisonError};

use crate::batch::Batch;
use crate::config::Config;
use crate::error::Result;
use crate::kernels::Team;
use crate::model::Buffers;

/// Tokens that a thread computes at once if it has a batch to itself: enough rows for the products,
/// and intermediate results (8 MiB for the base model) that stay in a last-level cache. If batches
/// of so many are uneven, as with long texts, they are larger.
const TOKENS_PER_THREAD: [usize; 2] = [256, 512];

/// Fewer tokens than this are not worth a thread's reading all of the weights.
const FEWEST_TOKENS: usize = 128;

/// The batches of a call, and how they are to be computed.
///
/// Where there is enough for all threads each takes whole batches, and nobody waits for anybody. A
/// few texts, or a single one, are computed by all threads together. The embeddings have the same
/// bits either way.
#[derive(Debug)]
pub(super) enum Batches {
    /// One after another, each by all threads.
    Together(Vec<Batch>),
    /// Each by one thread.
    Apart(Vec<Batch>),
}

impl Batches {
    /// Divides `texts`, so that at most `budget` tokens are computed at once (unless a single text
    /// has more).
    pub(super) fn new<I: AsRef<[u32]>>(
        texts: &[I],
        config: &Config,
        budget: usize,
    ) -> Result<Self> {
        let threads = rayon::current_num_threads();
        let total: usize = texts.iter().map(|text| text.as_ref().len()).sum();
        for tokens in TOKENS_PER_THREAD {
            let limit = (budget / threads).min(tokens);
            if threads == 1 || limit < FEWEST_TOKENS || total < threads * FEWEST_TOKENS {
                break;
            }
            let batches = Batch::even(texts, config, threads, limit)?;
            // Where the batches do not divide evenly, as with a few long texts, threads would stand
            // idle.
            let tokens = |batch: &Batch| batch.ids().len();
            let rounds = batches.len().div_ceil(threads);
            let longest = batches.iter().map(tokens).max().unwrap_or(0);
            if longest * rounds * threads <= total + total / 6 {
                return Ok(Self::Apart(batches));
            }
        }
        Ok(Self::Together(Batch::by_length(texts, config, budget)?))
    }

    /// Calls `work` for each batch, with the threads of `team` that are to compute it and memory
    /// for it, until an error; and `between` after each batch that the calling thread took part in,
    /// on that thread, outside of all locks and work.
    pub(super) fn for_each(
        &self,
        team: &Team,
        work: impl Fn(&Team, &Batch, &mut Buffers) -> Result<()> + Sync,
        mut between: impl FnMut(),
    ) -> Result<()> {
        match self {
            Self::Together(batches) => {
                let mut buffers = Buffers::default();
                batches.iter().try_for_each(|batch| {
                    work(team, batch, &mut buffers)?;
                    between();
                    Ok(())
                })
            }
            Self::Apart(batches) => each_by_one_thread(batches, team, work, between),
        }
    }
}

/// [`Batches::for_each`] of [`Batches::Apart`].
fn each_by_one_thread(
    batches: &[Batch],
    team: &Team,
    work: impl Fn(&Team, &Batch, &mut Buffers) -> Result<()> + Sync,
    mut between: impl FnMut(),
) -> Result<()> {
    // Memory for as many batches as are computed at the same time.
    let spare = Mutex::new(Vec::<Buffers>::new());
    let take = || spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
    let give_back = |b| spare.lock().unwrap_or_else(PoisonError::into_inner).push(b);
    let error = OnceLock::new();
    let compute = |batch: &Batch| {
        if error.get().is_some() {
            return;
        }
        let mut buffers = take();
        if let Err(problem) = work(&Team::alone(), batch, &mut buffers) {
            error.get_or_init(|| problem);
        }
        give_back(buffers);
    };
    team.for_each_with(batches.iter().collect(), compute, || {
        if error.get().is_none() {
            between();
        }
    });
    // The last batches may have been those of other threads.
    match error.into_inner() {
        Some(error) => Err(error),
        None => {
            between();
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(lengths: &[usize], budget: usize) -> (bool, Vec<usize>, Vec<usize>) {
        let config = Config::from_json(
            r#"{"model_type": "mpnet", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1,
                "num_attention_heads": 2, "intermediate_size": 8, "layer_norm_eps": 1e-5,
                "max_position_embeddings": 514}"#,
            "config.json",
        )
        .unwrap();
        let texts: Vec<Vec<u32>> = lengths.iter().map(|&length| vec![3; length]).collect();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let (apart, batches) = match pool.install(|| Batches::new(&texts, &config, budget)).unwrap()
        {
            Batches::Together(batches) => (false, batches),
            Batches::Apart(batches) => (true, batches),
        };
        let mut order: Vec<usize> = batches.iter().flat_map(|b| b.texts().to_vec()).collect();
        order.sort_unstable();
        (apart, batches.iter().map(|batch| batch.ids().len()).collect(), order)
    }

    #[test]
    fn every_text_is_in_one_batch_and_few_texts_are_computed_together() {
        for (lengths, budget, apart) in [
            (vec![], 2048, false),
            (vec![13], 2048, false),
            (vec![384], 2048, false),
            (vec![13, 12], 2048, false),
            (vec![128; 32], 2048, true),
            (vec![128; 3], 2048, false),
            (vec![200; 7], 2048, true),
            (vec![128; 32], 200, false),
            ((0..300).map(|i| 5 + i).collect(), 2048, true),
        ] {
            let (is_apart, tokens, order) = divided(&lengths, budget);
            assert_eq!(is_apart, apart, "{lengths:?}");
            assert_eq!(order, (0..lengths.len()).collect::<Vec<_>>());
            let most = if apart {
                budget / 2
            } else {
                budget.max(lengths.iter().copied().max().unwrap_or(0))
            };
            assert!(tokens.iter().all(|&n| n <= most), "{tokens:?}");
        }
    }

    #[test]
    fn batches_for_threads_are_even() {
        let (_, tokens, _) = divided(&[128; 32], 2048);
        assert_eq!(tokens, [256; 16]);
        // Texts of more tokens than a batch should have: larger batches.
        let lengths: Vec<usize> = (0..400).map(|i| 8 + (i * 37) % 300).collect();
        let (_, tokens, _) = divided(&lengths, 2048);
        // Long texts fill a batch in twos or threes; the last, short ones even them out as far as
        // they go.
        let (least, most) = (tokens.iter().min().unwrap(), tokens.iter().max().unwrap());
        assert!(tokens.len().is_multiple_of(2) && most - least < 100, "{tokens:?}");
    }
}
