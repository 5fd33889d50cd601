//! Tokens: signed by `users`, checked by the gateway with the same secret. HS256 and nothing else, without leeway.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use super::accounts::User;
use crate::kit::clock::wall_ms;

/// How long a token is good for, seconds.
const LIFETIME_S: i64 = 3_600;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// The user's id.
    pub(crate) sub: String,
    pub(crate) email: String,
    pub(crate) roles: Vec<String>,
    /// `load` = no rate limit.
    pub(crate) tier: String,
    /// Issued, seconds since the Unix epoch.
    pub(crate) iat: i64,
    /// Good until, seconds since the Unix epoch.
    pub(crate) exp: i64,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadToken {
    /// It was good once: a refresh token helps.
    Expired,
    /// It was never ours, or was changed.
    Invalid,
}

/// Signs and checks tokens.
pub(crate) struct Tokens {
    signing: EncodingKey,
    checking: DecodingKey,
    validation: Validation,
}

impl Tokens {
    pub(crate) fn new(secret: &str) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.set_required_spec_claims(&["exp", "sub"]);
        Self {
            signing: EncodingKey::from_secret(secret.as_bytes()),
            checking: DecodingKey::from_secret(secret.as_bytes()),
            validation,
        }
    }

    /// A token for this user, good for an hour.
    ///
    /// # Errors
    /// It cannot be signed.
    pub(super) fn issue(&self, user: &User) -> Result<String, jsonwebtoken::errors::Error> {
        let iat = wall_ms() / 1_000;
        self.sign(&Claims {
            sub: user.id.clone(),
            email: user.email.clone(),
            roles: user.roles.split(',').map(str::to_owned).collect(),
            tier: user.tier.clone(),
            iat,
            exp: iat + LIFETIME_S,
        })
    }

    fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        encode(&Header::new(Algorithm::HS256), claims, &self.signing)
    }

    /// What a token says, if it is good.
    ///
    /// # Errors
    /// It is not, and whether it once was.
    pub(crate) fn check(&self, token: &str) -> Result<Claims, BadToken> {
        match decode::<Claims>(token, &self.checking, &self.validation) {
            Ok(data) => Ok(data.claims),
            Err(error) if *error.kind() == ErrorKind::ExpiredSignature => Err(BadToken::Expired),
            Err(_) => Err(BadToken::Invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(exp: i64) -> Claims {
        Claims {
            sub: "u1".into(),
            email: "ann@shop.test".into(),
            roles: vec!["customer".into()],
            tier: "standard".into(),
            iat: 0,
            exp,
        }
    }

    #[test]
    fn a_token_is_good_until_it_expires_and_only_with_our_signature() {
        let (ours, theirs) = (Tokens::new("ours"), Tokens::new("theirs"));
        let good = claims(wall_ms() / 1_000 + 60);
        assert_eq!(ours.check(&ours.sign(&good).unwrap()), Ok(good.clone()));
        assert_eq!(
            ours.check(&theirs.sign(&good).unwrap()),
            Err(BadToken::Invalid)
        );
        assert_eq!(
            ours.check(&ours.sign(&claims(1)).unwrap()),
            Err(BadToken::Expired)
        );
        assert_eq!(ours.check("any.thing.else"), Err(BadToken::Invalid));
    }

    #[test]
    fn a_token_without_a_signature_is_refused() {
        // {"alg":"none"} with otherwise good claims.
        let token = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJ1MSIsImV4cCI6OTk5OTk5OTk5OX0.";
        assert_eq!(Tokens::new("ours").check(token), Err(BadToken::Invalid));
    }
}
