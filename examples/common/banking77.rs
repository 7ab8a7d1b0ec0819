//! Banking77: questions to a bank, each with one of 77 intents.

use std::fs;
use std::path::{Path, PathBuf};

use super::Result;

/// Texts and the intent of each.
#[derive(Debug, Default)]
pub struct Labelled {
    pub texts: Vec<String>,
    pub labels: Vec<String>,
}

/// `examples/data/banking77/name.csv`, or another file of that form: a header, then
/// `text,category`.
pub fn read(file: &Path) -> Result<Labelled> {
    let name = file.display();
    let text =
        fs::read_to_string(file).map_err(|error| format!("cannot read `{name}`: {error}"))?;
    let mut labelled = Labelled::default();
    for (row, record) in (1..).zip(records(&text)) {
        let [text, label] = <[String; 2]>::try_from(record)
            .map_err(|record| format!("`{name}`: row {row} has {} fields, not 2", record.len()))?;
        if row > 1 {
            labelled.texts.push(text);
            labelled.labels.push(label);
        }
    }
    if labelled.texts.is_empty() {
        return Err(format!("`{name}` has no texts").into());
    }
    Ok(labelled)
}

/// The file of this name that ships with the examples.
pub fn shipped(name: &str) -> PathBuf {
    super::shipped("banking77").join(name)
}

/// The rows of a CSV file (RFC 4180): a field in quotation marks may have commas and line breaks in
/// it, and quotation marks doubled.
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            c => field.push(c),
        }
    }
    if !field.is_empty() || !record.is_empty() {
        record.push(field);
        records.push(record);
    }
    records
}
