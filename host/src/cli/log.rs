//! What goes to stderr as a log: `ORB_LOG`.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::failure::Failure;

/// The variable.
pub(super) const VARIABLE: &str = "ORB_LOG";

/// Begins to log. Daemons log what they do; commands only what goes wrong.
///
/// # Errors
/// The variable says something else than levels.
pub(super) fn start(daemon: bool) -> Result<(), Failure> {
    let usual = if daemon {
        LevelFilter::INFO
    } else {
        LevelFilter::ERROR
    };
    let wanted = std::env::var_os(VARIABLE).unwrap_or_default();
    let mut filter = filter(&wanted.to_string_lossy(), usual)?;
    if !daemon && wanted.is_empty() {
        // That the DHT does not answer is said by the command, with what to do about it.
        filter = filter.with_target("mainline", LevelFilter::OFF);
    }
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .init();
    Ok(())
}

/// The filter that a text stands for: levels, for all or for one part of the program. An empty text
/// says nothing, as everywhere.
fn filter(text: &str, usual: LevelFilter) -> Result<Targets, Failure> {
    let mut targets = Targets::new();
    let mut default = usual;
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some((target, level)) => targets = targets.with_target(target.trim(), read(level, text)?),
            // A word alone is a level and not, as elsewhere, a part of the program: a misspelt level
            // would silence everything.
            None => default = read(part, text)?,
        }
    }
    Ok(targets.with_default(default))
}

fn read(level: &str, text: &str) -> Result<LevelFilter, Failure> {
    let level = level.trim();
    // For tracing nothing is a level too.
    let known = Some(level).filter(|level| !level.is_empty());
    known.and_then(|level| level.parse().ok()).ok_or_else(|| {
        Failure::config(format!("{VARIABLE} is {text:?}, and {level:?} is not a level")).help(
            "write off, error, warn, info, debug or trace, and with commas for parts: info,orb_host=debug",
        )
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use tracing::Level;

    use super::*;

    fn enables(text: &str, target: &str, level: Level) -> bool {
        filter(text, LevelFilter::INFO)
            .unwrap()
            .would_enable(target, &level)
    }

    #[test]
    fn levels_for_all_and_for_parts() {
        assert!(enables("", "orb_host", Level::INFO));
        assert!(!enables("", "orb_host", Level::DEBUG));
        assert!(enables("debug", "quinn", Level::DEBUG));
        assert!(!enables("off", "orb_host", Level::ERROR));
        assert!(enables("warn, orb_host=debug", "orb_host::node", Level::DEBUG));
        assert!(!enables("warn, orb_host=debug", "quinn", Level::INFO));
        assert!(
            enables("quinn=off", "orb_host", Level::INFO),
            "the rest is as usual"
        );
    }

    #[test]
    fn what_is_no_level_is_an_error_that_shows_the_form() {
        for text in [
            "inof",
            "orb_host",
            "orb_host=",
            "info,orb_host=loud",
            "info;debug",
        ] {
            let failure = filter(text, LevelFilter::INFO).unwrap_err();
            assert_eq!(failure.exit, 2);
            assert!(failure.message.starts_with("ORB_LOG is "), "{}", failure.message);
            assert!(failure.help.contains("info,orb_host=debug"), "{}", failure.help);
        }
    }
}
