// An expression, to be `include!`d where a documentation test needs a head: a function from the
// name of one in tests/data/heads to the files of the tiny model with it, in memory.
{
    fn head_files(head: &str) -> mpnet::ModelFiles<'static> {
        let read = |name: &str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
            &*std::fs::read(path).unwrap().leak()
        };
        let goldens: serde_json::Value = serde_json::from_slice(read("heads.json")).unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(read("tiny/config.json")).unwrap();
        for (field, value) in goldens["configs"][head].as_object().unwrap() {
            config[field] = value.clone();
        }
        let shards = [("encoder", read("tiny/model.safetensors")), ("head", read(&format!("heads/{head}.safetensors")))];
        let mut names = serde_json::Map::new();
        for (shard, bytes) in shards {
            for name in safetensors::SafeTensors::deserialize(bytes).unwrap().names() {
                names.insert(name.to_owned(), format!("{shard}.safetensors").into());
            }
        }
        let index = serde_json::json!({ "weight_map": names });
        mpnet::ModelFiles::in_memory([
            ("config.json", &*config.to_string().into_bytes().leak()),
            ("model.safetensors.index.json", index.to_string().into_bytes().leak()),
            ("encoder.safetensors", shards[0].1),
            ("head.safetensors", shards[1].1),
            ("tokenizer.json", read("tiny/tokenizer.json")),
            ("tokenizer_config.json", read("tiny/tokenizer_config.json")),
        ])
    }
    head_files
}
