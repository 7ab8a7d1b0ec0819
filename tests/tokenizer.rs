//! The published tokenizer of all-mpnet-base-v2 on real and on awkward texts.

mod common;

use common::{Damaged, data, json};
use mpnet::{Error, FileProblem, TextProblem, Tokenizer};

fn published() -> Tokenizer {
    Tokenizer::open(data("all-mpnet-base-v2")).unwrap()
}

/// The same tokenizer, built from `vocab.txt` and `tokenizer_config.json`.
fn from_vocabulary() -> Tokenizer {
    let directory = tempfile::tempdir().unwrap();
    for file in ["vocab.txt", "tokenizer_config.json"] {
        std::fs::copy(data("all-mpnet-base-v2").join(file), directory.path().join(file)).unwrap();
    }
    Tokenizer::open(directory.path()).unwrap()
}

/// A case of transformers.js' tests of `Xenova/all-mpnet-base-v2`.
#[derive(serde::Deserialize)]
struct Case {
    name: String,
    text: String,
    tokens: Vec<String>,
    ids: Vec<u32>,
    decoded: String,
}

#[test]
fn the_cases_of_transformers_js() {
    let cases: Vec<Case> = json("all-mpnet-base-v2/transformersjs_tokenization_cases.json");
    assert_eq!(cases.len(), 25);
    for tokenizer in [published(), from_vocabulary()] {
        for case in &cases {
            let tokens = &tokenizer.encode(&[&case.text], 512).unwrap()[0];
            assert_eq!(tokens.ids, case.ids, "{}", case.name);
            assert_eq!(tokens.dropped, 0);
            let inner = &case.ids[1..case.ids.len() - 1];
            let strings: Vec<String> =
                inner.iter().map(|&id| tokenizer.token(id).unwrap()).collect();
            assert_eq!(strings, case.tokens, "{}", case.name);
            assert_eq!(tokenizer.decode(&case.ids, false).unwrap(), case.decoded, "{}", case.name);
        }
    }
}

#[test]
fn special_tokens_and_odd_characters() {
    // Ids by the reference's fast tokenizer.
    let cases: &[(&str, &[u32])] = &[
        ("", &[]),
        ("   ", &[]),
        ("What is Deep Learning?", &[2058, 2007, 2788, 4087, 1033]),
        ("naïve café", &[15747, 7672]),
        ("unaffable", &[14481, 20965, 3472]),
        ("中文字符", &[1750, 1865, 104, 104]),
        ("日本語テキスト", &[1868, 1880, 1954, 1717, 30231, 30237, 30244]),
        ("한국어", &[1473, 30010, 30025, 29995, 30018, 30024, 30003, 30012]),
        ("Привет мир", &[1198, 16860, 10329, 25533, 15294, 22923, 1195, 10329, 16860]),
        ("ΟΔΟΣ", &[1173, 29726, 29734, 29737]),
        ("İstanbul", &[9964]),
        ("ﬁne ½ Ⅷ", &[1988, 2642, 1096, 104]),
        ("😀 smile", &[104, 2872]),
        ("a\u{200B}b", &[11117]),
        ("a\u{AD}b", &[11117]),
        ("a\u{B}b", &[11117]),
        ("a\u{85}b", &[11117]),
        ("a\u{FFFD}b", &[11117]),
        ("a\tb\nc\rd", &[1041, 1042, 1043, 1044]),
        ("a\u{A0}b", &[1041, 1042]),
        ("<s>hi</s>", &[0, 7636, 2]),
        ("<pad>", &[1]),
        ("[UNK]", &[104]),
        ("[unk]", &[1035, 4899, 2247, 1037]),
        ("a  <mask>b", &[1041, 30526, 1042]),
        ("<MASK>", &[1030, 7312, 1032]),
        ("$100 50% a_b c^d", &[1006, 2535, 2757, 1007, 1041, 1039, 1042, 1043, 1038, 1044]),
        ("—dash…", &[1521, 11458, 1533]),
        ("𝓗ello", &[104]),
    ];
    for (index, tokenizer) in [published(), from_vocabulary()].into_iter().enumerate() {
        for (text, want) in cases {
            let ids = &tokenizer.encode(&[text], 512).unwrap()[0].ids;
            assert_eq!((ids[0], ids[ids.len() - 1]), (0, 2), "{text:?}");
            assert_eq!(ids[1..ids.len() - 1], **want, "{text:?}");
        }
        // tokenizer.json lists `<unk>` among its added tokens; by the vocabulary alone it is no
        // token.
        let unk: &[u32] = if index == 0 { &[3] } else { &[1030, 4899, 2247, 1032] };
        for text in ["<unk>", "<UNK>"] {
            let ids = &tokenizer.encode(&[text], 512).unwrap()[0].ids;
            assert_eq!(ids[1..ids.len() - 1], *unk, "{text:?}");
        }
        let (just_fits, too_long) = ("x".repeat(100), "x".repeat(101));
        let tokens = tokenizer.encode(&[&just_fits, &too_long], 512).unwrap();
        assert_eq!(tokens[0].ids.len(), 52);
        assert_eq!(tokens[1].ids, [0, 104, 2], "a word of more than 100 characters is unknown");
    }
}

