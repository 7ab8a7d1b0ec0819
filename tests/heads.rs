//! The heads on the tiny encoder against transformers in float64: logits and what the pipelines
//! answer.
//!
//! What torch's own `float32` logits differ from these goldens was measured when they were made:
//! 1.1e-5 (logits are up to 8). The tests allow [`LOGIT`], four times that. A softmax over logits
//! that are off by δ is off by at most 2δ of its value and δ/2 in all; a sigmoid by δ/4.

mod common;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use common::{Damaged, allowed, assert_close, assert_near, bits, data, json, pool, read};
use mpnet::heads::{
    AggregationStrategy, Answer, AnswerOptions, ClassificationFunction, Entity, HeadOptions,
    LabelScore, MaskedLM, MultipleChoice, ProblemType, QuestionAnswering, SequenceClassification,
    TokenClassification, TokenClassificationOptions,
};
use mpnet::ndarray::{Array2, ArrayD, Axis, aview1, s};
use mpnet::{
    Batch, Error, FileProblem, InputProblem, Isa, ModelFiles, Precision, TensorProblem, TextProblem,
};
use proptest::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;

const LOGIT: f64 = 4.4e-5;
const SCORE: f64 = LOGIT / 2.0;

/// `heads.json`
fn goldens() -> Value {
    json("heads.json")
}

fn of<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// A tensor to be written: type, shape, bytes.
type Tensor = (Dtype, Vec<usize>, Vec<u8>);

fn tensors(name: &str) -> BTreeMap<String, Tensor> {
    let bytes = read(name);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |view: &TensorView| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    file.iter().map(|(name, view)| (name.to_owned(), tensor(&view))).collect()
}

/// The tensors of a head and of the encoder under it, named as transformers does.
fn checkpoint(head: &str) -> BTreeMap<String, Tensor> {
    let keep = |name: &str| head == "multiple_choice" || !name.starts_with("pooler.");
    tensors("tiny/model.safetensors")
        .into_iter()
        .filter(|(name, _)| keep(name))
        .map(|(name, tensor)| (format!("mpnet.{name}"), tensor))
        .chain(tensors(&format!("heads/{head}.safetensors")))
        .collect()
}

fn write(model: &Damaged, tensors: &BTreeMap<String, Tensor>) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    model.write("model.safetensors", safetensors::serialize(views, None).unwrap());
}

/// A directory with the head `head`, as transformers saves it.
fn directory(head: &str) -> Damaged {
    let model = Damaged::copy();
    write(&model, &checkpoint(head));
    for (field, value) in goldens()["configs"][head].as_object().unwrap() {
        model.set("config.json", field, value.clone());
    }
    model
}

/// Makes of a directory of transformers one that sentence-transformers 6 has saved a cross-encoder
/// in.
fn save_as_cross_encoder(model: &Damaged) {
    let class = "sentence_transformers.base.modules.transformer.Transformer";
    let modules = serde_json::json!([{"idx": 0, "name": "0", "path": "", "type": class}]);
    model.write("modules.json", modules.to_string()).remove("sentence_bert_config.json");
    model.set("config_sentence_transformers.json", "model_type", "CrossEncoder".into());
}

fn masked_lm() -> MaskedLM {
    MaskedLM::from_pretrained(directory("masked_lm").path()).unwrap()
}

fn sequence_classification() -> SequenceClassification {
    SequenceClassification::from_pretrained(directory("sequence_classification").path()).unwrap()
}

fn token_classification() -> TokenClassification {
    TokenClassification::from_pretrained(directory("token_classification").path()).unwrap()
}

fn question_answering() -> QuestionAnswering {
    QuestionAnswering::from_pretrained(directory("question_answering").path()).unwrap()
}

fn multiple_choice() -> MultipleChoice {
    MultipleChoice::from_pretrained(directory("multiple_choice").path()).unwrap()
}

/// Rows of numbers as an array.
fn rows(value: &Value) -> ArrayD<f64> {
    let rows: Vec<Vec<f64>> = of(value);
    let columns = rows[0].len();
    let flat = rows.concat();
    ArrayD::from_shape_vec(vec![flat.len() / columns, columns], flat).unwrap()
}

/// Python's character offsets as bytes.
fn byte_range(text: &str, start: usize, end: usize) -> Range<usize> {
    let byte = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(i, _)| i);
    byte(start)..byte(end)
}

#[track_caller]
fn assert_score(what: &str, got: f32, want: f64, tolerance: f64) {
    assert_near(what, aview1(&[got]).into_dyn(), aview1(&[want]).into_dyn(), tolerance);
}

#[derive(Deserialize)]
struct Fill {
    text: String,
    ids: Vec<u32>,
    masks: Vec<usize>,
    answers: Vec<Vec<Filled>>,
    rows: Option<Vec<usize>>,
}

#[derive(Deserialize)]
struct Filled {
    score: f64,
    token: u32,
    token_str: String,
    sequence: String,
}

fn fills() -> Vec<Fill> {
    of(&goldens()["masked_lm"]["fills"])
}

