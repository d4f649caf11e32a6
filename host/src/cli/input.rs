//! A function's input as the command line takes it: JSON text, or `-` for stdin.

use std::io::Read;

use bytes::Bytes;
use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::manifest::Kind;

use crate::failure::Failure;

/// The most that is read from stdin, in bytes: four times the most that a host takes unless its
/// operator says otherwise. A function's own limit is checked once it is known.
const STDIN_BYTES_MAX: u64 = 256 << 20;

/// The input as it was given; `None` if there was none.
///
/// # Errors
/// When stdin cannot be read, or has more than any function takes.
pub(crate) fn read(argument: Option<&str>) -> Result<Option<Bytes>, Failure> {
    match argument {
        None => Ok(None),
        Some("-") => stdin().map(Some),
        Some(text) => Ok(Some(Bytes::copy_from_slice(text.as_bytes()))),
    }
}

fn stdin() -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(STDIN_BYTES_MAX + 1)
        .read_to_end(&mut bytes);
    read.map_err(|error| Failure::local(format!("cannot read the input from stdin: {error}")))?;
    if bytes.len() as u64 > STDIN_BYTES_MAX {
        return Err(too_large(bytes.len(), STDIN_BYTES_MAX));
    }
    Ok(bytes.into())
}

/// The input that a function of this kind gets, checked: JSON for a JavaScript function (`null` if
/// there is none), and not longer than its limit.
///
/// # Errors
/// `InputInvalid` and `InputTooLarge`.
pub(crate) fn check(input: Option<Bytes>, kind: Kind, input_bytes_max: u64) -> Result<Bytes, Failure> {
    let input = match (input, kind) {
        (Some(input), _) => input,
        (None, Kind::JavyFunction) => Bytes::from_static(b"null"),
        (None, _) => Bytes::new(),
    };
    if input.len() as u64 > input_bytes_max {
        return Err(too_large(input.len(), input_bytes_max));
    }
    if kind == Kind::JavyFunction
        && let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&input)
    {
        let message = format!("the input is not JSON ({error}), and this function takes JSON");
        return Err(Fault::new(FaultKind::InputInvalid, message).into());
    }
    Ok(input)
}

fn too_large(bytes: usize, limit: u64) -> Failure {
    let message = if bytes as u64 > STDIN_BYTES_MAX {
        format!("stdin has more than {limit} bytes, which is more than any function takes")
    } else {
        format!("the input has {bytes} bytes, and the function takes {limit}")
    };
    Fault::new(FaultKind::InputTooLarge, message).into()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    fn text(input: &str, kind: Kind) -> Result<Bytes, Failure> {
        check(read(Some(input)).unwrap(), kind, 100)
    }

    #[test]
    fn a_javascript_function_gets_json() {
        assert_eq!(text("{\"a\": 1}", Kind::JavyFunction).unwrap(), "{\"a\": 1}");
        assert_eq!(check(None, Kind::JavyFunction, 100).unwrap(), "null");
        let failure = text("{'a': 1}", Kind::JavyFunction).unwrap_err();
        assert_eq!((failure.kind, failure.exit), ("input_invalid", 2));
        assert!(failure.message.contains("line 1 column 2"), "{failure}");
        assert_eq!(text("", Kind::JavyFunction).unwrap_err().kind, "input_invalid");
    }

    #[test]
    fn others_get_bytes() {
        assert_eq!(text("{'a': 1}", Kind::Command).unwrap(), "{'a': 1}");
        assert_eq!(check(None, Kind::JavyScript, 100).unwrap(), "");
    }

    #[test]
    fn the_limit_is_checked_here() {
        let failure = text(&"1".repeat(101), Kind::Command).unwrap_err();
        assert_eq!((failure.kind, failure.exit), ("input_too_large", 2));
        assert!(
            failure.message.contains("101 bytes, and the function takes 100"),
            "{failure}"
        );
    }
}