#[test]
fn the_limits_in_the_file_do_not_count() {
    // The published file truncates and pads to 128.
    let tokenizer = published();
    let long = "word ".repeat(300);
    let tokens = tokenizer.encode(&["short", &long], 384).unwrap();
    assert_eq!(tokens[0].ids.len(), 3, "nothing is padded");
    assert_eq!((tokens[1].ids.len(), tokens[1].dropped), (302, 0));
    let tokens = tokenizer.encode(&[&long], 100).unwrap();
    assert_eq!((tokens[0].ids.len(), tokens[0].dropped), (100, 202));
    assert_eq!(tokens[0].ids[99], 2, "the end of the text is cut, not its </s>");
    let tokens = tokenizer.encode(&[&long], 2).unwrap();
    assert_eq!((tokens[0].ids.as_slice(), tokens[0].dropped), (&[0, 2][..], 300));
    assert!(matches!(
        tokenizer.encode(&[&long], 1),
        Err(Error::Option { option: "max_tokens", .. })
    ));
}

#[test]
fn pairs_have_two_separators_and_lose_the_longer_text_first() {
    #[derive(serde::Deserialize)]
    struct File {
        pairs: Vec<Pair>,
    }
    #[derive(serde::Deserialize)]
    struct Pair {
        first: String,
        second: String,
        ids: Vec<u32>,
        truncated: Vec<Truncated>,
    }
    #[derive(serde::Deserialize)]
    struct Truncated {
        max_length: usize,
        ids: Vec<u32>,
    }
    let tokenizer = published();
    let pair = &tokenizer.encode_pairs(&[("how are you", "fine thanks")], 512).unwrap()[0];
    assert_eq!(pair.ids, [0, 2133, 2028, 2021, 2, 2, 2990, 4287, 2]);

    let tokenizer = Tokenizer::open(common::tiny()).unwrap();
    let pairs = json::<File>("goldens.json").pairs;
    assert!(pairs.len() >= 3);
    for pair in pairs {
        let encode = |limit| {
            let pairs = [(&pair.first, &pair.second)];
            tokenizer.encode_pairs(&pairs, limit).unwrap().remove(0)
        };
        assert_eq!(encode(512).ids, pair.ids);
        for cut in &pair.truncated {
            let tokens = encode(cut.max_length);
            assert_eq!(tokens.ids, cut.ids, "{:?} at {}", pair.first, cut.max_length);
            assert_eq!(tokens.dropped, pair.ids.len() - cut.ids.len());
        }
    }
}

#[test]
fn lower_casing_where_the_model_asks_for_it() {
    // A tokenizer that keeps case does not know capitals; the module's setting makes it.
    let model = Damaged::copy();
    model.set("tokenizer_config.json", "do_lower_case", false.into());
    let cased = model.load().unwrap();
    let loud = cased.encode_one("THE MAN").unwrap();
    assert_ne!(loud, cased.encode_one("the man").unwrap());
    model.set("sentence_bert_config.json", "do_lower_case", true.into());
    let lowered = model.load().unwrap();
    assert_eq!(lowered.encode_one("THE MAN").unwrap(), cased.encode_one("the man").unwrap());
}