fn mlm_logits() -> ArrayD<f64> {
    let bytes = read("heads_logits.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("masked_lm").unwrap();
    let (values, _) = tensor.data().as_chunks();
    let values = values.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect();
    ArrayD::from_shape_vec(tensor.shape(), values).unwrap()
}

#[test]
fn masked_lm_logits_on_every_instruction_set() {
    let (model, first) = (directory("masked_lm"), &fills()[0]);
    for &isa in Isa::available() {
        let head =
            MaskedLM::from_pretrained_with(model.path(), &HeadOptions::default().isa(isa)).unwrap();
        // Not alone, so that a wrong row would show.
        let batch = Batch::new(&[&[0, 50, 2][..], &first.ids], head.model().config()).unwrap();
        let start = batch.range(1).start;
        let places: Vec<usize> =
            first.rows.as_ref().unwrap().iter().map(|row| start + row).collect();
        let got = head.forward(&batch).unwrap().select(Axis(0), &places);
        let want = mlm_logits();
        assert_close(&format!("{isa}"), got.view().into_dyn(), want.view(), allowed(isa, LOGIT));
        let hidden = head.model().forward(&batch).select(Axis(0), &places);
        assert_eq!(head.logits(&hidden).unwrap(), got, "any rows of the hidden states");
    }
}

#[test]
fn masks_are_filled_as_the_pipeline_does() {
    let head = masked_lm();
    assert_eq!(head.mask_token(), "<mask>");
    for fill in fills() {
        let text = fill.text.as_str();
        let got = match fill.masks.len() {
            1 => vec![head.fill_mask(text, 6).unwrap()],
            _ => head.fill_masks(text, 6).unwrap(),
        };
        assert_eq!(got.len(), fill.answers.len(), "{text}");
        for (got, want) in got.iter().flatten().zip(fill.answers.iter().flatten()) {
            assert_eq!((got.token, &got.token_str), (want.token, &want.token_str), "{text}");
            assert_eq!(got.sequence, want.sequence, "{text}");
            assert_score(text, got.score, want.score, SCORE);
        }
        if fill.masks.len() == 1 {
            assert_eq!(head.fill_masks(text, 6).unwrap(), got);
        }
    }
    let all = head.fill_mask("the <mask>", usize::MAX).unwrap();
    assert_eq!(all.len(), 605, "the whole vocabulary");
    let sum: f64 = all.iter().map(|fill| f64::from(fill.score)).sum();
    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
}

/// Spaces before punctuation go if the tokenizer's configuration says so, and not otherwise.
#[test]
fn clean_up_tokenization_spaces() {
    let sequence = |model: &Damaged| {
        let head = MaskedLM::from_pretrained(model.path()).unwrap();
        head.fill_mask("I don't <mask>", 1).unwrap().swap_remove(0).sequence
    };
    let model = directory("masked_lm");
    assert!(sequence(&model).starts_with("i don ' t"));
    model.set("tokenizer_config.json", "clean_up_tokenization_spaces", true.into());
    assert!(sequence(&model).starts_with("i don't"));
}

#[test]
fn a_decoder_of_its_own() {
    let ids = &fills()[0].ids;
    let logits = |tensors: &BTreeMap<String, Tensor>, tie: Value| {
        let model = directory("masked_lm");
        write(&model, tensors);
        model.set("config.json", "tie_word_embeddings", tie);
        let head = MaskedLM::from_pretrained(model.path())?;
        head.forward(&Batch::new(&[ids], head.model().config())?)
    };
    let mut tensors = checkpoint("masked_lm");
    let tied = logits(&tensors, Value::Null).unwrap();

    // The bias under its other name; no weights of its own where they are needed.
    let bias = tensors.remove("lm_head.bias").unwrap();
    tensors.insert("lm_head.decoder.bias".into(), bias.clone());
    assert_eq!(logits(&tensors, true.into()).unwrap(), tied);
    let error = logits(&tensors, false.into()).unwrap_err();
    assert!(error.to_string().contains("lm_head.decoder.weight"), "{error}");

    // Twice the word embeddings, no bias: the reference takes them, whether tied or not.
    let (dtype, shape, bytes) = tensors["mpnet.embeddings.word_embeddings.weight"].clone();
    let (values, _) = bytes.as_chunks();
    let twice = values.iter().flat_map(|&b| (2.0 * f32::from_le_bytes(b)).to_le_bytes());
    tensors.insert("lm_head.decoder.weight".into(), (dtype, shape, twice.collect()));
    let zeros = vec![0; bias.2.len()];
    tensors.insert("lm_head.decoder.bias".into(), (bias.0, bias.1, zeros));
    let (values, _) = bias.2.as_chunks();
    let bias: Vec<f32> = values.iter().map(|&b| f32::from_le_bytes(b)).collect();
    let want = ((&tied - &aview1(&bias)) * 2.0).mapv(f64::from).into_dyn();
    for tie in [Value::Null, true.into(), false.into()] {
        let got = logits(&tensors, tie).unwrap();
        assert_near("own decoder", got.view().into_dyn(), want.view(), LOGIT);
    }
}

#[derive(Deserialize)]
struct Ranked {
    head: String,
    config: serde_json::Map<String, Value>,
    texts: Vec<Vec<Labelled>>,
    pairs: Vec<Vec<Labelled>>,
}

#[derive(Deserialize)]
struct Labelled {
    label: String,
    score: f64,
}

#[track_caller]
fn assert_ranked(got: &[Vec<LabelScore>], want: &[Vec<Labelled>]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(want) {
            assert_eq!(got.label, want.label);
            // A logit of the regression is its own score.
            assert_score(&want.label, got.score, want.score, LOGIT);
        }
    }
}

