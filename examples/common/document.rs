//! A document: prose in paragraphs, with an empty line between two of them.

use std::fs;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

use super::Result;

/// A text and where its lines begin.
pub struct Document {
    /// The text of the file, byte by byte, but for the line breaks inside paragraphs, which are
    /// spaces here: a sentence may run over several lines.
    pub text: String,
    line_starts: Vec<usize>,
}

impl Document {
    /// Reads `file`, or the document that ships with the examples.
    pub fn open(file: Option<PathBuf>) -> Result<Self> {
        let file = file.unwrap_or_else(|| super::shipped("honey_bees.txt"));
        let name = file.display();
        let text =
            fs::read_to_string(&file).map_err(|error| format!("cannot read `{name}`: {error}"))?;
        if text.trim().is_empty() {
            return Err(format!("`{name}` has no text").into());
        }
        Ok(Self::new(&text))
    }

    fn new(original: &str) -> Self {
        let (mut text, mut line_starts) = (String::with_capacity(original.len()), Vec::new());
        let mut lines = original.split_inclusive('\n').peekable();
        while let Some(line) = lines.next() {
            line_starts.push(text.len());
            let content = line.trim_end_matches(['\r', '\n']);
            text.push_str(content);
            let next = lines.peek().copied().unwrap_or_default();
            if content.trim().is_empty() || next.trim().is_empty() {
                text.push_str(&line[content.len()..]);
            } else {
                text.extend(line[content.len()..].chars().map(|_| ' '));
            }
        }
        Self { text, line_starts }
    }

    /// The bytes of each paragraph.
    pub fn paragraphs(&self) -> Vec<Range<usize>> {
        let (mut paragraphs, mut start) = (Vec::new(), 0);
        for line in self.text.split_inclusive('\n') {
            let content = line.trim_end();
            if !content.is_empty() {
                paragraphs.push(start..start + content.len());
            }
            start += line.len();
        }
        paragraphs
    }

    /// The lines of the file that these bytes stand in, from 1.
    pub fn lines(&self, bytes: &Range<usize>) -> RangeInclusive<usize> {
        let line_of = |byte: usize| self.line_starts.partition_point(|&start| start <= byte);
        line_of(bytes.start)..=line_of(bytes.end.saturating_sub(1))
    }

    /// These bytes counted in characters, as Python and editors do.
    pub fn characters(&self, bytes: &Range<usize>) -> Range<usize> {
        let start = self.text[..bytes.start].chars().count();
        start..start + self.text[bytes.clone()].chars().count()
    }
}
