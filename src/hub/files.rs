//! Which files a model has: those that loading reads. The small ones come first, the weights last,
//! so that what was interrupted does not look complete.

use serde_json::{Map, Value};

use super::snapshot::Snapshot;
use crate::checkpoint::{ADAPTER, INDEX, WEIGHTS, refuse_adapter, shard_names};
use crate::error::Result;
use crate::files::{ModelFiles, TRANSFORMER_SETTINGS};
use crate::sentence::{MODULES, SETTINGS, module_folders, read_config};
use crate::tokenizer::{ADDED_TOKENS, SPECIAL_TOKENS_MAP, TOKENIZER, TOKENIZER_CONFIG, VOCABULARY};

/// Sees to it that the directory of `snapshot` has them.
pub(super) fn fetch(snapshot: &Snapshot) -> Result<()> {
    let files = ModelFiles::directory(snapshot.directory());
    let modules = if snapshot.get(MODULES)? { module_folders(&files)? } else { Vec::new() };
    snapshot.get(SETTINGS)?;
    let folder = modules.first().map_or("", |(_, folder)| folder);
    transformer(snapshot, &files, folder)?;
    let mut weighty = Vec::new();
    for (kind, folder) in modules.iter().skip(1) {
        let config = format!("{folder}config.json");
        match kind.as_str() {
            "Pooling" => snapshot.require(&config)?,
            "Dense" => {
                snapshot.require(&config)?;
                weighty.push(folder.as_str());
            }
            "LayerNorm" => weighty.push(folder),
            // Normalize and Dropout have none; of others, loading says that they are not supported.
            _ => {}
        }
    }
    weighty.push(folder);
    weighty.into_iter().try_for_each(|folder| weights(snapshot, &files, folder))
}

/// All but the weights.
fn transformer(snapshot: &Snapshot, files: &ModelFiles, folder: &str) -> Result<()> {
    snapshot.require(&format!("{folder}config.json"))?;
    // Another architecture is refused before its weights are fetched, not after.
    read_config(files, folder)?;
    for name in TRANSFORMER_SETTINGS {
        let name = format!("{folder}{name}");
        // Loading goes on to the next one if a file has no fields.
        if snapshot.get(&name)?
            && !files.json::<Map<String, Value>>(&name)?.unwrap_or_default().is_empty()
        {
            break;
        }
    }
    for name in [ADAPTER, TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, ADDED_TOKENS] {
        snapshot.get(&format!("{folder}{name}"))?;
    }
    refuse_adapter(files, folder)?;
    if !snapshot.get(&format!("{folder}{TOKENIZER}"))? {
        snapshot.require(&format!("{folder}{VOCABULARY}"))?;
    }
    Ok(())
}

fn weights(snapshot: &Snapshot, files: &ModelFiles, folder: &str) -> Result<()> {
    let single = format!("{folder}{WEIGHTS}");
    if snapshot.get(&single)? {
        return Ok(());
    }
    if !snapshot.get(&format!("{folder}{INDEX}"))? {
        return Err(snapshot.missing(&single));
    }
    let shards = shard_names(files, folder)?.unwrap_or_default();
    shards.iter().try_for_each(|shard| snapshot.require(&format!("{folder}{shard}")))
}
