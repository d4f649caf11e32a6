//! What the machine does now: its clock on the wall, its load, its battery.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::{CoreLoad, DAY_MINUTES};

/// Where Linux tells of batteries and mains.
const SUPPLIES: &str = "/sys/class/power_supply";
/// The most entries that are looked at there: a machine has a handful.
const SUPPLIES_MAX: usize = 64;

/// What the rules of a pause are held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Readings {
    /// The minute of the day, by the machine's local time.
    pub(crate) minute: u16,
    /// The load of the last minute per core, everything included. `None`: the machine does not say.
    pub(crate) load: Option<CoreLoad>,
    /// Whether it runs on its battery. `None`: the machine does not say, or has none.
    pub(crate) on_battery: Option<bool>,
}

impl Readings {
    /// Looks. It reads a few small files.
    pub(crate) fn take() -> Self {
        Self {
            minute: local_minute(),
            load: Some(load()),
            on_battery: on_battery(&supplies(Path::new(SUPPLIES))),
        }
    }
}

fn local_minute() -> u16 {
    unsafe extern "C" {
        fn tzset();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = libc::time_t::try_from(now.as_secs()).unwrap_or(0);
    // SAFETY: all zeros are a `tm`: numbers, and a pointer that is not read.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both take no more than the two places that they are given. The zone is read anew first, since
    // machines travel; nothing in this process changes the environment that it is read from.
    let done = unsafe {
        tzset();
        !libc::localtime_r(&raw const seconds, &raw mut local).is_null()
    };
    let minute = if done {
        local.tm_hour * 60 + local.tm_min
    } else {
        0
    };
    u16::try_from(minute).unwrap_or(0) % DAY_MINUTES
}

fn load() -> CoreLoad {
    // Fixed point, 16 bits behind it.
    let loads = rustix::system::sysinfo().loads;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let thousandths = (loads[0].saturating_mul(1_000) >> 16) / cores;
    CoreLoad(u32::try_from(thousandths).unwrap_or(u32::MAX))
}

/// One entry of the kernel's list.
#[derive(Debug, Default, PartialEq, Eq)]
struct Supply {
    kind: String,
    online: Option<bool>,
    status: String,
    /// "Device" for the batteries of mice and the like.
    scope: String,
}

fn supplies(folder: &Path) -> Vec<Supply> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let supply = |entry: fs::DirEntry| {
        let text = |name: &str| {
            fs::read_to_string(entry.path().join(name))
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        Supply {
            kind: text("type"),
            online: text("online").parse::<u8>().ok().map(|online| online > 0),
            status: text("status"),
            scope: text("scope"),
        }
    };
    entries.take(SUPPLIES_MAX).map(supply).collect()
}

/// Whether the machine runs on its battery, if it has one.
fn on_battery(supplies: &[Supply]) -> Option<bool> {
    let batteries = supplies
        .iter()
        .filter(|supply| supply.kind == "Battery" && supply.scope != "Device");
    let discharging = batteries.clone().any(|battery| battery.status == "Discharging");
    let has_battery = batteries.count() > 0;
    let mains = supplies
        .iter()
        .filter(|supply| supply.kind != "Battery")
        .filter_map(|supply| supply.online);
    let plugged = mains.reduce(|any, online| any || online);
    match (has_battery, plugged) {
        (false, _) => None,
        // A weak supply may not stop the battery from being used: it is mains all the same.
        (true, Some(plugged)) => Some(!plugged),
        (true, None) => Some(discharging),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    /// A folder as the kernel has it: supplies with their files.
    fn machine(entries: &[(&str, &[(&str, &str)])]) -> Option<bool> {
        let folder = tempfile::tempdir().unwrap();
        for (name, files) in entries {
            let supply = folder.path().join(name);
            fs::create_dir(&supply).unwrap();
            for (file, text) in *files {
                fs::write(supply.join(file), format!("{text}\n")).unwrap();
            }
        }
        on_battery(&supplies(folder.path()))
    }

    #[test]
    fn a_laptop_says_where_its_power_comes_from() {
        let battery: (&str, &[(&str, &str)]) = ("BAT0", &[("type", "Battery"), ("status", "Discharging")]);
        let full: (&str, &[(&str, &str)]) = ("BAT0", &[("type", "Battery"), ("status", "Full")]);
        let mains = |online| ("AC", [("type", "Mains"), ("online", online)]);
        let (plugged, unplugged) = (mains("1"), mains("0"));
        assert_eq!(machine(&[battery, (unplugged.0, &unplugged.1)]), Some(true));
        assert_eq!(machine(&[full, (unplugged.0, &unplugged.1)]), Some(true));
        assert_eq!(machine(&[battery, (plugged.0, &plugged.1)]), Some(false));
        assert_eq!(machine(&[battery]), Some(true));
        assert_eq!(machine(&[full]), Some(false));
    }

    #[test]
    fn a_machine_without_a_battery_does_not_say() {
        assert_eq!(machine(&[]), None);
        assert_eq!(machine(&[("AC", &[("type", "Mains"), ("online", "0")])]), None);
        let mouse = [
            ("type", "Battery"),
            ("status", "Discharging"),
            ("scope", "Device"),
        ];
        assert_eq!(machine(&[("hidpp", &mouse)]), None);
        assert_eq!(on_battery(&supplies(Path::new("/nowhere"))), None);
    }

    #[test]
    fn the_time_of_day_is_the_one_that_the_machine_shows() {
        let minute = || {
            let date = std::process::Command::new("date")
                .arg("+%H:%M")
                .output()
                .unwrap()
                .stdout;
            let text = String::from_utf8(date).unwrap();
            let (hours, minutes) = text.trim().split_once(':').unwrap();
            hours.parse::<u16>().unwrap() * 60 + minutes.parse::<u16>().unwrap()
        };
        // It may become the next minute between the two.
        let (before, here, after) = (minute(), Readings::take().minute, minute());
        assert!([before, after].contains(&here), "{before} {here} {after}");
    }
}
