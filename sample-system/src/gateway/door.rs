//! Admission: token and rate limit, before anything else is looked at.
//!
//! Missing token 401, expired 401 (a refresh helps), anything else 403. The limit is a leaky bucket per user: a burst of
//! the whole allowance, then one more each time that one has leaked out. Users of the tier `load` are not limited.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};

use super::route::Route;
use crate::kit::config::{Config, ConfigError};
use crate::kit::error::ApiError;
use crate::users::token::{BadToken, Claims, Tokens};

/// Requests per minute and user.
const PER_MINUTE: u32 = 100;
/// All visitors without a token share one bucket, this much larger.
const ANONYMOUS_FACTOR: u32 = 10;
/// Buckets that are full again are forgotten after this many requests, so that memory stays bounded.
const SWEEP_EVERY: u32 = 10_000;

/// Somebody with a good token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visitor {
    pub(super) id: String,
    /// Separated by commas.
    pub(super) roles: String,
}

pub(super) struct Door {
    tokens: Tokens,
    limiter: Option<DefaultKeyedRateLimiter<String>>,
    anonymous: Option<governor::DefaultDirectRateLimiter>,
    admitted: AtomicU32,
}

impl Door {
    /// Reads `JWT_SECRET` and `SHOP_RATE_LIMIT` (requests per minute, 0 = no limit).
    ///
    /// # Errors
    /// One of them is missing or has another form.
    pub(super) fn new(config: &Config) -> Result<Self, ConfigError> {
        let per_minute = match config.optional("SHOP_RATE_LIMIT") {
            None => PER_MINUTE,
            Some(text) => text.parse().map_err(|_| ConfigError::Invalid {
                name: "SHOP_RATE_LIMIT".to_owned(),
                value: text.to_owned(),
                expected: "requests per minute, 0 for no limit",
            })?,
        };
        Ok(Self::with(
            Tokens::new(config.required("JWT_SECRET")?),
            per_minute,
        ))
    }

    fn with(tokens: Tokens, per_minute: u32) -> Self {
        let quota = |n| NonZeroU32::new(n).map(Quota::per_minute);
        Self {
            tokens,
            limiter: quota(per_minute).map(RateLimiter::keyed),
            anonymous: quota(per_minute.saturating_mul(ANONYMOUS_FACTOR)).map(RateLimiter::direct),
            admitted: AtomicU32::new(0),
        }
    }

    /// Lets a request in, or says why not. `None` = a visitor without a token, where none is needed.
    ///
    /// # Errors
    /// 401, 403 or 429.
    pub(super) fn admit(
        &self,
        headers: &HeaderMap,
        route: Option<&Route>,
    ) -> Result<Option<Visitor>, ApiError> {
        let open = route.is_some_and(|route| route.open);
        let claims = match bearer(headers).map(|token| self.tokens.check(token)) {
            Some(Ok(claims)) => Some(claims),
            Some(Err(_)) | None if open => None,
            Some(Err(BadToken::Expired)) => {
                let message = "the token has expired";
                return Err(ApiError::new(
                    StatusCode::UNAUTHORIZED,
                    "token-expired",
                    message,
                ));
            }
            Some(Err(BadToken::Invalid)) => {
                let message = "the token is not one of ours";
                return Err(ApiError::new(
                    StatusCode::FORBIDDEN,
                    "token-invalid",
                    message,
                ));
            }
            None => {
                let message = "a bearer token is needed";
                return Err(ApiError::new(
                    StatusCode::UNAUTHORIZED,
                    "token-missing",
                    message,
                ));
            }
        };
        self.limit(claims.as_ref())?;
        Ok(claims.map(|claims| Visitor {
            id: claims.sub,
            roles: claims.roles.join(","),
        }))
    }

    fn limit(&self, claims: Option<&Claims>) -> Result<(), ApiError> {
        let admitted = match claims {
            Some(claims) if claims.tier == "load" => true,
            Some(claims) => {
                let check =
                    |limiter: &DefaultKeyedRateLimiter<String>| limiter.check_key(&claims.sub);
                self.limiter
                    .as_ref()
                    .is_none_or(|limiter| check(limiter).is_ok())
            }
            None => self
                .anonymous
                .as_ref()
                .is_none_or(|limiter| limiter.check().is_ok()),
        };
        self.sweep();
        let message = "too many requests";
        let refused = || ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", message);
        admitted
            .then_some(())
            .ok_or_else(|| refused().retry_after(1))
    }

    fn sweep(&self) {
        if let Some(limiter) = &self.limiter
            && self.admitted.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1
        {
            limiter.retain_recent();
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::users::token::Tokens;
    use http::Method;

    fn headers(authorization: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(text) = authorization {
            headers.insert(AUTHORIZATION, text.parse().unwrap());
        }
        headers
    }

    fn knock(door: &Door, authorization: Option<&str>) -> Result<Option<Visitor>, StatusCode> {
        let route = Route::of(&Method::POST, "/api/orders");
        door.admit(&headers(authorization), route.as_ref())
            .map_err(|error| error.status)
    }

    #[test]
    fn no_token_is_401_and_a_forged_one_403() {
        let door = Door::with(Tokens::new("ours"), 100);
        assert_eq!(knock(&door, None), Err(StatusCode::UNAUTHORIZED));
        assert_eq!(
            knock(&door, Some("Basic abc")),
            Err(StatusCode::UNAUTHORIZED)
        );
        assert_eq!(
            knock(&door, Some("Bearer forged")),
            Err(StatusCode::FORBIDDEN)
        );
    }

    #[test]
    fn an_unknown_path_is_not_open() {
        let door = Door::with(Tokens::new("ours"), 100);
        let refused = door.admit(&headers(None), None).unwrap_err();
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn after_a_burst_of_the_allowance_the_next_is_refused() {
        let door = Door::with(Tokens::new("ours"), 1);
        let open = Route::of(&Method::GET, "/api/products");
        for _ in 0..ANONYMOUS_FACTOR {
            assert!(door.admit(&headers(None), open.as_ref()).is_ok());
        }
        let refused = door.admit(&headers(None), open.as_ref()).unwrap_err();
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    }
}