#[test]
fn sequence_classification_logits_and_labels() {
    let golden = &goldens()["sequence_classification"];
    let head = sequence_classification();
    assert_eq!(head.labels(), ["negative", "neutral", "positive"]);
    assert_eq!(head.problem_type(), Some(ProblemType::SingleLabelClassification));
    let ids: Vec<Vec<u32>> = of(&golden["ids"]);
    let batch = Batch::new(&ids, head.model().config()).unwrap();
    let got = head.forward(&batch).unwrap();
    for (i, got) in got.rows().into_iter().enumerate() {
        let want: Vec<f64> = of(&golden["logits"][i]);
        assert_near(&format!("text {i}"), got.into_dyn(), aview1(&want).into_dyn(), LOGIT);
    }
    let hidden = head.model().forward(&batch);
    assert_eq!(head.logits(&hidden, &batch).unwrap(), got);
}

#[test]
fn texts_and_pairs_are_classified_as_the_pipeline_does() {
    let golden = &goldens()["sequence_classification"];
    let (texts, pairs): (Vec<String>, Vec<(String, String)>) =
        (of(&golden["texts"]), of(&golden["pairs"]));
    let variants: Vec<Ranked> = of(&golden["variants"]);
    assert_eq!(variants.len(), 5);
    for Ranked { head, config, texts: of_texts, pairs: of_pairs } in &variants {
        let model = directory(head);
        for (field, value) in config {
            model.set("config.json", field, value.clone());
        }
        let head = SequenceClassification::from_pretrained(model.path()).unwrap();
        assert_ranked(&head.classify_top_k(&texts, 99).unwrap(), of_texts);
        assert_ranked(&head.classify_pairs_top_k(&pairs, 99).unwrap(), of_pairs);
        let best = head.classify(&texts).unwrap();
        assert_eq!(best.len(), texts.len());
        for (best, all) in best.iter().zip(head.classify_top_k(&texts, 2).unwrap()) {
            assert_eq!(best, &all[0]);
            assert_eq!(all.len(), head.labels().len().min(2));
            assert_eq!(head.labels()[best.id], best.label);
        }
        assert_eq!(head.classify_pairs(&pairs).unwrap()[0].label, of_pairs[0][0].label);
    }
    let none: [&str; 0] = [];
    assert!(sequence_classification().classify(&none).unwrap().is_empty());
}

/// sentence-transformers' `CrossEncoder`: a sigmoid of a single logit, the logits themselves of
/// several.
#[test]
fn pairs_as_a_cross_encoder_scores_them() {
    let goldens = goldens();
    let pairs: Vec<(String, String)> = of(&goldens["sequence_classification"]["pairs"]);
    let golden = &goldens["cross_encoder"]["reranker"];
    let reranker = SequenceClassification::from_pretrained(directory("reranker").path()).unwrap();
    let want: Vec<f64> = of(&golden["predict"]);
    for (got, want) in reranker.classify_pairs(&pairs).unwrap().iter().zip(want) {
        assert_score("predict", got.score, want, SCORE);
    }
    let (query, documents): (String, Vec<String>) =
        (of(&golden["query"]), of(&golden["documents"]));
    let pairs_of_query: Vec<_> = documents.iter().map(|document| (&query, document)).collect();
    let scores = reranker.classify_pairs(&pairs_of_query).unwrap();
    let mut order: Vec<usize> = (0..documents.len()).collect();
    order.sort_by(|&a, &b| scores[b].score.total_cmp(&scores[a].score));
    let rank: Vec<(usize, f64)> = of(&golden["rank"]);
    assert_eq!(order, rank.iter().map(|(document, _)| *document).collect::<Vec<_>>());
    for (document, want) in rank {
        assert_score("rank", scores[document].score, want, SCORE);
    }

    let want: Vec<Vec<f64>> = of(&goldens["cross_encoder"]["sequence_classification"]["predict"]);
    let head = sequence_classification().function_to_apply(ClassificationFunction::None);
    for (labels, want) in head.classify_pairs_top_k(&pairs, 3).unwrap().iter().zip(want) {
        for label in labels {
            assert_score(&label.label, label.score, want[label.id], LOGIT);
        }
    }
}

/// The activation that a cross-encoder was saved with, in each of the places where versions of
/// sentence-transformers have put it.
#[test]
fn the_activation_that_a_cross_encoder_was_saved_with() {
    let goldens = goldens();
    let pairs: Vec<(String, String)> = of(&goldens["sequence_classification"]["pairs"]);
    let saved = goldens["cross_encoder"]["saved"].as_array().unwrap();
    assert_eq!(saved.len(), 9);
    for case in saved {
        let model = directory(case["head"].as_str().unwrap());
        for (field, value) in case["config"].as_object().unwrap() {
            model.set("config.json", field, value.clone());
        }
        if let Some(class) = case.get("activation_fn") {
            save_as_cross_encoder(&model);
            model.set("config_sentence_transformers.json", "activation_fn", class.clone());
        }
        let head = SequenceClassification::from_pretrained(model.path()).unwrap();
        let columns = head.labels().len();
        let want: Vec<f64> = match columns {
            1 => of(&case["predict"]),
            _ => of::<Vec<Vec<f64>>>(&case["predict"]).concat(),
        };
        assert_eq!(want.len(), columns * pairs.len());
        for (labels, want) in
            head.classify_pairs_top_k(&pairs, columns).unwrap().iter().zip(want.chunks(columns))
        {
            for label in labels {
                assert_score(&case.to_string(), label.score, want[label.id], LOGIT);
            }
        }
    }
}

