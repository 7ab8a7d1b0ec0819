//! Which files hold the weights: `model.safetensors`, else the shards of an index, else an error
//! that says what is there instead.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{INDEX, WEIGHTS};
use crate::error::{Error, FileProblem, Result};
use crate::files::ModelFiles;

/// The configuration of a PEFT adapter.
pub(crate) const ADAPTER: &str = "adapter_config.json";

/// `model.safetensors.index.json`. Like the reference, we take the names of the files from it, and
/// the names of the tensors from those files.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The weight files in `folder` (`""` or ending in `/`) of `files`, in the order in which later
/// ones replace tensors of earlier ones.
pub(super) fn weight_files(files: &ModelFiles, folder: &str) -> Result<Vec<String>> {
    refuse_adapter(files, folder)?;
    let listed = files.list(folder);
    let no_weights = |problem| Error::File {
        file: files.label(folder),
        problem: FileProblem::NoWeights { problem },
    };
    // transformers reads such files even if there is a model.safetensors beside them.
    if let Some(name) = listed.iter().find(|name| is_distributed(name)) {
        let problem = format!(
            "`{name}` is a part of a checkpoint of distributed training; save the model as one \
             (in Python: model.save_pretrained(path))"
        );
        return Err(no_weights(problem));
    }
    let single = format!("{folder}{WEIGHTS}");
    if files.has(&single) {
        return Ok(vec![single]);
    }
    match shard_names(files, folder)? {
        Some(shards) => {
            let missing = shards.iter().find(|shard| !files.has(&format!("{folder}{shard}")));
            match missing {
                Some(shard) => Err(Error::File {
                    file: files.label(&format!("{folder}{INDEX}")),
                    problem: FileProblem::Shard {
                        shard: shard.clone(),
                        problem: "is not there".to_owned(),
                    },
                }),
                None => Ok(shards.iter().map(|shard| format!("{folder}{shard}")).collect()),
            }
        }
        None => Err(no_weights(what_is_there_instead(files, folder, &listed))),
    }
}

/// The files that the index in `folder` of `files` lists, as paths inside that folder; `None` if
/// there is no index.
pub(crate) fn shard_names(files: &ModelFiles, folder: &str) -> Result<Option<Vec<String>>> {
    let name = format!("{folder}{INDEX}");
    let Some(Index { weight_map }) = files.json(&name)? else { return Ok(None) };
    // The reference sorts the names as they are written.
    let written: BTreeSet<String> = weight_map.into_values().collect();
    let mut shards: Vec<String> = Vec::new();
    for shard in written {
        let path = path_inside(&shard).ok_or_else(|| Error::File {
            file: files.label(&name),
            problem: FileProblem::Shard {
                shard: shard.clone(),
                problem: "must be a file below the index's own folder".to_owned(),
            },
        })?;
        // One that is written in two ways counts where it stands last.
        shards.retain(|earlier| *earlier != path);
        shards.push(path);
    }
    Ok(Some(shards))
}

