//! The names that a tensor may be stored under. transformers renames what it loads; these are its
//! rules for MPNet.

/// The tensor that every MPNet encoder has; what stands before it is the prefix of all names.
pub(super) const WORDS: &str = "embeddings.word_embeddings.weight";

/// What tells the prefix if a masked language model holds [`WORDS`] under the name of its decoder.
const BUCKETS: &str = "encoder.relative_attention_bias.weight";

/// The decoder of a masked language model, tied to the word embeddings.
const DECODER: &str = "lm_head.decoder.weight";

/// The prefix of an encoder that was saved with a head: transformers' `base_model_prefix`.
const MPNET: &str = "mpnet.";

/// Prefixes seen in the wild: none (an encoder saved alone), `mpnet.` (saved with a head), a whole
/// sentence-transformers module list in one file, and the wrappers of training frameworks.
/// transformers knows the first two.
const PREFIXES: [&str; 6] = ["", MPNET, "0.auto_model.", "0.model.", "model.", "module."];

/// Where the encoder's tensors are among names of which `has` knows which are there.
pub(super) fn encoder_prefix(has: impl Fn(&str) -> bool) -> Option<&'static str> {
    let place = |probe: &str| PREFIXES.into_iter().find(|prefix| has(&format!("{prefix}{probe}")));
    place(WORDS).or_else(|| place(BUCKETS))
}

/// The names under which transformers finds the tensor `name`, those first that it prefers: with
/// and without the prefix of the encoder, and with the names that TensorFlow gives the parameters
/// of a LayerNorm.
pub(super) fn spellings(name: &str) -> Vec<String> {
    let other = match name.strip_prefix(MPNET) {
        Some(rest) => rest.to_owned(),
        None => format!("{MPNET}{name}"),
    };
    // transformers goes through the stored names in order, and keeps the first of two that mean the
    // same tensor.
    let mut names = [name.to_owned(), other];
    names.sort_unstable();
    names.into_iter().flat_map(|name| old_name(&name).into_iter().chain([name])).collect()
}

/// The name that a checkpoint from TensorFlow has for `name`, if that is another.
fn old_name(name: &str) -> Option<String> {
    let place = |current| name.strip_suffix(current).filter(|place| place.ends_with("LayerNorm"));
    match (place(".weight"), place(".bias")) {
        (Some(place), _) => Some(format!("{place}.gamma")),
        (_, Some(place)) => Some(format!("{place}.beta")),
        _ => None,
    }
}

/// The tensor that a masked language model ties `name` to.
pub(super) fn tied_to(name: &str) -> Option<&'static str> {
    let prefix = name.strip_suffix(WORDS)?;
    PREFIXES.contains(&prefix).then_some(DECODER)
}

/// What the model alone calls the stored tensor `name`, if it is one of the encoder at `prefix`.
pub(super) fn in_encoder(name: &str, prefix: &str) -> Option<String> {
    let name = name.strip_prefix(prefix).unwrap_or(name);
    let name = name.strip_prefix(MPNET).unwrap_or(name);
    let parts = ["embeddings.", "encoder.", "pooler."];
    let wanted = parts.iter().any(|part| name.starts_with(part)) && !name.ends_with("position_ids");
    let current = |old, new| name.strip_suffix(old).map(|place| format!("{place}{new}"));
    wanted.then(|| {
        current("LayerNorm.gamma", "LayerNorm.weight")
            .or_else(|| current("LayerNorm.beta", "LayerNorm.bias"))
            .unwrap_or_else(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_in_the_order_of_the_reference() {
        assert_eq!(
            spellings("embeddings.LayerNorm.weight"),
            [
                "embeddings.LayerNorm.gamma",
                "embeddings.LayerNorm.weight",
                "mpnet.embeddings.LayerNorm.gamma",
                "mpnet.embeddings.LayerNorm.weight",
            ]
        );
        assert_eq!(
            spellings("mpnet.pooler.dense.bias"),
            ["mpnet.pooler.dense.bias", "pooler.dense.bias"]
        );
        assert_eq!(spellings("lm_head.layer_norm.weight").len(), 2);
    }
}
