//! Where a webhook is told: `http://` or `https://`, a host, a path.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The longest address, in bytes: beyond it servers refuse as well.
const URL_LEN_MAX: usize = 2_048;
/// The longest name of a host, in bytes (RFC 1035).
const HOST_LEN_MAX: usize = 253;

/// An address to post to. It has no user, no password and no fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpUrl {
    /// Whether it is `https`.
    pub(crate) tls: bool,
    /// Who is there.
    pub(crate) host: HttpHost,
    /// The TCP port.
    pub(crate) port: u16,
    /// Path and query, from the first `/` on.
    pub(crate) path: String,
}

/// A host as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HttpHost {
    /// A name, to be looked up each time.
    Name(String),
    /// An address.
    Ip(IpAddr),
}

/// Why a text is no such address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HttpUrlError {
    /// It begins with something else.
    #[error("it does not begin with http:// or https://")]
    Scheme,
    /// It has characters that an address on the wire does not have, or too many.
    #[error("it has more than {URL_LEN_MAX} characters, or others than visible ASCII")]
    Text,
    /// No host, or no good one.
    #[error("it names no host: a name, an IPv4 address, or an IPv6 address in brackets is needed")]
    Host,
    /// No good port.
    #[error("its port is none from 1 to 65535")]
    Port,
    /// What it may not have.
    #[error("it has a user or a fragment, which nobody would be told")]
    Extra,
}

impl FromStr for HttpUrl {
    type Err = HttpUrlError;

    fn from_str(text: &str) -> Result<Self, HttpUrlError> {
        if text.len() > URL_LEN_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HttpUrlError::Text);
        }
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(HttpUrlError::Scheme),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if path.contains('#') || authority.contains('@') {
            return Err(HttpUrlError::Extra);
        }
        let (host, port) = split_port(authority)?;
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            tls,
            host: host.parse()?,
            port: port.unwrap_or(default_port(tls)),
            path: format!("{slash}{path}"),
        })
    }
}

/// A port after a `:` that is not within an IPv6 address.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), HttpUrlError> {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            let plain = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|port| plain && *port > 0);
            Ok((host, Some(port.ok_or(HttpUrlError::Port)?)))
        }
        _ => Ok((authority, None)),
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

impl FromStr for HttpHost {
    type Err = HttpUrlError;

    fn from_str(text: &str) -> Result<Self, HttpUrlError> {
        if let Some(inside) = text.strip_prefix('[') {
            let inside = inside.strip_suffix(']').ok_or(HttpUrlError::Host)?;
            let ip: Ipv6Addr = inside.parse().map_err(|_| HttpUrlError::Host)?;
            return Ok(Self::Ip(ip.into()));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(ip));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let fits = (1..=HOST_LEN_MAX).contains(&text.len()) && text.bytes().all(plain);
        fits.then(|| Self::Name(text.to_ascii_lowercase()))
            .ok_or(HttpUrlError::Host)
    }
}

impl HttpUrl {
    /// Host and port as a request names them.
    pub(crate) fn authority(&self) -> String {
        if self.port == default_port(self.tls) {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for HttpHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_in_one_way() {
        for (text, written) in [
            ("https://Example.org", "https://example.org/"),
            ("http://example.org:80/a?b=c", "http://example.org/a?b=c"),
            ("http://example.org:443?x", "http://example.org:443/?x"),
            (
                "https://[2001:db8::1]:8443/hook",
                "https://[2001:db8::1]:8443/hook",
            ),
            ("http://[::1]", "http://[::1]/"),
            ("http://127.0.0.1:9/", "http://127.0.0.1:9/"),
        ] {
            let url: HttpUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), written);
            assert_eq!(written.parse::<HttpUrl>(), Ok(url));
        }
        let url: HttpUrl = "https://127.0.0.1".parse().unwrap();
        assert_eq!((url.port, url.authority()), (443, "127.0.0.1".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, error) in [
            ("ftp://example.org", HttpUrlError::Scheme),
            ("example.org", HttpUrlError::Scheme),
            ("http://", HttpUrlError::Host),
            ("http:///path", HttpUrlError::Host),
            ("http://a b/", HttpUrlError::Text),
            ("http://a/\r\nHost: b", HttpUrlError::Text),
            ("http://[::1", HttpUrlError::Host),
            ("http://[::1]x/", HttpUrlError::Host),
            ("http://::1/", HttpUrlError::Host),
            ("http://a:0/", HttpUrlError::Port),
            ("http://a:+1/", HttpUrlError::Port),
            ("http://a:65536/", HttpUrlError::Port),
            ("http://a:/", HttpUrlError::Port),
            ("http://user:secret@a/", HttpUrlError::Extra),
            ("http://a/#b", HttpUrlError::Extra),
            ("http://ex$ample/", HttpUrlError::Host),
        ] {
            assert_eq!(text.parse::<HttpUrl>(), Err(error), "{text}");
        }
        let long = format!("http://a/{}", "x".repeat(URL_LEN_MAX));
        assert_eq!(long.parse::<HttpUrl>(), Err(HttpUrlError::Text));
    }
}