#[test]
fn another_function_than_the_configuration_says() {
    let texts = ["He was in the old house."];
    let scores = |function| {
        let head = sequence_classification().function_to_apply(function);
        let mut labels = head.classify_top_k(&texts, 3).unwrap().swap_remove(0);
        labels.sort_by_key(|label| label.id);
        labels.iter().map(|label| f64::from(label.score)).collect::<Vec<_>>()
    };
    let logits = scores(ClassificationFunction::None);
    for (sigmoid, logit) in scores(ClassificationFunction::Sigmoid).iter().zip(&logits) {
        assert!((sigmoid - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-6);
    }
    let softmax = scores(ClassificationFunction::Softmax);
    assert!((softmax.iter().sum::<f64>() - 1.0).abs() < 1e-6);
    assert!((softmax[0] / softmax[1] - (logits[0] - logits[1]).exp()).abs() < 1e-5);
}

#[derive(Deserialize)]
struct Tagged {
    #[serde(alias = "entity_group")]
    entity: String,
    score: f64,
    word: String,
    start: usize,
    end: usize,
    index: Option<usize>,
}

#[track_caller]
fn assert_entities(what: &str, text: &str, got: &[Entity], want: &[Tagged]) {
    for (got, want) in got.iter().zip(want) {
        let range = byte_range(text, want.start, want.end);
        assert_eq!(
            (&got.label, &got.word, &got.range, got.index),
            (&want.entity, &want.word, &range, want.index),
            "{what}"
        );
        assert_score(&want.word, got.score, want.score, SCORE);
    }
    assert_eq!(got.len(), want.len(), "{what}");
}

fn strategy(name: &str) -> AggregationStrategy {
    match name {
        "none" => AggregationStrategy::None,
        "simple" => AggregationStrategy::Simple,
        "first" => AggregationStrategy::First,
        "max" => AggregationStrategy::Max,
        "average" => AggregationStrategy::Average,
        other => panic!("{other}"),
    }
}

#[test]
fn token_classification_logits() {
    let (head, golden) = (token_classification(), goldens());
    let golden = &golden["token_classification"];
    let texts: Vec<String> = of(&golden["texts"]);
    let tokens = head.tokenizer().encode(&texts[..2], 512).unwrap();
    let ids: Vec<&[u32]> = tokens.iter().map(|tokens| tokens.ids.as_slice()).collect();
    let batch = Batch::new(&ids, head.model().config()).unwrap();
    let got = head.forward(&batch).unwrap();
    for (i, range) in batch.ranges().enumerate() {
        let got = got.slice(s![range, ..]);
        let want = rows(&golden["logits"][i]);
        assert_near(&format!("text {i}"), got.into_dyn(), want.view(), LOGIT);
    }
    assert_eq!(head.logits(&head.model().forward(&batch)).unwrap(), got);
    assert_eq!(head.labels(), ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]);
}

#[test]
fn entities_by_every_strategy() {
    let (head, golden) = (token_classification(), goldens());
    let golden = &golden["token_classification"];
    let texts: Vec<String> = of(&golden["texts"]);
    let strategies: BTreeMap<String, Vec<Vec<Tagged>>> = of(&golden["strategies"]);
    assert_eq!(strategies.len(), 5);
    for (name, want) in &strategies {
        let options = TokenClassificationOptions::default().aggregation(strategy(name));
        let got = head.classify_with(&texts, &options).unwrap();
        assert_eq!(got.len(), texts.len());
        for ((text, got), want) in texts.iter().zip(&got).zip(want) {
            assert_entities(name, text, got, want);
        }
    }
    assert_eq!(
        head.classify(&texts).unwrap(),
        head.classify_with(&texts, &TokenClassificationOptions::default()).unwrap()
    );
    let want: Vec<Tagged> = of(&golden["ignore_labels"]["entities"]);
    let options = TokenClassificationOptions::default()
        .aggregation(AggregationStrategy::Simple)
        .ignore_labels(["LOC"]);
    let got = head.classify_with(&texts[..1], &options).unwrap();
    assert_entities("ignore_labels", &texts[0], &got[0], &want);
}

#[test]
fn entities_of_a_long_text_by_windows() {
    #[derive(Deserialize)]
    struct Case {
        model_max_length: usize,
        stride: usize,
        strategy: String,
        text: usize,
        entities: Vec<Tagged>,
    }
    let golden = &goldens()["token_classification"];
    let texts: Vec<String> = of(&golden["texts"]);
    for case in of::<Vec<Case>>(&golden["stride"]) {
        let model = directory("token_classification");
        model.set("tokenizer_config.json", "model_max_length", case.model_max_length.into());
        let head = TokenClassification::from_pretrained(model.path()).unwrap();
        let options = TokenClassificationOptions::default()
            .aggregation(strategy(&case.strategy))
            .stride(case.stride);
        // Another text before it, so that a window of the wrong text would show.
        let text = texts[case.text].as_str();
        let got = head.classify_with(&[texts[0].as_str(), text, ""], &options).unwrap();
        let what = format!("{} {} {}", case.model_max_length, case.stride, case.strategy);
        assert_entities(&what, text, &got[1], &case.entities);
        assert!(got[2].is_empty());
    }
}

