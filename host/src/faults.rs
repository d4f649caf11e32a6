//! How a guest's fault is told to its caller: the sandbox's words become the protocol's taxonomy.
//!
//! Hosts and `orb run` share this, so that a function fails at home exactly as it does elsewhere.

use orb_protocol::fault::{Fault, FaultKind};
use orb_runtime::{GuestFault, Location};

/// The fault that a caller gets: what happened, and what to do about it.
pub(crate) fn from_guest(fault: &GuestFault) -> Fault {
    let said = Fault::new(kind(fault), message(fault)).help(help(fault));
    match fault {
        GuestFault::Thrown {
            stack: Some(stack), ..
        } => said.stack(stack.clone()),
        GuestFault::Exit { code } => Fault {
            // The wire has room for a Windows host's negative codes; WASI's are unsigned and wrap.
            exit_code: Some(code.cast_signed()),
            ..said
        },
        _ => said,
    }
}

fn kind(fault: &GuestFault) -> FaultKind {
    match fault {
        GuestFault::Trap { .. } => FaultKind::Trap,
        GuestFault::Exit { .. } => FaultKind::ExitCode,
        GuestFault::Thrown { .. } => FaultKind::Thrown,
        GuestFault::UnsettledPromise => FaultKind::UnsettledPromise,
        GuestFault::BadOutput { .. } => FaultKind::BadOutput,
        GuestFault::InputInvalid { .. } => FaultKind::InputInvalid,
        GuestFault::InputTooLarge { .. } => FaultKind::InputTooLarge,
        GuestFault::Fuel { .. } => FaultKind::FuelExhausted,
        GuestFault::Memory { .. } => FaultKind::MemoryLimit,
        GuestFault::Time { .. } => FaultKind::TimeLimit,
        GuestFault::Deadline => FaultKind::DeadlineExceeded,
        GuestFault::Output { .. } => FaultKind::OutputLimit,
        GuestFault::Compile { .. } => FaultKind::CompileLimit,
        GuestFault::Refused { .. } => FaultKind::Refused,
        GuestFault::Artifact { .. } => FaultKind::Unverified,
        GuestFault::Lost { .. } => FaultKind::HostLost,
        GuestFault::Internal { .. } => FaultKind::Internal,
    }
}

/// The sandbox's own sentence, but for what was thrown: there the place comes first, as compilers
/// and editors have it.
fn message(fault: &GuestFault) -> String {
    match fault {
        GuestFault::Thrown {
            message,
            location: Some(Location { file, line, column }),
            ..
        } => match column {
            0 => format!("{file}:{line}: {message}"),
            column => format!("{file}:{line}:{column}: {message}"),
        },
        GuestFault::Thrown { message, .. } => format!("the function threw {message}"),
        other => other.to_string(),
    }
}

fn help(fault: &GuestFault) -> String {
    let raise = |what: &str, name: &str, limit: &u64| {
        format!(
            "make the function {what}, or raise `{name}` (now {limit}) under [limits] in orb.toml and deploy"
        )
    };
    match fault {
        GuestFault::Trap { .. } => {
            "the function ran into an error that it cannot catch; `orb run` gives the same input to it here"
                .to_owned()
        }
        GuestFault::Exit { .. } => {
            "what the function wrote to stderr is in its log; `orb run` shows it beside the exit code".to_owned()
        }
        GuestFault::Thrown { .. } => {
            "catch it in the function, or give it another input; `orb run` gives the same input to it here"
                .to_owned()
        }
        GuestFault::UnsettledPromise => {
            "the function awaits something that nothing will resolve; look for a promise whose callbacks are never called"
                .to_owned()
        }
        GuestFault::BadOutput { .. } => {
            "return what JSON can hold: no BigInt, no cycle, no function by itself".to_owned()
        }
        GuestFault::InputInvalid { .. } => {
            "a JavaScript function takes JSON: quote a plain text as '\"text\"'".to_owned()
        }
        GuestFault::InputTooLarge { limit } => {
            format!("send less, or have the owner raise `input_bytes` (now {limit}) under [limits] in orb.toml and deploy")
        }
        GuestFault::Fuel { limit } => raise("do less", "fuel", limit),
        GuestFault::Memory { limit } => raise("hold less", "memory_bytes", limit),
        GuestFault::Time { limit_ms } => raise("faster", "time_ms", limit_ms),
        GuestFault::Output { limit } => raise("answer less", "output_bytes", limit),
        GuestFault::Deadline => {
            "the function may have done part of its work; give it longer with --timeout".to_owned()
        }
        GuestFault::Compile { .. } => {
            "build the module smaller: optimize for size, strip it, split what is generated".to_owned()
        }
        GuestFault::Refused { .. } => "build it again with this version of orb, and deploy".to_owned(),
        GuestFault::Artifact { .. } => {
            "nothing of it was run; the host fetches the artifact again, other hosts may have a good one"
                .to_owned()
        }
        GuestFault::Lost { .. } => {
            "the call may have run: call again if that does no harm, or make the function idempotent".to_owned()
        }
        GuestFault::Internal { .. } => "see the log of the host; another host may do better".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thrown(location: Option<Location>) -> GuestFault {
        GuestFault::Thrown {
            message: "TypeError: not a function".to_owned(),
            stack: Some("at inner (index.js:3:9)".to_owned()),
            location,
        }
    }

    fn every_fault() -> Vec<GuestFault> {
        let message = || "why".to_owned();
        vec![
            GuestFault::Trap { message: message() },
            GuestFault::Exit { code: 3 },
            thrown(None),
            GuestFault::UnsettledPromise,
            GuestFault::BadOutput { message: message() },
            GuestFault::InputInvalid { message: message() },
            GuestFault::InputTooLarge { limit: 7 },
            GuestFault::Fuel { limit: 7 },
            GuestFault::Memory { limit: 7 },
            GuestFault::Time { limit_ms: 7 },
            GuestFault::Deadline,
            GuestFault::Output { limit: 7 },
            GuestFault::Compile { message: message() },
            GuestFault::Refused { message: message() },
            GuestFault::Artifact { message: message() },
            GuestFault::Internal { message: message() },
        ]
    }

    #[test]
    fn each_has_a_kind_of_its_own_and_says_what_to_do() {
        let mut kinds: Vec<FaultKind> = Vec::new();
        for fault in every_fault() {
            let told = from_guest(&fault);
            assert!(!kinds.contains(&told.kind), "{fault:?}");
            assert!(!told.help.is_empty(), "{fault:?}");
            kinds.push(told.kind);
        }
    }

    #[test]
    fn what_was_thrown_comes_with_its_place_and_its_stack() {
        let place = |column| {
            Some(Location {
                file: "index.js".to_owned(),
                line: 3,
                column,
            })
        };
        let fault = from_guest(&thrown(place(9)));
        assert_eq!(fault.message, "index.js:3:9: TypeError: not a function");
        assert_eq!(fault.stack.as_deref(), Some("at inner (index.js:3:9)"));
        assert_eq!(
            from_guest(&thrown(place(0))).message,
            "index.js:3: TypeError: not a function"
        );
        assert_eq!(
            from_guest(&thrown(None)).message,
            "the function threw TypeError: not a function"
        );
    }

    #[test]
    fn limits_are_named_with_their_key_in_orb_toml() {
        let fault = from_guest(&GuestFault::Fuel { limit: 1_000 });
        assert!(fault.message.contains("1000 units of fuel"), "{fault}");
        assert!(fault.help.contains("`fuel` (now 1000)"), "{}", fault.help);
        assert_eq!(from_guest(&GuestFault::Exit { code: 3 }).exit_code, Some(3));
    }
}