/// `name` without `.` and doubled slashes, if it stays inside its folder on every operating system.
fn path_inside(name: &str) -> Option<String> {
    if name.starts_with('/') || name.ends_with('/') || name.contains(['\\', ':', '\0']) {
        return None;
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    (!parts.is_empty() && !parts.contains(&"..")).then(|| parts.join("/"))
}

/// Fails if `folder` holds a PEFT adapter. Python applies it to its base model, or fails; the
/// weights beside it, if there are any, are not the model that was trained.
pub(crate) fn refuse_adapter(files: &ModelFiles, folder: &str) -> Result<()> {
    let name = format!("{folder}{ADAPTER}");
    match files.has(&name) {
        true => Err(Error::File { file: files.label(&name), problem: FileProblem::Adapter }),
        false => Ok(()),
    }
}

/// `shard-00001-model-00001-of-00002.safetensors`
fn is_distributed(name: &str) -> bool {
    let five = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = name.split('-').collect();
    let last = parts.last().and_then(|last| last.strip_suffix(".safetensors"));
    matches!(
        (&parts[..], last),
        (["shard", shard, "model", number, "of", _], Some(count)) if [shard, number, count].into_iter().all(five)
    )
}

fn what_is_there_instead(files: &ModelFiles, folder: &str, listed: &[String]) -> String {
    let ending = |endings: &[&str]| {
        listed.iter().find(|name| endings.iter().any(|ending| name.ends_with(ending)))
    };
    let inner = |names: &[&str]| {
        names
            .iter()
            .find(|name| files.has(&format!("{folder}{name}")))
            .map(|name| (*name).to_owned())
    };
    let save = "save it as model.safetensors (in Python: model.save_pretrained(path))";
    if let Some(name) = ending(&[".bin", ".bin.index.json", ".pt", ".pth", ".ckpt"]) {
        return format!("`{name}` is a Python pickle, which can run code; {save}");
    }
    if let Some(name) = ending(&[".safetensors", ".safetensors.index.json"]) {
        return format!(
            "neither {WEIGHTS} nor {INDEX} is there, only `{name}`; if that holds the whole model (in Python it may need \
             variant=…), give it the first name"
        );
    }
    let kinds: [(&[&str], &str); 5] = [
        (&[".h5"], "TensorFlow"),
        (&[".msgpack"], "Flax"),
        (&[".onnx"], "ONNX"),
        (&[".gguf"], "llama.cpp"),
        (&[".ot"], "rust-bert"),
    ];
    let named = kinds.iter().find_map(|(endings, kind)| Some((ending(endings)?.clone(), *kind)));
    let onnx = || inner(&["onnx/model.onnx"]).map(|name| (name, "ONNX"));
    let openvino = || {
        inner(&["openvino_model.xml", "openvino/openvino_model.xml"]).map(|name| (name, "OpenVINO"))
    };
    match named.or_else(onnx).or_else(openvino) {
        Some((name, kind)) => {
            format!(
                "`{name}` is for {kind}, {WEIGHTS} is not there; load the original in Python and {save}"
            )
        }
        None => format!("neither {WEIGHTS} nor {INDEX} is there"),
    }
}

/// What a weight file is that is not safetensors, as far as its first bytes tell.
pub(super) fn what_it_is(bytes: &[u8]) -> Option<&'static str> {
    let page = [b"<!DOCTYPE".as_slice(), b"<!doctype", b"<html", b"<?xml"];
    let text = bytes.trim_ascii_start();
    let pickle = "a Python pickle; in Python, load it and call model.save_pretrained(path)";
    match bytes {
        [b'P', b'K', 3, 4, ..] => Some(pickle),
        // The length of a safetensors header may begin so, but is no number of gigabytes.
        [0x80, 2..=5, _, _, high, ..] if *high != 0 => Some(pickle),
        [b'G', b'G', b'U', b'F', ..] => Some("a GGUF file, of llama.cpp"),
        [0x89, b'H', b'D', b'F', ..] => Some("an HDF5 file, of TensorFlow"),
        _ if page.iter().any(|start| text.starts_with(start)) => {
            Some("a web page, or an error message in XML; download it again")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for (name, path) in [
            ("a.safetensors", "a.safetensors"),
            ("./a.safetensors", "a.safetensors"),
            (".//./sub//a", "sub/a"),
        ] {
            assert_eq!(path_inside(name).as_deref(), Some(path));
        }
        for name in ["", ".", "./", "..", "../a", "a/../b", "/a", "a/", "a\\b", "c:a", "a\0"] {
            assert_eq!(path_inside(name), None, "{name}");
        }
    }

    #[test]
    fn parts_of_distributed_checkpoints() {
        assert!(is_distributed("shard-00001-model-00001-of-00002.safetensors"));
        for name in
            ["model-00001-of-00002.safetensors", "shard-1-model-1-of-2.safetensors", "shard", ""]
        {
            assert!(!is_distributed(name), "{name}");
        }
    }
}
