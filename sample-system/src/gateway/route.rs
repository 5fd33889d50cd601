//! Who answers what: a table of paths, pure.

use http::Method;

/// A service behind the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Callee {
    Users,
    Catalog,
    Orders,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) callee: Callee,
    /// Nobody needs a token for it.
    pub(super) open: bool,
    /// Its answer waits for the end of an order.
    pub(super) waits: bool,
    path: String,
}

impl Route {
    /// The route of a request from outside; `None` when there is none. Unknown paths are not open.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        let path = path.strip_prefix("/api")?;
        let mut parts = path.split('/').skip(1);
        let (first, second) = (parts.next()?, parts.next());
        let to = |callee, open| Self {
            callee,
            open,
            waits: false,
            path: path.to_owned(),
        };
        let post = method == Method::POST;
        Some(match (first, second) {
            ("login" | "register" | "refresh", None) if post => to(Callee::Users, true),
            ("users", None) if post => to(Callee::Users, true),
            ("users", Some(_)) if method == Method::GET => to(Callee::Users, false),
            ("products", Some("batch")) if post => to(Callee::Catalog, true),
            ("products", _) => to(Callee::Catalog, method == Method::GET),
            ("orders", None) if post => Self {
                waits: true,
                ..to(Callee::Orders, false)
            },
            ("orders" | "cart", _) => to(Callee::Orders, false),
            _ => return None,
        })
    }

    /// The path inside; `me` stands for the visitor.
    pub(super) fn path(&self, visitor: Option<&str>) -> String {
        match visitor {
            Some(id) if self.path == "/users/me" => format!("/users/{id}"),
            _ => self.path.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsing_is_open_and_ordering_is_not() {
        let route = |method: Method, path| Route::of(&method, path);
        assert!(route(Method::GET, "/api/products/A1").unwrap().open);
        assert!(!route(Method::PUT, "/api/products/A1").unwrap().open);
        assert!(!route(Method::POST, "/api/products").unwrap().open);
        let order = route(Method::POST, "/api/orders").unwrap();
        assert!(!order.open && order.waits);
        assert!(!route(Method::GET, "/api/orders/o1").unwrap().waits);
        assert!(route(Method::POST, "/api/login").unwrap().open);
        assert_eq!(route(Method::GET, "/api/login"), None);
        assert_eq!(route(Method::GET, "/api/internal/sagas"), None);
        assert_eq!(route(Method::GET, "/reservations/o1"), None);
    }

    #[test]
    fn me_is_the_visitor() {
        let route = Route::of(&Method::GET, "/api/users/me").unwrap();
        assert_eq!(route.path(Some("u7")), "/users/u7");
    }
}
