//! What can be found in a set of embeddings without a query: groups of like ones.

mod kmeans;
mod mini_batch_kmeans;

pub use kmeans::{Clustering, KMeans, KMeansInit};
pub use mini_batch_kmeans::MiniBatchKMeans;
