//! Names and origins, parsed once at the edge into types that cannot be wrong.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Why a name is refused; says the rule, never the value (a key pasted into the wrong place must not reach a log).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be 1 to 128 characters of ASCII letters, digits, '_', '-' and '.'")]
pub struct NameError {
    what: &'static str,
}

/// The rule for key ids and all names like them: `[A-Za-z0-9_.-]{1,128}`.
fn check_name(what: &'static str, name: &str) -> Result<(), NameError> {
    let fits = (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    if fits {
        Ok(())
    } else {
        Err(NameError { what })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                check_name($what, name)?;
                Ok(Self(name.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// Id of a provider key, such as `openai-prod`.
    KeyId, "a key id"
);
name!(
    /// Id of a custodian, such as `a`.
    CustodianId, "a custodian id"
);

/// Why an origin is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// Neither `https://` nor `http://` in front.
    #[error("an origin starts with https:// (http:// for loopback addresses only)")]
    Scheme,
    /// A path, query, fragment or user information follows.
    #[error("an origin is scheme, host and port alone: no path, query or user information")]
    Extra,
    /// The host is empty or has characters that no host has.
    #[error("the host of an origin is a DNS name or an IP address")]
    Host,
    /// Not a port number.
    #[error("the port of an origin is a number from 1 to 65535")]
    Port,
    /// Plain HTTP beyond this machine would show the key to the network.
    #[error(
        "http:// is allowed for loopback addresses only: the key would cross the network in the clear"
    )]
    PlainHttp,
}

/// Scheme, host and port that a key may be sent to, in canonical form: lower case, default port left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    tls: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// Host name or address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the connection is TLS; false only for loopback addresses.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// Host and, where it is not the scheme's default, port: the value of a `Host` header.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        let default = if self.tls { 443 } else { 80 };
        if self.port == default {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let (tls, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (true, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (false, rest)
        } else {
            return Err(OriginError::Scheme);
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@', '\\']) {
            return Err(OriginError::Extra);
        }
        let (host, port) = split_port(rest)?;
        let port = match port {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(digits) => parse_port(digits)?,
        };
        let host = canonical_host(host)?;
        if !tls && !is_loopback(&host) {
            return Err(OriginError::PlainHttp);
        }
        Ok(Self { tls, host, port })
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), OriginError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(OriginError::Host)?;
        host.parse::<std::net::Ipv6Addr>()
            .map_err(|_| OriginError::Host)?;
        return match after {
            "" => Ok((host, None)),
            _ => Ok((
                host,
                Some(after.strip_prefix(':').ok_or(OriginError::Host)?),
            )),
        };
    }
    match authority.split_once(':') {
        None => Ok((authority, None)),
        Some((host, port)) => Ok((host, Some(port))),
    }
}

fn parse_port(digits: &str) -> Result<u16, OriginError> {
    // `u16::from_str` takes a leading '+'; a URL does not.
    if digits.is_empty() || digits.len() > 5 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(OriginError::Port);
    }
    digits
        .parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or(OriginError::Port)
}

fn canonical_host(host: &str) -> Result<String, OriginError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let fits = (1..=253).contains(&host.len())
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
    // A last label of digits alone is an address that failed to parse ("1.2.3.999"), never a name.
    let last_is_number = host
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if fits && !last_is_number {
        Ok(host.to_ascii_lowercase())
    } else {
        Err(OriginError::Host)
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}",
            if self.tls { "https" } else { "http" },
            self.authority()
        )
    }
}

/// Where a key may be sent: one origin, or (development only) anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// `*`: any origin that the agent's configuration names. `tacit dev` seals keys so; nothing else should.
    Any,
    /// Exactly this origin.
    Origin(Origin),
}

impl Upstream {
    /// Whether a key that lists this upstream may be sent to `origin`.
    pub fn allows(&self, origin: &Origin) -> bool {
        match self {
            Upstream::Any => true,
            Upstream::Origin(own) => own == origin,
        }
    }
}

impl FromStr for Upstream {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        if text == "*" {
            Ok(Upstream::Any)
        } else {
            text.parse().map(Upstream::Origin)
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Upstream::Any => f.write_str("*"),
            Upstream::Origin(origin) => origin.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_ids_follow_the_rule() {
        for good in ["a", "openai-prod", "A.b_c-9", &"x".repeat(128)] {
            assert_eq!(
                good.parse::<KeyId>().map(|id| id.to_string()),
                Ok(good.to_owned())
            );
        }
        for bad in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(129)] {
            let error = bad.parse::<KeyId>().expect_err("refused").to_string();
            assert!(error.contains("1 to 128"), "{error}");
        }
    }

    #[test]
    fn origins_have_one_form() {
        for (text, canonical) in [
            ("https://api.openai.com", "https://api.openai.com"),
            ("https://API.OpenAI.com:443/", "https://api.openai.com"),
            ("https://gw.internal:8443", "https://gw.internal:8443"),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("http://localhost", "http://localhost"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("https://[0:0::1]", "https://[::1]"),
        ] {
            assert_eq!(
                text.parse::<Origin>().map(|origin| origin.to_string()),
                Ok(canonical.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn near_origins_are_refused_by_rule() {
        for (text, error) in [
            ("api.openai.com", OriginError::Scheme),
            ("ftp://x", OriginError::Scheme),
            ("https://api.openai.com/v1", OriginError::Extra),
            ("https://user@evil.example", OriginError::Extra),
            ("https://x?y", OriginError::Extra),
            ("https://", OriginError::Host),
            ("https://a..b", OriginError::Host),
            ("https://1.2.3.999", OriginError::Host),
            ("https://x:0", OriginError::Port),
            ("https://x:+1", OriginError::Port),
            ("https://x:65536", OriginError::Port),
            ("http://api.openai.com", OriginError::PlainHttp),
            ("http://10.0.0.1", OriginError::PlainHttp),
        ] {
            assert_eq!(text.parse::<Origin>(), Err(error), "{text}");
        }
    }

    #[test]
    fn an_upstream_allows_its_own_origin_alone() {
        let own: Upstream = "https://api.openai.com".parse().expect("parses");
        assert!(own.allows(&"https://api.openai.com:443".parse().expect("parses")));
        assert!(!own.allows(&"https://api.openai.com:444".parse().expect("parses")));
        assert!(
            !own.allows(
                &"https://api.openai.com.evil.example"
                    .parse()
                    .expect("parses")
            )
        );
        assert!(Upstream::Any.allows(&"https://anything.example".parse().expect("parses")));
    }
}