#[test]
fn a_vocabulary_without_its_special_tokens() {
    let model = Damaged::copy();
    model.remove("tokenizer.json");
    assert!(model.load().is_ok(), "vocab.txt is enough");
    model.write("vocab.txt", "<s>\n<pad>\n</s>\nhello\n");
    // Those that are missing get the next ids; a word that is not known has no token, as in Python.
    let model_of_four = model.load().unwrap();
    let tokens = model_of_four.tokenizer().encode(&["hello [UNK]"], 8).unwrap();
    assert_eq!(tokens[0].ids, [0, 3, 4, 2]);
    let error = model_of_four.encode(&["hello", "you"]).unwrap_err();
    assert!(
        matches!(error, Error::Text { text: 1, problem: TextProblem::Tokenizer { .. } }),
        "{error}"
    );
    assert!(error.to_string().contains("[UNK]"), "{error}");
    model.write("vocab.txt", [b'<', 0xFF, 0xFE]);
    assert!(matches!(
        model.load(),
        Err(Error::File { problem: FileProblem::Tokenizer { .. }, .. })
    ));
}

#[test]
fn a_very_long_pair_under_a_small_limit() {
    let long = "word ".repeat(100_000);
    let tokens = &published().encode_pairs(&[(&long, &long)], 8).unwrap()[0];
    assert_eq!((tokens.ids.len(), tokens.dropped), (8, 199_996));
}

/// Files that the `tokenizers` crate reads and then panics at.
#[test]
fn components_that_make_no_sense_are_refused() {
    let mut file: serde_json::Value = json("tiny/tokenizer.json");
    file["post_processor"] = serde_json::json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[NONE]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {},
    });
    let error = Tokenizer::from_json(file.to_string(), "tokenizer.json").unwrap_err();
    assert!(error.to_string().contains("[NONE]"), "{error}");

    let mut file: serde_json::Value = json("tiny/tokenizer.json");
    let nothing = serde_json::json!({"type": "FixedLength", "length": 0});
    file["pre_tokenizer"] = serde_json::json!({"type": "Sequence", "pretokenizers": [nothing]});
    let error = Tokenizer::from_json(file.to_string(), "tokenizer.json").unwrap_err();
    assert!(matches!(error, Error::File { problem: FileProblem::Tokenizer { .. }, .. }), "{error}");

    // No token for unknown words: known ones can be had, others are an error that says which text.
    let mut file: serde_json::Value = json("tiny/tokenizer.json");
    file["model"]["unk_token"] = "[NONE]".into();
    let tokenizer = Tokenizer::from_json(file.to_string(), "tokenizer.json").unwrap();
    let error = tokenizer.encode(&["the", "\u{2603}"], 48).unwrap_err();
    assert!(
        matches!(error, Error::Text { text: 1, problem: TextProblem::Tokenizer { .. } }),
        "{error}"
    );
}

