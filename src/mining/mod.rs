//! What can be found in embeddings without a query: pairs, groups, hard negatives; and a choice
//! that does not repeat itself.
//!
//! | question | function |
//! |---|---|
//! | which texts say the same? | [`paraphrase_mining`] |
//! | which texts belong together? | [`community_detection`]; [`KMeans`] for a number of groups, [`MiniBatchKMeans`] for many texts |
//! | which wrong answers look right? | [`mine_hard_negatives`] |
//! | which few texts stand for all, or answer a query without repetition? | [`mmr`] |
//!
//! ```
//! use mpnet::mining::{ParaphraseOptions, paraphrase_mining};
//!
//! # let encoder = mpnet::SentenceEncoder::from_pretrained("tests/data/tiny")?;
//! let texts = ["the day was long", "an old train", "The day was long", "who was there?"];
//! let embeddings = encoder.encode(&texts)?;
//! let options = ParaphraseOptions::default().max_pairs(1);
//! let best = paraphrase_mining(&embeddings.view(), &options)?[0];
//! println!("{:.4} {:?} {:?}", best.score, texts[best.i], texts[best.j]);
//! # assert_eq!((best.i, best.j), (0, 2));
//! # Ok::<(), mpnet::Error>(())
//! ```

mod communities;
mod hard_negatives;
mod kmeans;
mod mini_batch_kmeans;
mod mmr;
mod paraphrases;

pub use communities::{CommunityOptions, community_detection};
pub use hard_negatives::{
    HardNegatives, NegativeOptions, SamplingStrategy, Triplet, mine_hard_negatives,
};
pub use kmeans::{Clustering, KMeans, KMeansInit};
pub use mini_batch_kmeans::MiniBatchKMeans;
pub use mmr::mmr;
pub use paraphrases::{Paraphrase, ParaphraseOptions, paraphrase_mining};
