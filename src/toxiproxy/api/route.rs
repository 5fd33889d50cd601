//! What a method and a path mean. Exact: no trailing slash, names are one segment.

use axum::http::{Method, Uri};

/// A call of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Version,
    Proxies,
    CreateProxy,
    Populate,
    Reset,
    Proxy(String),
    UpdateProxy(String),
    DeleteProxy(String),
    Toxics(String),
    AddToxic(String),
    /// Extension: replaces the whole set.
    SetToxics(String),
    Toxic(String, String),
    UpdateToxic(String, String),
    DeleteToxic(String, String),
    /// Extension.
    AllStats,
    /// Extension.
    Stats(String),
    /// Only when metrics are offered.
    Metrics,
    /// Extension.
    RenewLease(String),
    /// Extension.
    EndLease(String),
    /// Extension: of one proxy or of all.
    Requests(Option<String>, Page),
}

/// Which rows of the request log are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Page {
    pub(super) after: u64,
    pub(super) limit: Option<usize>,
    pub(super) flush: bool,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Route(Route),
    /// The path should be written so.
    Elsewhere(String),
    NoMethod,
    NoPath,
    /// The path is not even one.
    NoSense,
}

/// Finds the call.
pub(super) fn find(method: &Method, uri: &Uri) -> Found {
    let Some(path) = decode(uri.path()) else {
        return Found::NoSense;
    };
    if path.contains("//") || path.split('/').any(|part| part == "." || part == "..") {
        let query = uri.query().map(|query| format!("?{query}"));
        return Found::Elsewhere(clean(&path) + &query.unwrap_or_default());
    }
    let Some(path) = path.strip_prefix('/') else {
        return Found::NoPath;
    };
    let parts: Vec<&str> = path.split('/').collect();
    if parts.len() > 1 && parts.iter().any(|part| part.is_empty()) {
        return Found::NoPath;
    }
    let query = uri.query().unwrap_or_default();
    match routes(&parts, method.as_str(), query) {
        None => Found::NoPath,
        Some(None) => Found::NoMethod,
        Some(Some(route)) => Found::Route(route),
    }
}

/// `None` when the path is unknown, `Some(None)` when only the method is.
fn routes(parts: &[&str], method: &str, query: &str) -> Option<Option<Route>> {
    let p = |name: &&str| (*name).to_owned();
    Some(match (parts, method) {
        (["version"], "GET") => Some(Route::Version),
        (["proxies"], "GET") => Some(Route::Proxies),
        (["proxies"], "POST") => Some(Route::CreateProxy),
        (["populate"], "POST") => Some(Route::Populate),
        (["reset"], "POST") => Some(Route::Reset),
        (["metrics"], _) => Some(Route::Metrics),
        (["lease", id], "PUT") => Some(Route::RenewLease(p(id))),
        (["lease", id], "DELETE") => Some(Route::EndLease(p(id))),
        (["stats"], "GET") => Some(Route::AllStats),
        (["requests"], "GET") => Some(Route::Requests(None, page(query))),
        (["proxies", name], "GET") => Some(Route::Proxy(p(name))),
        (["proxies", name], "POST" | "PATCH") => Some(Route::UpdateProxy(p(name))),
        (["proxies", name], "DELETE") => Some(Route::DeleteProxy(p(name))),
        (["proxies", name, "stats"], "GET") => Some(Route::Stats(p(name))),
        (["proxies", name, "requests"], "GET") => Some(Route::Requests(Some(p(name)), page(query))),
        (["proxies", name, "toxics"], "GET") => Some(Route::Toxics(p(name))),
        (["proxies", name, "toxics"], "POST") => Some(Route::AddToxic(p(name))),
        (["proxies", name, "toxics"], "PUT") => Some(Route::SetToxics(p(name))),
        (["proxies", name, "toxics", toxic], "GET") => Some(Route::Toxic(p(name), p(toxic))),
        (["proxies", name, "toxics", toxic], "POST" | "PATCH") => {
            Some(Route::UpdateToxic(p(name), p(toxic)))
        }
        (["proxies", name, "toxics", toxic], "DELETE") => {
            Some(Route::DeleteToxic(p(name), p(toxic)))
        }
        (["version" | "proxies" | "populate" | "reset" | "stats" | "requests"], _)
        | (["proxies" | "lease", _], _)
        | (["proxies", _, "stats" | "requests" | "toxics"], _)
        | (["proxies", _, "toxics", _], _) => None,
        _ => return None,
    })
}

fn page(query: &str) -> Page {
    let mut page = Page::default();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match name {
            "after" => page.after = value.parse().unwrap_or(0),
            "limit" => page.limit = value.parse().ok(),
            "flush" => page.flush = value == "true",
            _ => {}
        }
    }
    page
}

/// Undoes percent-encoding; `None` when a sequence is none.
fn decode(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let (mut decoded, mut place) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(place) {
        if *byte == b'%' {
            let hex = std::str::from_utf8(bytes.get(place + 1..place + 3)?).ok()?;
            decoded.push(u8::from_str_radix(hex, 16).ok()?);
            place += 3;
        } else {
            decoded.push(*byte);
            place += 1;
        }
    }
    Some(String::from_utf8_lossy(&decoded).into_owned())
}

/// The path without empty, `.` and `..` segments; a final slash stays.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let slash = if path.ends_with('/') && !parts.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{slash}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(method: &str, uri: &str) -> Found {
        find(&method.parse().unwrap(), &uri.parse().unwrap())
    }

    #[test]
    fn unknown_paths_and_unknown_methods_are_told_apart() {
        for path in [
            "/",
            "/proxies/",
            "/proxies/a/",
            "/proxies/a/b",
            "/nope",
            "/proxies/a%2Fb/toxics/c/d",
        ] {
            assert_eq!(at("GET", path), Found::NoPath, "{path}");
        }
        for (method, path) in [
            ("PUT", "/proxies"),
            ("HEAD", "/version"),
            ("OPTIONS", "/reset"),
            ("PATCH", "/proxies/a/toxics"),
            ("GET", "/populate"),
        ] {
            assert_eq!(at(method, path), Found::NoMethod, "{method} {path}");
        }
    }

    #[test]
    fn names_are_decoded_and_paths_cleaned() {
        assert_eq!(
            at("GET", "/proxies/a%20b"),
            Found::Route(Route::Proxy("a b".to_owned()))
        );
        assert_eq!(
            at("GET", "/proxies/a%zz"),
            Found::NoSense,
            "what is no encoding"
        );
        assert_eq!(
            at("GET", "/proxies//a"),
            Found::Elsewhere("/proxies/a".to_owned())
        );
        assert_eq!(
            at("GET", "//proxies/x/../a/?b=c"),
            Found::Elsewhere("/proxies/a/?b=c".to_owned())
        );
    }

    #[test]
    fn page_is_read_from_the_query() {
        let page = Page {
            after: 7,
            limit: Some(3),
            flush: true,
        };
        assert_eq!(
            at("GET", "/requests?after=7&limit=3&flush=true"),
            Found::Route(Route::Requests(None, page))
        );
    }
}
