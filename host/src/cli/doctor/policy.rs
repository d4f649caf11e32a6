//! What a host on this machine would seed, and whether it would take anything now.

use std::path::Path;

use clap::{Args, Command, FromArgMatches};

use super::Check;
use crate::config::{self, ByteSize, DiskBudget, HostPolicy, NodeLayer};
use crate::failure::Failure;
use crate::format;
use crate::node::machine::Readings;
use crate::node::pause;

/// The policy that `orb node` would follow with this file and these variables.
pub(super) fn checks(file: Option<&Path>) -> Vec<Check> {
    match policy(file) {
        Ok(policy) => {
            let now = Readings::take();
            vec![seeds(&policy), takes(&policy, &now)]
                .into_iter()
                .chain(battery(&policy, &now))
                .collect()
        }
        Err(failure) => vec![Check::failed("policy", &failure)],
    }
}

fn policy(file: Option<&Path>) -> Result<HostPolicy, Failure> {
    let lower = file.map_or_else(|| Ok(NodeLayer::default()), config::read)?;
    environment()?.over(lower).policy()
}

/// The settings of a host node that variables give.
fn environment() -> Result<NodeLayer, Failure> {
    let matches = NodeLayer::augment_args(Command::new("node")).try_get_matches_from(["node"]);
    let layer = matches.and_then(|matches| NodeLayer::from_arg_matches(&matches));
    layer.map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        Failure::config(first.trim_start_matches("error: ")).help("mend the variable, or unset it")
    })
}

fn seeds(policy: &HostPolicy) -> Check {
    if policy.dry_run {
        let mend = "take out `dry_run` to seed functions";
        return Check::warning("policy", "a host seeds nothing: it is a dry run", mend);
    }
    let owners = match (policy.allow.len(), policy.deny.len()) {
        (0, 0) => "everybody".to_owned(),
        (0, denied) => format!("everybody but {}", format::count(denied, "owner")),
        (allowed, _) => format!("{} only", format::count(allowed, "owner")),
    };
    let room = ByteSize(DiskBudget::of(policy.disk_bytes_max).artifacts);
    let longest = ByteSize(policy.artifact_bytes_max);
    let full = match policy.evict {
        true => "when they are full, what nobody called for 10 minutes goes",
        false => "when they are full, further functions are refused",
    };
    Check::ok(
        "policy",
        format!("a host seeds functions of {owners}: artifacts up to {longest}, {room} together; {full}"),
    )
}

fn takes(policy: &HostPolicy, now: &Readings) -> Check {
    let rules = &policy.pauses;
    match pause::decide(rules, now, None) {
        Some(reason) => Check::warning(
            "pause",
            format!("a host would take nothing now: {reason}"),
            "nothing, if that is meant; else change `quiet_hours`, `only_on_mains` or `idle_load_max`",
        ),
        None if rules.is_empty() => Check::ok("pause", "a host would take calls at any time"),
        None => Check::ok(
            "pause",
            format!("a host would take calls now{}", conditions(policy, now)),
        ),
    }
}

/// What the rules say, each beside what is.
fn conditions(policy: &HostPolicy, now: &Readings) -> String {
    let rules = &policy.pauses;
    let mut text = String::new();
    if !rules.quiet_hours.is_empty() {
        let ranges: Vec<String> = rules.quiet_hours.iter().map(ToString::to_string).collect();
        let (hour, minute) = (now.minute / 60, now.minute % 60);
        text += &format!(
            "; it is {hour:02}:{minute:02}, quiet hours are {}",
            ranges.join(", ")
        );
    }
    if let (Some(most), Some(load)) = (rules.idle_load_max, now.load) {
        text += &format!("; the load is {load} per core, at most {most}");
    }
    if rules.only_on_mains {
        text += "; the machine does not run on a battery";
    }
    text
}

/// Where a rule cannot be held against anything.
fn battery(policy: &HostPolicy, now: &Readings) -> Option<Check> {
    (policy.pauses.only_on_mains && now.on_battery.is_none()).then(|| {
        Check::warning(
            "battery",
            "this machine does not say whether it runs on a battery: that counts as mains",
            "nothing, if it has none; else leave out `only_on_mains`, which does nothing here",
        )
    })
}
