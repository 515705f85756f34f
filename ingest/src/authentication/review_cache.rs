//! What the Kubernetes API said about tokens, for a short time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Refusal;
use super::tokens::TokenHash;
use super::user::User;

/// How long an accepted token is not asked about again. So long a deleted account may send.
const ACCEPTED_FOR: Duration = Duration::from_secs(60);
/// How long a refused token is not asked about again.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// The most tokens of each kind.
const MAX_TOKENS: usize = 2048;

/// The user of a token, or why it is refused.
pub type Known = Result<Arc<User>, Refusal>;

/// Accepted and refused tokens. They are apart, so that invalid tokens displace no valid one.
pub(super) struct ReviewCache {
    accepted: Half,
    refused: Half,
}

struct Half {
    tokens: HashMap<TokenHash, (Known, Instant)>,
    most: usize,
}

impl Default for ReviewCache {
    fn default() -> Self {
        Self::new(MAX_TOKENS)
    }
}

impl ReviewCache {
    /// Keeps at most `most` accepted tokens.
    pub(super) fn new(most: usize) -> Self {
        let half = |most| Half {
            tokens: HashMap::new(),
            most,
        };
        Self {
            accepted: half(most),
            refused: half(MAX_TOKENS),
        }
    }

    /// What is known of a token.
    pub(super) fn get(&self, token: &TokenHash, now: Instant) -> Option<Known> {
        self.accepted
            .get(token, now)
            .or_else(|| self.refused.get(token, now))
    }

    /// Keeps what the API said.
    pub(super) fn put(&mut self, token: TokenHash, known: Known, now: Instant) {
        match known {
            Ok(_) => {
                self.refused.tokens.remove(&token);
                self.accepted.put(token, known, now, now + ACCEPTED_FOR);
            }
            Err(_) => {
                self.accepted.tokens.remove(&token);
                self.refused.put(token, known, now, now + REFUSED_FOR);
            }
        }
    }
}

impl Half {
    fn get(&self, token: &TokenHash, now: Instant) -> Option<Known> {
        let (known, end) = self.tokens.get(token)?;
        (now < *end).then(|| known.clone())
    }

    fn put(&mut self, token: TokenHash, known: Known, now: Instant, end: Instant) {
        let is_full =
            |half: &Self| half.tokens.len() >= half.most && !half.tokens.contains_key(&token);
        if is_full(self) {
            self.tokens.retain(|_, (_, end)| now < *end);
        }
        if is_full(self) {
            let first = self.tokens.iter().min_by_key(|(_, (_, end))| *end);
            if let Some(first) = first.map(|(token, _)| *token) {
                self.tokens.remove(&first);
            }
        }
        self.tokens.insert(token, (known, end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Known {
        Ok(Arc::new(User::default()))
    }

    fn token(number: usize) -> TokenHash {
        let mut token = [0; 32];
        token[..8].copy_from_slice(&number.to_be_bytes());
        token
    }

    #[test]
    fn what_is_known_ends_and_is_replaced() {
        let (mut cache, start) = (ReviewCache::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let user = user();
        cache.put(token(1), user.clone(), start);
        cache.put(token(2), Err(Refusal::Unknown), start);
        assert_eq!(cache.get(&token(1), after(59)), Some(user.clone()));
        assert_eq!(cache.get(&token(1), after(60)), None);
        assert_eq!(cache.get(&token(2), after(9)), Some(Err(Refusal::Unknown)));
        assert_eq!(cache.get(&token(2), after(10)), None);
        cache.put(token(1), Err(Refusal::Unknown), after(1));
        assert_eq!(cache.get(&token(1), after(2)), Some(Err(Refusal::Unknown)));
        cache.put(token(1), user.clone(), after(2));
        assert_eq!(cache.get(&token(1), after(3)), Some(user));
    }

    #[test]
    fn invalid_tokens_displace_each_other_and_no_valid_one() {
        let (mut cache, start) = (ReviewCache::default(), Instant::now());
        cache.put(token(0), user(), start);
        for number in 1..=MAX_TOKENS + 10 {
            let now = start + Duration::from_micros(number as u64);
            cache.put(token(number), Err(Refusal::Unknown), now);
        }
        let now = start + Duration::from_secs(1);
        assert_eq!(cache.refused.tokens.len(), MAX_TOKENS);
        assert!(cache.get(&token(0), now).is_some());
        assert_eq!(cache.get(&token(1), now), None);
        assert!(cache.get(&token(MAX_TOKENS + 10), now).is_some());
    }
}
