//! Two devices of one owner that used one number for different revisions.
//!
//! A super node takes the one that comes first, and tells the other. Where two super nodes took one each,
//! the join decides by hash ([`crate::manifest::Rank`]), and everywhere in the same way.

use crate::fault::{Fault, FaultKind};
use crate::manifest::Verified;

/// What is shown of a revision's message, in characters: a line.
const MESSAGE_SHOWN_MAX: usize = 60;

/// Whether two manifests are different revisions of one number. A tombstone has no rival: it ends every
/// revision of its life.
pub fn are_rivals(one: &Verified, other: &Verified) -> bool {
    let publish = one.publish().is_some() && other.publish().is_some();
    publish
        && one.function() == other.function()
        && one.version() == other.version()
        && one.hash() != other.hash()
}

/// The fault for whoever lost to `winner`, where `live` is live now.
pub fn taken(winner: &Verified, live: &Verified) -> Fault {
    let message = format!(
        "another device published revision {} ({}{}) meanwhile: yours is not live",
        winner.version().revision,
        note(winner),
        winner.hash().short()
    );
    let next = live.version().revision.saturating_add(1);
    let help = format!(
        "deploy again to make it revision {next}; `orb versions {}` shows what is live",
        winner.manifest().name
    );
    Fault::new(FaultKind::Refused, message).help(help)
}

/// The owner's note, if there is one, fit for a line.
fn note(manifest: &Verified) -> String {
    let message = &manifest.manifest().message;
    let line: String = message
        .chars()
        .take_while(|char| !char.is_control())
        .take(MESSAGE_SHOWN_MAX)
        .collect();
    match line.trim() {
        "" => String::new(),
        line => format!("{line:?}, "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::OwnerKey;
    use crate::manifest::{Action, Manifest};
    use crate::testing::{manifest, publish};

    fn revision(number: u64, content: u8) -> Verified {
        manifest(&OwnerKey::from_seed([1; 32]), "a", 0, number, publish(content))
    }

    #[test]
    fn rivals_have_one_number_and_different_content() {
        let end = Action::Decommission(Default::default());
        let tombstone = manifest(&OwnerKey::from_seed([1; 32]), "a", 0, 7, end);
        assert!(are_rivals(&revision(7, 1), &revision(7, 2)));
        for other in [revision(7, 1), revision(8, 1), tombstone] {
            assert!(!are_rivals(&revision(7, 1), &other), "{other:?}");
        }
    }

    #[test]
    fn the_loser_is_told_who_won_and_what_to_do() {
        let key = OwnerKey::from_seed([1; 32]);
        let spoken = Manifest {
            message: "in French\u{1b}[31m\nand more".to_owned(),
            ..revision(7, 1).manifest().clone()
        };
        let winner = spoken
            .sign(&key)
            .and_then(|signed| signed.verify())
            .expect("it is within bounds");
        let fault = taken(&winner, &revision(9, 1));
        let hash = winner.hash().short();
        assert_eq!(
            fault.message,
            format!(
                "another device published revision 7 (\"in French\", {hash}) meanwhile: yours is not live"
            )
        );
        assert!(
            fault.help.starts_with("deploy again to make it revision 10"),
            "{fault:?}"
        );
        let silent = taken(&revision(7, 1), &revision(7, 1)).message;
        assert!(silent.contains(&format!(
            "revision 7 ({}) meanwhile",
            revision(7, 1).hash().short()
        )));
    }
}