/// Files that the `tokenizers` crate reads, or does not, and panics at, when it reads them or when
/// it comes to a text. Each is an error that names the file, or works.
#[test]
fn no_tokenizer_file_panics() {
    use serde_json::{Value, json};
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let special = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    let template = |single: Value, pair: Value| {
        let tokens = json!({"<s>": {"id": "<s>", "ids": [0, 0], "tokens": ["<s>"]}});
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens})
    };
    let split = |pattern: Value| json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false});
    let replace = |pattern: Value| json!({"type": "Replace", "pattern": pattern, "content": ""});
    let cases: Vec<(&str, Value)> = vec![
        ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
        ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": ""})),
        ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "/////wAAAAA="})),
        (
            "normalizer",
            json!({"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": "BAAAAAAA"}]}),
        ),
        ("normalizer", replace(json!({"String": ""}))),
        ("normalizer", replace(json!({"Regex": ""}))),
        ("normalizer", replace(json!({"Regex": "(a"}))),
        ("normalizer", replace(json!({"Regex": "(?=x)"}))),
        ("normalizer", json!({"type": "Prepend", "prepend": ""})),
        ("pre_tokenizer", split(json!({"String": ""}))),
        ("pre_tokenizer", split(json!({"Regex": ""}))),
        ("pre_tokenizer", split(json!({"Regex": "(?!.)"}))),
        ("pre_tokenizer", split(json!({"Regex": "(a+)+$"}))),
        (
            "pre_tokenizer",
            json!({"type": "Metaspace", "replacement": "ab", "prepend_scheme": "always", "split": true}),
        ),
        ("pre_tokenizer", json!({"type": "CharDelimiterSplit", "delimiter": ""})),
        ("pre_tokenizer", json!({"type": "FixedLength", "length": 1})),
        (
            "pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": 0}]}),
        ),
        (
            "pre_tokenizer",
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        ),
        ("post_processor", template(json!([sequence("B")]), json!([sequence("A"), sequence("B")]))),
        ("post_processor", template(json!([sequence("A")]), json!([sequence("A")]))),
        ("post_processor", template(json!([sequence("A")]), json!([sequence("B")]))),
        ("post_processor", template(json!([]), json!([]))),
        (
            "post_processor",
            template(json!([special("<s>"), sequence("A")]), json!([sequence("A"), sequence("B")])),
        ),
        (
            "post_processor",
            template(
                json!([special("[NONE]"), sequence("A")]),
                json!([sequence("A"), sequence("B")]),
            ),
        ),
        (
            "post_processor",
            json!({"type": "Sequence", "processors": [template(json!([sequence("B")]), json!([]))]}),
        ),
        (
            "post_processor",
            json!({"type": "RobertaProcessing", "sep": ["", 4_294_967_295_u32], "cls": ["", 0], "trim_offsets": true, "add_prefix_space": true}),
        ),
        ("truncation", json!({"max_length": 0, "strategy": "OnlySecond", "stride": 7})),
        ("truncation", json!({"max_length": 2, "strategy": "LongestFirst", "stride": 2})),
        (
            "padding",
            json!({"strategy": {"Fixed": 18_446_744_073_709_551_615_u64}, "direction": "Left", "pad_to_multiple_of": 0, "pad_id": 0, "pad_type_id": 0, "pad_token": ""}),
        ),
        (
            "decoder",
            json!({"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": true}),
        ),
        ("decoder", json!({"type": "Strip", "content": "a", "start": 999, "stop": 999})),
        ("decoder", json!({"type": "WordPiece", "prefix": "", "cleanup": true})),
        ("decoder", json!({"type": "Replace", "pattern": {"Regex": "(?=)"}, "content": "x"})),
        (
            "added_tokens",
            json!([{"id": 0, "content": "", "single_word": false, "lstrip": true, "rstrip": true, "normalized": true, "special": true}]),
        ),
        (
            "added_tokens",
            json!([{"id": 4_294_967_295_u32, "content": "x", "single_word": true, "lstrip": true, "rstrip": true, "normalized": true, "special": true}]),
        ),
        (
            "added_tokens",
            json!([{"id": 7, "content": "\u{301}", "single_word": false, "lstrip": true, "rstrip": true, "normalized": true, "special": false}]),
        ),
        (
            "model",
            json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "", "max_input_chars_per_word": 0, "vocab": {}}),
        ),
        ("model", json!({"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]})),
        ("model", json!({"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]})),
        (
            "model",
            json!({"type": "BPE", "vocab": {}, "merges": [], "dropout": 7.5, "unk_token": "x", "fuse_unk": true}),
        ),
        ("model", json!({"type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]]})),
        ("model", json!({"type": "Unigram", "unk_id": null, "vocab": []})),
        (
            "model",
            json!({"type": "Unigram", "unk_id": 0, "vocab": [["", 0.0]], "byte_fallback": true}),
        ),
        ("model", json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "none"})),
    ];
    let texts = ["", "the man", "\u{301}e\u{301} \u{200d}", "<s> x \u{FFFD}", "日本 ﬁ", "a\u{0}b"];
    let base: Value = json("tiny/tokenizer.json");
    for (field, value) in cases {
        let mut file = base.clone();
        file[field] = value.clone();
        let attempt = || {
            let tokenizer = Tokenizer::from_json(file.to_string(), "tokenizer.json")?;
            let mut ids = Vec::new();
            for text in texts {
                for tokens in
                    [tokenizer.encode(&[text], 9), tokenizer.encode_pairs(&[(text, "the man")], 9)]
                {
                    match tokens {
                        Ok(tokens) => ids.extend(tokens.into_iter().flat_map(|tokens| tokens.ids)),
                        Err(error) => check(&error),
                    }
                }
            }
            tokenizer.decode(&ids, false)
        };
        let outcome = std::panic::catch_unwind(attempt);
        match outcome {
            Err(_) => panic!("{field}: {value} panics"),
            Ok(Err(error)) => check(&error),
            Ok(Ok(_)) => {}
        }
    }
    fn check(error: &Error) {
        assert!(
            matches!(
                error,
                Error::File { problem: FileProblem::Tokenizer { .. }, .. }
                    | Error::Text { problem: TextProblem::Tokenizer { .. }, .. }
                    | Error::Option { .. }
            ),
            "{error}"
        );
    }
}
