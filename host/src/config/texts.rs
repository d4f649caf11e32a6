//! What the layers share: lists in files, lists over lists, what is missing.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use crate::failure::Failure;

/// Reads a list of texts, each in its type's own text form.
pub(super) fn parsed<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    Vec::<String>::deserialize(deserializer)?
        .iter()
        .map(|text| text.parse().map_err(serde::de::Error::custom))
        .collect()
}

/// An address to listen at, as an operator writes it. Names are not looked up: one may stand for several
/// addresses, and for others tomorrow.
pub(super) fn listen_addr(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| {
        format!(
            "{text:?} is not an IP address and a port: write 0.0.0.0:4433 for every interface, \
             127.0.0.1:4433 for this machine only, [::]:4433 for IPv6 too"
        )
    })
}

/// The same in a file.
pub(super) fn listen_addr_in_file<'de, D>(deserializer: D) -> Result<Option<SocketAddr>, D::Error>
where
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    listen_addr(&text).map(Some).map_err(serde::de::Error::custom)
}

/// The higher layer's list, or the lower one's if there is none.
pub(super) fn either<T>(higher: Vec<T>, lower: Vec<T>) -> Vec<T> {
    if higher.is_empty() { lower } else { higher }
}

/// A setting without a default that nobody gave.
pub(super) fn missing(flag: &str, variable: &str, help: &str) -> Failure {
    let message = format!("{flag} is missing (also {variable}, or in the file given with --config)");
    Failure::usage(message).help(help)
}
