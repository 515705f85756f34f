//! What the Kubernetes API said about tokens, for a short time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Refusal;
use super::tokens::TokenHash;

/// How long an accepted token is not asked about again. So long a deleted account may send.
const ACCEPTED_FOR: Duration = Duration::from_secs(60);
/// How long a refused token is not asked about again.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// The most tokens of each kind.
const MAX_TOKENS: usize = 2048;

/// The user of a token, or why it is refused.
pub(super) type Known = Result<Arc<str>, Refusal>;

/// Accepted and refused tokens. They are apart, so that invalid tokens displace no valid one.
#[derive(Default)]
pub(super) struct ReviewCache {
    accepted: Half,
    refused: Half,
}

#[derive(Default)]
struct Half(HashMap<TokenHash, (Known, Instant)>);

impl ReviewCache {
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
                self.refused.0.remove(&token);
                self.accepted.put(token, known, now, now + ACCEPTED_FOR);
            }
            Err(_) => {
                self.accepted.0.remove(&token);
                self.refused.put(token, known, now, now + REFUSED_FOR);
            }
        }
    }
}

impl Half {
    fn get(&self, token: &TokenHash, now: Instant) -> Option<Known> {
        let (known, end) = self.0.get(token)?;
        (now < *end).then(|| known.clone())
    }

    fn put(&mut self, token: TokenHash, known: Known, now: Instant, end: Instant) {
        if self.0.len() >= MAX_TOKENS && !self.0.contains_key(&token) {
            self.0.retain(|_, (_, end)| now < *end);
        }
        if self.0.len() >= MAX_TOKENS && !self.0.contains_key(&token) {
            let first = self.0.iter().min_by_key(|(_, (_, end))| *end);
            if let Some(first) = first.map(|(token, _)| *token) {
                self.0.remove(&first);
            }
        }
        self.0.insert(token, (known, end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: usize) -> TokenHash {
        let mut token = [0; 32];
        token[..8].copy_from_slice(&number.to_be_bytes());
        token
    }

    #[test]
    fn what_is_known_ends_and_is_replaced() {
        let (mut cache, start) = (ReviewCache::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let user = Ok(Arc::from("user"));
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
        cache.put(token(0), Ok(Arc::from("user")), start);
        for number in 1..=MAX_TOKENS + 10 {
            let now = start + Duration::from_micros(number as u64);
            cache.put(token(number), Err(Refusal::Unknown), now);
        }
        let now = start + Duration::from_secs(1);
        assert_eq!(cache.refused.0.len(), MAX_TOKENS);
        assert!(cache.get(&token(0), now).is_some());
        assert_eq!(cache.get(&token(1), now), None);
        assert!(cache.get(&token(MAX_TOKENS + 10), now).is_some());
    }
}
