//! What a newer peer may send to this one.

use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::manifest::{Action, Kind};
use orb_protocol::wire::codec::{self, DecodeError};
use orb_protocol::wire::control::{Beat, HostMessage, PAUSE_REASON_LEN_MAX, PAUSED, SuperMessage};
use orb_protocol::wire::directory::ReplicaState;
use orb_protocol::wire::events::EventKind;
use orb_protocol::wire::extension::{CRITICAL, EXTENSIONS_MAX, Extensions};
use orb_protocol::wire::tagged::Tagged;
use orb_protocol::wire::{Reply, Request};

use crate::samples::{self, Sample};

/// A message as a newer peer sends it: with extensions where this version has none.
fn extended(sample: &Sample, extensions: &Extensions) -> Vec<u8> {
    let (end, start) = sample.bytes.split_last().expect("a message has bytes");
    assert_eq!(*end, 0, "{} ends in no extensions", sample.name);
    [start, &codec::encode(extensions)].concat()
}

fn unknown_tag() -> Tagged {
    Tagged {
        tag: 999,
        payload: vec![1, 2, 3],
    }
}

#[test]
fn an_unknown_extension_is_kept_in_every_message() {
    let extensions = Extensions::none()
        .with(0x1234, b"new".to_vec())
        .with(7, Vec::new());
    for sample in samples::messages() {
        let bytes = extended(&sample, &extensions);
        assert_eq!((sample.recode)(&bytes), Ok(bytes), "{}", sample.name);
    }
}

#[test]
fn an_unknown_critical_extension_refuses_every_message() {
    let kind = CRITICAL | 0x1234;
    let extensions = Extensions::none().with(7, Vec::new()).with(kind, b"new".to_vec());
    for sample in samples::messages() {
        let bytes = extended(&sample, &extensions);
        assert_eq!(
            (sample.recode)(&bytes),
            Err(DecodeError::CriticalExtension(kind)),
            "{}",
            sample.name
        );
    }
}

#[test]
fn a_critical_extension_is_found_inside_a_request_and_inside_a_reply() {
    let kind = CRITICAL | 1;
    let fault = Fault {
        extensions: Extensions::none().with(kind, Vec::new()),
        ..Fault::new(FaultKind::Trap, "")
    };
    let reply = codec::decode::<Reply>(&codec::encode(&Reply::fault(fault)));
    assert_eq!(reply, Err(DecodeError::CriticalExtension(kind)));

    let info = orb_protocol::wire::Info {
        extensions: Extensions::none().with(kind, Vec::new()),
    };
    let request = codec::decode::<Request>(&codec::encode(&Request::from(info.clone())));
    assert_eq!(request, Err(DecodeError::CriticalExtension(kind)));

    let answer: Result<orb_protocol::wire::Info, Fault> = Reply::ok(&info).into_result();
    assert_eq!(
        answer.map_err(|fault| fault.kind),
        Err(FaultKind::VersionMismatch)
    );
}

#[test]
fn more_extensions_than_anybody_needs_refuse_a_message() {
    let many = |count| (0..count).fold(Extensions::none(), |all, kind| all.with(kind, Vec::new()));
    let most = u16::try_from(EXTENSIONS_MAX).expect("a small number");
    let sample = &samples::messages()[0];
    assert!((sample.recode)(&extended(sample, &many(most))).is_ok());
    assert!(matches!(
        (sample.recode)(&extended(sample, &many(most + 1))),
        Err(DecodeError::Malformed(_))
    ));
}

#[test]
fn an_unknown_variant_is_kept() {
    let bytes = codec::encode(&unknown_tag());
    macro_rules! check {
        ($($name:ident),+) => { $(
            let message: $name = codec::decode(&bytes).expect(stringify!($name));
            assert_eq!(message, $name::Unknown(unknown_tag()));
            assert_eq!(codec::encode(&message), bytes);
        )+ };
    }
    check!(Request, HostMessage, SuperMessage, Action);
}

#[test]
fn unknown_kinds_and_states_are_kept() {
    let bytes = codec::encode(&999u16);
    assert_eq!(codec::decode(&bytes), Ok(FaultKind::Unknown(999)));
    assert_eq!(codec::decode(&bytes), Ok(Kind::Unknown(999)));
    assert_eq!(codec::decode(&bytes), Ok(ReplicaState::Unknown(999)));
    assert_eq!(codec::decode(&bytes), Ok(EventKind::Unknown(999)));
    assert_eq!(codec::encode(&FaultKind::Unknown(999)), bytes);
    assert_eq!(codec::encode(&Kind::Unknown(999)), bytes);
    assert_eq!(codec::encode(&ReplicaState::Unknown(999)), bytes);
    assert_eq!(codec::encode(&EventKind::Unknown(999)), bytes);
}

#[test]
fn a_revision_whose_action_is_unknown_verifies_and_is_passed_on_as_it_came() {
    let mut manifest = samples::manifest(Action::Unknown(unknown_tag()));
    manifest.extensions = Extensions::none().with(0x1234, b"new".to_vec());
    let signed = manifest.sign(&samples::owner()).expect("within bounds");
    let verified = signed.clone().verify().expect("its signature holds");
    assert_eq!(verified.signed(), &signed);
    assert!(verified.publish().is_none() && !verified.is_tombstone());
}

#[test]
fn a_pause_is_told_in_a_beat_that_others_understand_without_it() {
    let beat = Beat {
        running: 1,
        waiting: 0,
        disk_free_bytes: 5,
        run_times_us: Vec::new(),
        failure_permille: 0,
        extensions: Extensions::none(),
    };
    assert_eq!(beat.pause(), None);
    let paused = beat.clone().paused("quiet hours\u{1b}[31m 22:00-07:00");
    // Not critical: whoever does not know it takes the beat as it is.
    assert_eq!(PAUSED & CRITICAL, 0);
    let bytes = codec::encode(&HostMessage::from(paused));
    let Ok(HostMessage::Beat(heard)) = codec::decode(&bytes) else {
        panic!("a beat is read")
    };
    assert_eq!(heard.pause().as_deref(), Some("quiet hours[31m 22:00-07:00"));
    let long = beat.paused(&"é".repeat(PAUSE_REASON_LEN_MAX)).pause();
    assert!(long.is_some_and(|reason| reason.len() <= PAUSE_REASON_LEN_MAX));
}
