//! An answer's bytes as the command line gives them.

use bytes::Bytes;
use data_encoding::BASE64;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::output::Output;

/// An answer in a document: as JSON if it is JSON, in base64 otherwise.
#[derive(Debug, Serialize)]
pub(crate) struct AnswerDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_base64: Option<String>,
}

impl AnswerDocument {
    /// The answer's digits and order of keys stay as the function wrote them.
    pub(crate) fn of(output: &[u8]) -> Self {
        match as_json(output) {
            Some(json) => Self {
                output: Some(json),
                output_base64: None,
            },
            None => Self {
                output: None,
                output_base64: Some(BASE64.encode(output)),
            },
        }
    }
}

fn as_json(output: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(output).ok()?;
    RawValue::from_string(text.to_owned()).ok()
}

/// Writes an answer to stdout as it is; JSON gets a newline.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn write(out: &Output, output: &Bytes, content_type: &str) -> Result<(), Failure> {
    out.bytes(output)?;
    let json = content_type.starts_with("application/json") && as_json(output).is_some();
    if json && !output.ends_with(b"\n") {
        out.bytes(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    fn document(output: &[u8]) -> String {
        serde_json::to_string(&AnswerDocument::of(output)).unwrap()
    }

    #[test]
    fn json_stays_as_it_was_written() {
        let text = "{\"b\":1.0,\"a\":12345678901234567890}";
        assert_eq!(document(text.as_bytes()), format!("{{\"output\":{text}}}"));
    }

    #[test]
    fn other_bytes_come_in_base64() {
        assert_eq!(document(b"hello"), "{\"output_base64\":\"aGVsbG8=\"}");
        assert_eq!(document(b""), "{\"output_base64\":\"\"}");
        assert_eq!(document(&[0xff]), "{\"output_base64\":\"/w==\"}");
    }
}
