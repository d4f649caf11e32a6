//! Landlock: no file, no TCP port, no signal to others, whatever the system calls.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError,
    RulesetStatus, Scope,
};

use super::State;

/// What is asked for: all that Linux 6.12 can take away. Older kernels take away what they know.
const ABI_WANTED: ABI = ABI::V6;

pub(super) fn restrict() -> State {
    match try_restrict() {
        Ok(RulesetStatus::FullyEnforced) => State::Up,
        Ok(RulesetStatus::PartiallyEnforced) => State::Partly(
            "the kernel knows only files of it (Linux 6.12 knows networks and signals too)".to_owned(),
        ),
        Ok(RulesetStatus::NotEnforced) => State::Missing(
            "the kernel has none (Linux 5.13 and later, with `landlock` among its LSMs)".to_owned(),
        ),
        Err(error) => State::Missing(error.to_string()),
    }
}

/// Everything is handled and nothing is allowed. What is open already stays so.
fn try_restrict() -> Result<RulesetStatus, RulesetError> {
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI_WANTED))?
        .handle_access(AccessNet::from_all(ABI_WANTED))?
        .scope(Scope::from_all(ABI_WANTED))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset)
}
