//! Where an endpoint is: `https://host[:port][/path][?query]`, and nothing else.

const URL_BYTES_MAX: usize = 2048;
const PORT_DEFAULT: u16 = 443;

/// A URL in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Host name or address, in lower case.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query, with the slash in front.
    pub path: String,
}

/// Takes a URL apart; `None` for one that is not plainly of that form.
pub fn place_of(url: &str) -> Option<Place> {
    let rest = url.strip_prefix("https://").filter(|_| url.len() <= URL_BYTES_MAX)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    // A character that some library reads as the end of the host, or as another path, belongs into none of them.
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"#\\\"<>^`{|}".contains(&byte);
    if !path.bytes().all(is_plain) {
        return None;
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((address, port)) => (address.parse::<std::net::Ipv6Addr>().ok()?.to_string(), port),
        None => {
            let at = authority.find(':').unwrap_or(authority.len());
            let (name, port) = authority.split_at_checked(at)?;
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_name) {
                return None;
            }
            (name.to_ascii_lowercase(), port)
        }
    };
    let port = match port {
        "" => PORT_DEFAULT,
        port => {
            let digits = port.strip_prefix(':').filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
            digits.parse().ok().filter(|port| *port > 0)?
        }
    };
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Some(Place { host, port, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_or_not_taken() {
        for (url, host, port, path) in [
            ("https://Hooks.example.com", "hooks.example.com", 443, "/"),
            ("https://h:8443/a/b?c=d", "h", 8443, "/a/b?c=d"),
            ("https://h?x", "h", 443, "/?x"),
            ("https://[::1]:9/", "::1", 9, "/"),
        ] {
            let place = Place { host: host.to_owned(), port, path: path.to_owned() };
            assert_eq!(place_of(url), Some(place), "{url}");
        }
        for url in [
            "http://h/",
            "https://",
            "https://u@h/",
            "https://u:p@h/",
            "https://h:0/",
            "https://h:99999/",
            "https://h:+1/",
            "https://h:/x",
            "https://h/#f",
            "https://h/a b",
            "https://h\\@evil/",
            "https://h/\r\nx: y",
            "https://[h]/",
            "ftp://h",
        ] {
            assert_eq!(place_of(url), None, "{url}");
        }
        assert_eq!(place_of(&format!("https://h/{}", "x".repeat(URL_BYTES_MAX))), None);
    }
}
