//! Hashing: Argon2id with little memory, on threads of its own, two at a time.
//!
//! At the usual cost a wave of logins takes both cores of a small machine from everybody else. The sample shows where
//! to bound it; a real shop raises the cost and buys the cores.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::kit::error::ApiError;

/// Memory in KiB and passes of one hash.
const COST: (u32, u32) = (256, 1);
/// Hashes at a time.
const AT_A_TIME: usize = 2;
/// How long a hash may wait for its turn.
const TURN: Duration = Duration::from_millis(900);
/// Digests of refresh tokens need no salt of their own: the tokens are random.
const DIGEST_SALT: &[u8] = b"refresh-tokens";

/// Clones share the limit.
#[derive(Clone)]
pub(super) struct Hasher {
    argon: Argon2<'static>,
    turns: Arc<Semaphore>,
}

impl Hasher {
    pub(super) fn new() -> Self {
        let params = Params::new(COST.0, COST.1, 1, None).unwrap_or_default();
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        Self {
            argon,
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }

    /// The PHC string of a password.
    ///
    /// # Errors
    /// 503 when too many are waiting.
    pub(super) async fn hash(&self, password: String) -> Result<String, ApiError> {
        let hash = self
            .work(move |argon| argon.hash_password(password.as_bytes()))
            .await?;
        hash.map(|hash| hash.to_string()).map_err(|_| broken())
    }

    /// Whether a password belongs to a hash. Without a hash it takes as long and answers no, so that nobody learns
    /// which addresses are registered.
    ///
    /// # Errors
    /// 503 when too many are waiting.
    pub(super) async fn verify(
        &self,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, ApiError> {
        let verify = move |argon: &Argon2<'_>| match hash {
            Some(hash) => {
                PasswordVerifier::<str>::verify_password(argon, password.as_bytes(), &hash).is_ok()
            }
            None => {
                let _ = argon.hash_password(password.as_bytes());
                false
            }
        };
        self.work(verify).await
    }

    /// What is kept of a refresh token.
    ///
    /// # Errors
    /// 503 when too many are waiting.
    pub(super) async fn digest(&self, token: String) -> Result<String, ApiError> {
        let digest = move |argon: &Argon2<'_>| {
            let mut out = [0_u8; 32];
            argon
                .hash_password_into(token.as_bytes(), DIGEST_SALT, &mut out)
                .map(|()| out)
        };
        let digest = self.work(digest).await?.map_err(|_| broken())?;
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Argon2<'_>) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let busy = || ApiError::unavailable("busy", "too many sign-ins at a time").retry_after(1);
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_elapsed| busy())?.map_err(|_closed| busy())?;
        let argon = self.argon.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&argon)
        });
        done.await.map_err(|_panicked| broken())
    }
}

/// A random token that nobody can guess.
pub(super) fn random() -> String {
    format!(
        "{:032x}{:032x}",
        rand::random::<u128>(),
        rand::random::<u128>()
    )
}

fn broken() -> ApiError {
    let status = http::StatusCode::INTERNAL_SERVER_ERROR;
    ApiError::new(status, "hash", "the secret could not be hashed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_verifies_against_its_own_hash_only() {
        let hasher = Hasher::new();
        let hash = hasher.hash("one password".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert!(
            hasher
                .verify("one password".into(), Some(hash.clone()))
                .await
                .unwrap()
        );
        assert!(
            !hasher
                .verify("another one".into(), Some(hash))
                .await
                .unwrap()
        );
        assert!(!hasher.verify("one password".into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn equal_tokens_have_equal_digests() {
        let hasher = Hasher::new();
        let one = hasher.digest("t".into()).await.unwrap();
        assert_eq!(one, hasher.digest("t".into()).await.unwrap());
        assert_ne!(one, hasher.digest("u".into()).await.unwrap());
    }
}