#[derive(Deserialize)]
struct Asked {
    question: String,
    context: String,
    options: AskedOptions,
    answers: Vec<Answered>,
}

#[derive(Deserialize)]
struct AskedOptions {
    top_k: Option<usize>,
    max_answer_len: Option<usize>,
    max_seq_len: Option<usize>,
    doc_stride: Option<usize>,
    handle_impossible_answer: Option<bool>,
    align_to_words: Option<bool>,
}

#[derive(Deserialize)]
struct Answered {
    score: f64,
    start: usize,
    end: usize,
    answer: String,
}

impl AskedOptions {
    fn build(&self) -> AnswerOptions {
        let mut options = AnswerOptions::default();
        if let Some(top_k) = self.top_k {
            options = options.top_k(top_k);
        }
        if let Some(tokens) = self.max_answer_len {
            options = options.max_answer_len(tokens);
        }
        if let Some(tokens) = self.max_seq_len {
            options = options.max_seq_len(tokens);
        }
        if let Some(tokens) = self.doc_stride {
            options = options.doc_stride(tokens);
        }
        if let Some(handle) = self.handle_impossible_answer {
            options = options.handle_impossible_answer(handle);
        }
        if let Some(align) = self.align_to_words {
            options = options.align_to_words(align);
        }
        options
    }
}

#[test]
fn question_answering_logits() {
    let (head, golden) = (question_answering(), goldens());
    let golden = &golden["question_answering"];
    let ids: Vec<Vec<u32>> = of(&golden["ids"]);
    let batch = Batch::new(&ids, head.model().config()).unwrap();
    let got = head.forward(&batch).unwrap();
    for (i, range) in batch.ranges().enumerate() {
        let got = got.slice(s![range, ..]);
        let want = rows(&golden["logits"][i]);
        assert_near(&format!("pair {i}"), got.into_dyn(), want.view(), LOGIT);
    }
    assert_eq!(head.logits(&head.model().forward(&batch)).unwrap(), got);
}

#[test]
fn questions_are_answered_as_the_pipeline_does() {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Asked>,
    }
    let head = question_answering();
    for Asked { question, context, options, answers } in json::<File>("heads_qa.json").cases {
        let impossible = options.handle_impossible_answer == Some(true);
        // Where the context has fewer spans than were asked for, numpy's argsort yields spans
        // outside of it.
        let want: Vec<&Answered> =
            answers.iter().filter(|answer| impossible || answer.score > 0.0).collect();
        let got = head.answer_with(&question, &context, &options.build()).unwrap();
        for (got, want) in got.iter().zip(&want) {
            let what = format!("{question}: {}", want.answer);
            assert_eq!(got.text, want.answer, "{what}");
            assert_eq!(got.range, byte_range(&context, want.start, want.end), "{what}");
            assert_eq!(context[got.range.clone()], got.text);
            assert_eq!(got.is_impossible(), want.answer.is_empty());
            // A sum of products of two probabilities, each of them off by at most 2δ of itself.
            assert_score(&what, got.score, want.score, 4.0 * LOGIT * want.score + 1e-7);
        }
        assert_eq!(got.len(), want.len(), "{question}");
    }
}

#[test]
fn one_answer() {
    let (head, context) = (question_answering(), "He was in the old house.");
    let answer: Answer = head.answer("Who was asleep?", context).unwrap();
    let many = head.answer_with("Who was asleep?", context, &AnswerOptions::default().top_k(9));
    assert_eq!((&answer.text[..], &answer), ("He was in the old", &many.unwrap()[0]));
}

/// A question that leaves little room still works by itself: what windows have in common shrinks
/// with it.
#[test]
fn a_long_question_over_a_long_context() {
    let head = question_answering();
    let (question, context) = ("the ".repeat(90), "was in the house ".repeat(20));
    assert!(!head.answer(&question, &context).unwrap().text.is_empty());
}

#[test]
fn multiple_choice_logits_and_scores() {
    let (head, golden) = (multiple_choice(), goldens());
    let golden = &golden["multiple_choice"];
    let (ids, want): (Vec<Vec<u32>>, Vec<f64>) = (of(&golden["ids"]), of(&golden["logits"]));
    let batch = Batch::new(&ids, head.model().config()).unwrap();
    for choices in [4, 2, 1] {
        let got = head.forward(&batch, choices).unwrap();
        assert_eq!(got.dim(), (4 / choices, choices));
        let want = aview1(&want).into_shape_with_order((4 / choices, choices)).unwrap();
        assert_near("logits", got.view().into_dyn(), want.into_dyn(), LOGIT);
    }
    let hidden = head.model().forward(&batch);
    let got = head.logits(&hidden, &batch, 4).unwrap();
    assert_eq!(got, head.forward(&batch, 4).unwrap());
    let (question, choices): (String, Vec<String>) =
        (of(&golden["question"]), of(&golden["choices"]));
    let (got, want): (Vec<f32>, Vec<f64>) =
        (head.choose(&question, &choices).unwrap(), of(&golden["scores"]));
    assert_near("scores", aview1(&got).into_dyn(), aview1(&want).into_dyn(), SCORE);
}

