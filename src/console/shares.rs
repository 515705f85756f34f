//! How much of the console one account may use at a time, and how many actions it may ask for.
//!
//! Accounts of the Kubernetes API need no token of ours, so that one of them must not take the
//! console from the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::access::Caller;
use super::problem::Problem;

/// The most accounts whose actions are counted.
const MOST_COUNTED: usize = 1000;
const MINUTE: Duration = Duration::from_secs(60);

/// Gives each name at most a number of shares at a time.
pub struct Shares {
    most: usize,
    held: Arc<Mutex<HashMap<Arc<str>, usize>>>,
}

/// One share, until it is dropped.
pub struct Share {
    name: Arc<str>,
    held: Arc<Mutex<HashMap<Arc<str>, usize>>>,
}

impl Shares {
    /// Each name gets at most `most`.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            held: Arc::default(),
        }
    }

    /// A share for a caller. Only accounts of the Kubernetes API have a limit.
    ///
    /// # Errors
    /// The account has all of its shares.
    pub fn of(&self, caller: &Caller) -> Result<Option<Share>, Problem> {
        match (&caller.user, &caller.name) {
            (Some(_), Some(name)) => self.take(name).map(Some).ok_or(Problem::Busy),
            _ => Ok(None),
        }
    }

    /// A share for a name, unless it has all of its shares.
    fn take(&self, name: &Arc<str>) -> Option<Share> {
        let mut held = self.held.lock();
        let count = held.entry(name.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Share {
            name: name.clone(),
            held: self.held.clone(),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.held.lock();
        if let Some(count) = held.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.name);
            }
        }
    }
}

/// Counts what each name asks for in a minute.
pub struct Rates {
    most: u32,
    counted: Mutex<HashMap<String, (Instant, u32)>>,
}

impl Rates {
    /// Each name may ask `most` times in a minute.
    pub fn new(most: u32) -> Self {
        Self {
            most,
            counted: Mutex::default(),
        }
    }

    /// Whether a name may ask once more.
    pub fn allows(&self, name: &str) -> bool {
        let mut counted = self.counted.lock();
        counted.retain(|_, (first, _)| first.elapsed() < MINUTE);
        if counted.len() >= MOST_COUNTED && !counted.contains_key(name) {
            return false;
        }
        let (_, count) = counted
            .entry(name.to_owned())
            .or_insert_with(|| (Instant::now(), 0));
        *count += 1;
        *count <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_has_its_shares_and_leaves_those_of_others() {
        let (shares, one, other) = (Shares::new(2), Arc::from("one"), Arc::from("other"));
        let first = shares.take(&one);
        let second = shares.take(&one);
        assert!(first.is_some() && second.is_some());
        assert!(shares.take(&one).is_none());
        assert!(shares.take(&other).is_some());
        drop(first);
        assert!(shares.take(&one).is_some());
        drop(second);
        assert!(shares.held.lock().is_empty(), "nothing is left behind");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_may_ask_again_after_a_minute() {
        let rates = Rates::new(2);
        assert_eq!([(); 3].map(|()| rates.allows("one")), [true, true, false]);
        assert!(rates.allows("other"));
        tokio::time::advance(MINUTE).await;
        assert!(rates.allows("one"));
        tokio::time::advance(MINUTE).await;
        for number in 0..MOST_COUNTED {
            assert!(rates.allows(&number.to_string()));
        }
        assert!(!rates.allows("one more"));
    }
}
