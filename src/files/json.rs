//! [`parse_json`]: JSON as Python's `json` module reads it.
//!
//! Python's reader is laxer than RFC 8259 in three ways, and its writer makes use of the first:
//! `NaN`, `Infinity` and `-Infinity` are numbers, a `\ud800` without its other half is a character,
//! and of a key that occurs twice the last one counts. In all else it is as strict as `serde_json`:
//! no comments, no trailing commas or text, no byte order mark.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, FileProblem, Result};

/// The JSON text `bytes` as `T`; `file` names it in errors.
///
/// What Rust's types cannot hold is put in this way: an infinity is the largest number of its sign,
/// `NaN` the text `"NaN"`, which no field that wants a number accepts, and half of a surrogate pair
/// is U+FFFD.
///
/// # Errors
///
/// [`FileProblem::Json`](crate::FileProblem::Json), with line and column.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8], file: &str) -> Result<T> {
    let strict = match serde_json::from_slice(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    // Whatever this does not mend is told by the first error, which knows its place in the file.
    let lenient = serde_json::from_slice::<Value>(&without_extensions(bytes));
    let source = match lenient.and_then(T::deserialize) {
        Ok(value) => return Ok(value),
        // The text was mended, but what is in it is not a `T`.
        Err(error) if error.is_data() && (!strict.is_data() || is_repeated(&strict)) => error,
        Err(_) => strict,
    };
    Err(Error::File { file: file.to_owned(), problem: FileProblem::Json { source: source.into() } })
}

/// Whether a key occurs twice, which is an error of structs, but not of [`Value`].
fn is_repeated(error: &serde_json::Error) -> bool {
    error.to_string().starts_with("duplicate field")
}

/// `bytes` with Python's extensions replaced by JSON; the lines stay where they are.
fn without_extensions(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(&byte) = rest.first() {
        let (length, replacement) = match byte {
            b'"' => {
                let length = string_length(rest);
                (length, mended_string(&rest[..length]))
            }
            b'-' | b'0'..=b'9' | b'I' | b'N' => {
                let ends = |b: &u8| !b.is_ascii_alphanumeric() && !matches!(b, b'-' | b'+' | b'.');
                let length = rest.iter().position(ends).unwrap_or(rest.len()).max(1);
                (length, mended_number(&rest[..length]))
            }
            _ => (1, rest[..1].into()),
        };
        out.extend_from_slice(&replacement);
        rest = &rest[length..];
    }
    out.into()
}

/// The length of the string that `text` begins with, both quotes included.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

fn mended_number(token: &[u8]) -> Cow<'_, [u8]> {
    /// The largest `f64`.
    const LARGEST: &str = "1.7976931348623157e308";
    let text = std::str::from_utf8(token).unwrap_or_default();
    // A number that is too large is an infinity in Python, and an error of serde_json.
    let too_large = || text.parse().is_ok_and(f64::is_infinite) && text.contains(['e', 'E', '.']);
    match text {
        "NaN" => b"\"NaN\"".as_slice().into(),
        "Infinity" => LARGEST.as_bytes().into(),
        "-Infinity" => format!("-{LARGEST}").into_bytes().into(),
        _ if text.ends_with(|c: char| c.is_ascii_digit()) && too_large() => {
            let sign = if text.starts_with('-') { "-" } else { "" };
            format!("{sign}{LARGEST}").into_bytes().into()
        }
        _ => token.into(),
    }
}

/// A string in its quotes, with U+FFFD for every half of a surrogate pair that is alone.
fn mended_string(string: &[u8]) -> Cow<'_, [u8]> {
    if !string.windows(3).any(|three| matches!(three, [b'\\', b'u', b'd' | b'D'])) {
        return string.into();
    }
    let mut out = Vec::with_capacity(string.len());
    let mut rest = string;
    while !rest.is_empty() {
        let length = match (unit(rest), rest.get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                out.extend_from_slice(b"\\ufffd");
                rest = &rest[6..];
                continue;
            }
            // An escaped backslash is no beginning of an escape.
            _ if rest[0] == b'\\' => rest.len().min(2),
            _ => 1,
        };
        out.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
    }
    out.into()
}

/// The UTF-16 unit of the `\uXXXX` that `text` begins with.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'))?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    fn value(text: &str) -> Value {
        parse_json(text.as_bytes(), "x.json").unwrap()
    }

    #[derive(Debug, Deserialize)]
    struct Fields {
        a: Option<f64>,
        b: Option<String>,
    }

    fn fields(text: &str) -> Result<Fields> {
        parse_json(text.as_bytes(), "x.json")
    }

    /// What Python 3.11 reads in each.
    #[test]
    fn what_python_writes_and_reads() {
        assert_eq!(value(r#"{"x": [NaN, 1]}"#), json!({"x": ["NaN", 1]}));
        assert_eq!(value("[Infinity,-Infinity]"), json!([f64::MAX, -f64::MAX]));
        assert_eq!(value("[1e999,-1E+400]"), json!([f64::MAX, -f64::MAX]));
        assert_eq!(
            value(r#"["NaN", "\"Infinity", 1, NaN]"#),
            json!(["NaN", "\"Infinity", 1, "NaN"])
        );
        assert_eq!(
            value(r#"["\ud83d\ude00 \ud83d \\ud800 \uDE00"]"#),
            json!(["😀 \u{fffd} \\ud800 \u{fffd}"])
        );
        assert_eq!(value(r#"{"a": 1, "a": 2}"#), json!({"a": 2}));
        let twice = fields(r#"{"a": 1, "b": "x", "a": 2, "b": null}"#).unwrap();
        assert_eq!((twice.a, twice.b), (Some(2.0), None));
        let unread =
            fields(r#"{"a": Infinity, "loss": NaN, "history": [NaN, -Infinity, "\ud800"]}"#);
        assert_eq!(unread.unwrap().a, Some(f64::MAX));
    }

    #[test]
    fn what_python_refuses_too() {
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\": 1} x",
            "\u{feff}{}",
            "[nan]",
            "[-NaN]",
            "[+Infinity]",
            "[Infinity1]",
            "[01]",
            "[1.]",
            "[.5]",
            "[1e]",
            "[\"a\nb\"]",
            "['a']",
            "[NaN",
            "// a\n{}",
            "[\"\\ud8\"]",
            "[\"\\x\"]",
            "[\"NaN]",
            "[0x10]",
            "[1e999.]",
            "\"\\",
        ] {
            let read = parse_json::<Value>(text.as_bytes(), "x.json");
            assert!(
                matches!(&read, Err(Error::File { problem: FileProblem::Json { .. }, .. })),
                "{text}: {read:?}"
            );
        }
        assert!(parse_json::<Value>(b"[\"\xe9\"]", "x.json").is_err());
    }

    #[test]
    fn an_error_says_where() {
        let Err(Error::File { file, problem: FileProblem::Json { source } }) =
            fields("{\n  \"a\": \"many\"\n}")
        else {
            panic!()
        };
        let source = source.downcast_ref::<serde_json::Error>().unwrap();
        assert_eq!((&*file, source.line()), ("x.json", 2));
        // The field that is not a number, although the text around it had to be mended first.
        for text in [r#"{"a": NaN}"#, r#"{"a": 1, "a": "NaN", "c": NaN}"#] {
            let Err(Error::File { problem: FileProblem::Json { source, .. }, .. }) = fields(text)
            else {
                panic!("{text}")
            };
            assert!(source.to_string().contains("NaN"), "{source}");
        }
    }
}
