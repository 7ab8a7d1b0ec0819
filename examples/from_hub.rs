//! How is a model loaded by its name on the Hugging Face hub?
//!
//! ```text
//! cargo run --release --features hub --example from_hub [-- --model NAME] [--revision R] [--text TEXT]
//! ```

mod common;
fn main() {}