/// The heads keep what the encoder promises: the same bits alone, in company and on any number of
/// threads.
#[test]
fn the_same_bits_in_any_company() {
    let head = sequence_classification().function_to_apply(ClassificationFunction::None);
    let texts = ["He was in the old house.", "", "a b c d e f g", "don't"];
    let scores = |texts: &[&str]| -> Vec<Vec<u32>> {
        let ranked = head.classify_top_k(texts, 3).unwrap();
        let row = |labels: &Vec<LabelScore>| {
            bits(aview1(&labels.iter().map(|label| label.score).collect::<Vec<_>>()))
        };
        ranked.iter().map(row).collect()
    };
    let together = scores(&texts);
    for (text, want) in texts.iter().zip(&together) {
        assert_eq!(&scores(&[text])[0], want);
    }
    for threads in [1, 3] {
        assert_eq!(pool(threads).install(|| scores(&texts)), together);
    }
}

#[test]
fn files_in_memory_and_other_precisions() {
    let model = directory("masked_lm");
    let file = |name: &str| std::fs::read(model.path().join(name)).unwrap();
    let (weights, config, tokenizer) =
        (file("model.safetensors"), file("config.json"), file("tokenizer.json"));
    let files = || {
        ModelFiles::in_memory([
            ("model.safetensors", weights.as_slice()),
            ("config.json", &config),
            ("tokenizer.json", &tokenizer),
        ])
    };
    let text = "The <mask> was in the old house.";
    let want = masked_lm().fill_mask(text, 3).unwrap();
    assert_eq!(MaskedLM::from_pretrained(files()).unwrap().fill_mask(text, 3).unwrap(), want);
    for precision in [Precision::Bf16, Precision::Int8] {
        let options = HeadOptions::default().precision(precision);
        let head = MaskedLM::from_pretrained_with(files(), &options).unwrap();
        let got = head.fill_mask(text, 3).unwrap();
        assert_ne!(got[0].score, want[0].score, "{precision} rounds");
        // The head reads what the encoder makes in this precision, which the goldens of precisions
        // hold; with random weights the best tokens are within a hair of each other, so that int8
        // may order them otherwise.
        let logits = |head: &MaskedLM| {
            let tokens = head.tokenizer().encode(&[text], 512).unwrap();
            let batch = Batch::new(&[tokens[0].ids.clone()], head.model().config()).unwrap();
            head.forward(&batch).unwrap()
        };
        let (rounded, exact) = (logits(&head), logits(&masked_lm()));
        let dot = (&rounded * &exact).sum();
        let cosine = dot / ((&rounded * &rounded).sum() * (&exact * &exact).sum()).sqrt();
        assert!(cosine > 0.99, "{precision}: {cosine}");
    }
}

// --- what can be wrong

macro_rules! assert_error {
    ($result:expr, $pattern:pat $(if $guard:expr)?, $($name:expr),*) => {{
        let error = $result.unwrap_err();
        let text = error.to_string();
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
        $(assert!(text.contains($name), "`{}` is not named in: {text}", $name);)*
    }};
}

/// Loads the directory as each head but its own.
#[track_caller]
fn assert_other_heads(path: &Path, own: &str, found: &str) {
    let results = [
        ("masked_lm", MaskedLM::from_pretrained(path).map(drop)),
        ("sequence_classification", SequenceClassification::from_pretrained(path).map(drop)),
        ("token_classification", TokenClassification::from_pretrained(path).map(drop)),
        ("question_answering", QuestionAnswering::from_pretrained(path).map(drop)),
        ("multiple_choice", MultipleChoice::from_pretrained(path).map(drop)),
    ];
    for (head, result) in results {
        // These two have the same names: the labels tell.
        if head == own || (head, own) == ("token_classification", "multiple_choice") {
            continue;
        }
        assert_error!(
            result,
            Error::File { problem: FileProblem::Head { .. }, .. },
            found,
            "model.safetensors"
        );
    }
}

#[test]
fn a_checkpoint_with_another_head_or_none() {
    assert_other_heads(&data("tiny"), "", "an encoder without a head");
    for (own, found) in [
        ("masked_lm", "one for masked language model"),
        ("sequence_classification", "one for sequence classification"),
        ("token_classification", "one for token classification"),
        ("question_answering", "one for question answering"),
        ("multiple_choice", "one for token classification or multiple choice"),
    ] {
        assert_other_heads(directory(own).path(), own, found);
    }
    let tokens = directory("token_classification");
    assert_error!(
        MultipleChoice::from_pretrained(tokens.path()),
        Error::File { problem: FileProblem::Head { .. }, .. },
        "pooler"
    );
    let choices = directory("multiple_choice");
    assert_error!(
        TokenClassification::from_pretrained(choices.path()),
        Error::File { problem: FileProblem::Labels { labels: 2, outputs: 1, .. }, .. },
        "config.json",
        "classifier.weight"
    );
}

