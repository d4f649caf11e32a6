//! Who is let in, as an operator writes it.

use clap::ValueEnum;
use serde::Deserialize;

use crate::failure::Failure;

/// Who is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission<Id> {
    /// Everybody.
    Open,
    /// These.
    List(Vec<Id>),
    /// These, and whoever shows one of these invitations.
    Invite {
        /// Who needs no invitation.
        list: Vec<Id>,
        /// The invitations.
        invites: Vec<String>,
    },
}

/// Which rule says who is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Policy {
    /// Everybody
    Open,
    /// Only those on the list
    List,
    /// Those on the list, and whoever shows an invitation
    Invite,
}

/// Takes out of a lower layer what a policy above it has no use for: whoever says `--owners open` means
/// it, whatever list the file has.
pub(super) fn overrule<Id>(policy: Option<Policy>, list: &mut Vec<Id>, invites: &mut Vec<String>) {
    match policy {
        None | Some(Policy::Invite) => {}
        Some(Policy::List) => invites.clear(),
        Some(Policy::Open) => {
            list.clear();
            invites.clear();
        }
    }
}

/// The policy with its lists.
///
/// # Errors
/// They contradict each other.
pub(super) fn admission<Id>(
    who: &str,
    policy: Option<Policy>,
    list: Vec<Id>,
    invites: Vec<String>,
) -> Result<Admission<Id>, Failure> {
    let contradiction = |text: String| Err(Failure::config(text));
    match policy {
        None | Some(Policy::Open) if !list.is_empty() || !invites.is_empty() => contradiction(format!(
            "there is a list of {who}s or of their invitations, but the policy for {who}s is \"open\": say --{who}s list or --{who}s invite"
        )),
        None | Some(Policy::Open) => Ok(Admission::Open),
        Some(Policy::List) if !invites.is_empty() => contradiction(format!(
            "there are invitations for {who}s, but the policy for {who}s is \"list\": say --{who}s invite"
        )),
        Some(Policy::List) => Ok(Admission::List(list)),
        Some(Policy::Invite) => Ok(Admission::Invite { list, invites }),
    }
}
