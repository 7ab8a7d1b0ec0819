//! MPNet sentence embeddings in pure Rust: `all-mpnet-base-v2` and its family, with the reference's
//! numbers.
//!
//! ```text
//!  texts ─▶ Tokenizer ─▶ Tokens ─▶ Batch ─▶ Mpnet ─▶ hidden ─▶ Pooling ─▶ pooled ─▶ modules ─▶ embeddings
//!                                  ragged   [N, D]              [B, D]     Dense, Normalize     [B, D]
//! └──────────────────────────────────── SentenceEncoder ─────────────────────────────────────────────┘
//! ```
//!
//! ```no_run
//! use mpnet::{SentenceEncoder, similarity::cos_sim};
//!
//! let encoder = SentenceEncoder::from_pretrained("models/all-mpnet-base-v2")?;
//! let embeddings = encoder.encode(&["The weather is lovely today.", "It's so sunny outside!"])?;
//! let scores = cos_sim(&embeddings.view(), &embeddings.view());
//! println!("{:.4}", scores[[0, 1]]); // 0.6817
//! # Ok::<(), mpnet::Error>(())
//! ```
//!
//! # Shapes
//!
//! One letter for each size, the same in every file:
//!
//! | letter | size |
//! |---|---|
//! | `B` | texts in a batch |
//! | `T` | tokens of one text |
//! | `N` | tokens of all texts of a batch: the sum of their `T`, nothing is padded |
//! | `D` | width of a hidden state or an embedding |
//! | `H` | attention heads |
//! | `K` | width of one head, `D / H`; in matrix products, the depth of a sum |
//! | `F` | width of the feed-forward network |
//! | `V` | vocabulary |
//!
//! # Features
//!
//! None is on by default. `hub` adds `HubModel` and `SentenceEncoder::from_hub`, which fetch a
//! model from the Hugging Face hub into the cache that Python uses.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod batch;
mod checkpoint;
mod config;
mod error;
pub mod evaluation;
mod files;
pub mod heads;
#[cfg(feature = "hub")]
mod hub;
#[doc(hidden)]
pub mod kernels;
pub mod mining;
pub mod model;
mod nn;
mod pooling;
pub mod quantization;
mod random;
mod rows;
pub mod search;
mod sentence;
pub mod similarity;
pub mod split;
mod tokenizer;

pub use ndarray;

pub use error::{Cause, Error, FileProblem, InputProblem, Result, TensorProblem, TextProblem};
pub use files::ModelFiles;
#[cfg(feature = "hub")]
#[cfg_attr(docsrs, doc(cfg(feature = "hub")))]
pub use hub::{DownloadProgress, HubModel, HubProblem};
pub use sentence::{
    CancellationToken, Chunk, ChunkEmbeddings, Embeddings, EncodeIter, EncodeOptions, EncodeReport,
    EncodedText, Overflow, Progress, SentenceEncoder, SentenceEncoderBuilder, TextReport,
    TokenEmbeddings,
};

pub use batch::Batch;
pub use checkpoint::{Checkpoint, WeightDtype, Weights};
pub use config::Config;
pub use kernels::Precision;
pub use kernels::activation::Activation;
pub use kernels::isa::Isa;
pub use pooling::{Pooling, PoolingMode};
pub use similarity::Similarity;
pub use tokenizer::{Tokenizer, Tokens};

/// The examples of README.md and of the pages in docs/, compiled.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;

    #[doc = include_str!("../docs/from-python.md")]
    struct FromPython;

    #[doc = include_str!("../docs/choosing.md")]
    struct Choosing;
}