#[test]
fn labels_that_do_not_fit_the_weights() {
    let model = directory("sequence_classification");
    model.set("config.json", "id2label", serde_json::json!({"0": "a", "1": "b"}));
    assert_error!(
        SequenceClassification::from_pretrained(model.path()),
        Error::File { problem: FileProblem::Labels { labels: 2, outputs: 3, .. }, .. },
        "classifier.out_proj.weight"
    );
    // No memory is taken for labels that the weights do not have.
    model.set("config.json", "id2label", Value::Null);
    model.set("config.json", "num_labels", 1_000_000_000_000_000_u64.into());
    let result = SequenceClassification::from_pretrained(model.path());
    assert_error!(
        result,
        Error::File { problem: FileProblem::Labels { outputs: 3, .. }, .. },
        "1000000000000000"
    );
    model.set("config.json", "num_labels", 3.into());
    let head = SequenceClassification::from_pretrained(model.path()).unwrap();
    assert_eq!(head.labels(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
    model.set("config.json", "problem_type", "ranking".into());
    let result = SequenceClassification::from_pretrained(model.path());
    assert_error!(result, Error::Field { .. }, "problem_type", "ranking");

    let model = directory("question_answering");
    let mut three = checkpoint("question_answering");
    three.insert("qa_outputs.weight".into(), (Dtype::F32, vec![3, 32], vec![0; 3 * 32 * 4]));
    write(&model, &three);
    let result = QuestionAnswering::from_pretrained(model.path());
    assert_error!(
        result,
        Error::Tensor { problem: TensorProblem::Shape { .. }, .. },
        "qa_outputs.weight"
    );
}

#[test]
fn an_activation_that_is_not_known() {
    for (file, field, value, name) in [
        (
            "config.json",
            "sentence_transformers",
            serde_json::json!({"activation_fn": "torch.nn.modules.activation.Tanh"}),
            "sentence_transformers.activation_fn",
        ),
        (
            "config.json",
            "sbert_ce_default_activation_function",
            "torch.nn.modules.activation.Tanh".into(),
            "sbert_ce_default_activation_function",
        ),
        (
            "config_sentence_transformers.json",
            "activation_fn",
            "torch.nn.modules.activation.Tanh".into(),
            "activation_fn",
        ),
    ] {
        let model = directory("reranker");
        save_as_cross_encoder(&model);
        model.set(file, field, value);
        let result = SequenceClassification::from_pretrained(model.path());
        assert_error!(result, Error::Field { field, .. } if field == name, "activation.Tanh", file);
    }
}

#[test]
fn parts_of_a_head_that_are_missing() {
    for (head, name) in [
        ("masked_lm", "lm_head.layer_norm.bias"),
        ("masked_lm", "lm_head.bias"),
        ("masked_lm", "lm_head.dense.bias"),
    ] {
        let (model, mut tensors) = (directory(head), checkpoint(head));
        tensors.remove(name);
        write(&model, &tensors);
        assert_error!(
            MaskedLM::from_pretrained(model.path()),
            Error::Tensor { problem: TensorProblem::Missing { .. }, .. },
            name
        );
    }
    let model = directory("masked_lm");
    model.set("special_tokens_map.json", "mask_token", "<blank>".into());
    let result = MaskedLM::from_pretrained(model.path());
    assert_error!(result, Error::Field { .. }, "mask_token", "<blank>");
}

#[test]
fn texts_that_cannot_be_filled() {
    let head = masked_lm();
    let none = head.fill_mask("no mask", 5);
    assert_error!(
        none,
        Error::Input { input: "text", problem: InputProblem::Masks { found: 0, .. } },
        "<mask>",
        "once"
    );
    let none = head.fill_masks("no mask", 5);
    assert_error!(
        none,
        Error::Input { input: "text", problem: InputProblem::Masks { found: 0, .. } },
        "at least once"
    );
    let two = head.fill_mask("<mask> and <mask>", 5);
    assert_error!(
        two,
        Error::Input { input: "text", problem: InputProblem::Masks { found: 2, .. } },
        "fill_masks"
    );
    for result in [
        head.fill_mask("<mask>", 0).map(drop),
        head.fill_masks("<mask>", 0).map(drop),
        sequence_classification().classify_top_k(&["a"], 0).map(drop),
        sequence_classification().classify_pairs_top_k(&[("a", "b")], 0).map(drop),
        question_answering().answer_with("a", "b", &AnswerOptions::default().top_k(0)).map(drop),
    ] {
        assert_error!(result, Error::Option { option: "top_k", .. }, "at least 1");
    }
}

#[test]
fn texts_that_are_too_long() {
    let long = "a ".repeat(200);
    let (fill, classify) = (masked_lm(), sequence_classification());
    let masked = format!("{long}<mask>");
    for (result, text, tokens) in [
        (fill.fill_mask(&masked, 1).map(drop), 0, 203),
        (classify.classify(&["a", &long]).map(drop), 1, 202),
        (classify.classify_pairs(&[("a", "b"), ("a", &long)]).map(drop), 1, 205),
        (token_classification().classify(&["a", "b", &long]).map(drop), 2, 202),
        (multiple_choice().choose("a", &["b", &long]).map(drop), 1, 205),
    ] {
        let Error::Text { text: t, problem: TextProblem::TooLong { tokens: n, limit: 128 } } =
            result.unwrap_err()
        else {
            panic!("not too long");
        };
        assert_eq!((t, n), (text, tokens));
    }
}

#[test]
fn questions_and_options_that_make_no_sense() {
    let head = question_answering();
    let long = "was in the house ".repeat(20);
    let default = AnswerOptions::default;
    for (question, context, options, name) in [
        ("", "a", default(), "question"),
        ("a", "", default(), "context"),
        ("a", " \t\n\u{200B}", default(), "context"),
        ("a", "b", default().max_answer_len(0), "max_answer_len"),
        ("a", "b", default().max_seq_len(129), "max_seq_len"),
        ("a", "b", default().max_seq_len(5), "max_seq_len"),
        ("a", "b", default().max_seq_len(0), "max_seq_len"),
        (&long.repeat(9), "b", default(), "max_seq_len"),
        ("a", &long, default().max_seq_len(20).doc_stride(15), "doc_stride"),
        ("a", &long, default().doc_stride(usize::MAX), "doc_stride"),
    ] {
        let error = head.answer_with(question, context, &options).unwrap_err();
        assert!(matches!(&error, Error::Option { option, .. } if *option == name), "{error:?}");
    }
    assert!(head.answer_with("a", "b", &default().max_seq_len(6)).is_ok());
    assert!(head.answer_with("a", &long, &default().max_seq_len(20).doc_stride(14)).is_ok());

    let head = token_classification();
    let simple = TokenClassificationOptions::default().aggregation(AggregationStrategy::Simple);
    for options in [TokenClassificationOptions::default().stride(5), simple.stride(126)] {
        let result = head.classify_with(&[&long.repeat(9)], &options);
        assert_error!(result, Error::Option { option: "stride", .. }, "stride");
    }

    let head = multiple_choice();
    let none: [&str; 0] = [];
    assert_error!(head.choose("a", &none), Error::Option { option: "choices", .. }, "none");
    let batch = Batch::new(&[[0, 5, 2], [0, 6, 2], [0, 7, 2]], head.model().config()).unwrap();
    for choices in [0, 2, 4] {
        let result = head.forward(&batch, choices);
        assert_error!(result, Error::Option { option: "num_choices", .. }, "3 pairs");
    }
}

#[test]
fn arrays_and_batches_of_another_model() {
    let head = sequence_classification();
    let larger = r#"{"model_type": "mpnet", "vocab_size": 9999, "hidden_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
        "layer_norm_eps": 1e-5, "max_position_embeddings": 999}"#;
    let larger = mpnet::Config::from_json(larger, "config.json").unwrap();
    let batch = Batch::new(&[[0, 700, 2]], &larger).unwrap();
    assert_error!(
        head.forward(&batch),
        Error::Text { problem: TextProblem::TokenId { id: 700, .. }, .. },
        "700"
    );
    let batch = Batch::new(&[vec![0; 200]], &larger).unwrap();
    assert_error!(
        head.forward(&batch),
        Error::Text { problem: TextProblem::TooLong { tokens: 200, .. }, .. },
        "200"
    );

    let batch = Batch::new(&[[0, 5, 2]], head.model().config()).unwrap();
    for (hidden, problem) in [
        (Array2::zeros((3, 31)), "width 31"),
        (Array2::zeros((2, 32)), "2 rows"),
        (Array2::from_elem((3, 32), f32::NAN), "NaN at (0, 0)"),
    ] {
        let result = head.logits(&hidden, &batch);
        assert_error!(result, Error::Option { option: "hidden", .. }, problem);
    }
    let wide = Array2::zeros((1, 33));
    assert!(masked_lm().logits(&wide).is_err());
    assert!(token_classification().logits(&wide).is_err());
    assert!(question_answering().logits(&wide).is_err());
    // Nothing in, nothing out.
    let none: [[u32; 0]; 0] = [];
    let batch = Batch::new(&none, head.model().config()).unwrap();
    assert_eq!(head.forward(&batch).unwrap().dim(), (0, 3));
    assert_eq!(masked_lm().forward(&batch).unwrap().dim(), (0, 605));
    assert_eq!(multiple_choice().forward(&batch, 4).unwrap().dim(), (0, 4));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the text, ranges cut it.
    #[test]
    fn ranges_cut_any_text(texts in proptest::collection::vec("\\PC{0,20}|[a-z <>/é한\u{301}½ß\n]{0,20}", 1..4)) {
        let tagger = token_classification();
        for strategy in [AggregationStrategy::None, AggregationStrategy::Average] {
            let options = TokenClassificationOptions::default().aggregation(strategy);
            for (text, entities) in texts.iter().zip(tagger.classify_with(&texts, &options).unwrap()) {
                for entity in entities {
                    prop_assert!(text.get(entity.range.clone()).is_some(), "{:?}", entity);
                }
            }
        }
        let options = AnswerOptions::default().top_k(5);
        match question_answering().answer_with("who?", &texts[0], &options) {
            Ok(answers) => for answer in answers {
                prop_assert_eq!(texts[0].get(answer.range), Some(answer.text.as_str()));
            },
            Err(error) => {
                let empty = matches!(error, Error::Option { option: "context", .. });
                prop_assert!(empty, "{}", error);
            }
        }
    }
}
