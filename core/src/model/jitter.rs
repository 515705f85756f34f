//! Jitter: replicas that fail together must not retry together.
//!
//! Every pause before a retry uses the same formula: the second half of the wait is random. The
//! waits between the attempts of a delivery are an exception, see [`crate::model::retry`].

use std::time::Duration;

/// Returns a wait between half of `wait` and all of it. `random` is in 0..1.
pub fn jittered(wait: Duration, random: f64) -> Duration {
    wait.mul_f64(0.5 + random / 2.0)
}

/// Calls [`jittered`] with a random number.
pub fn jitter(wait: Duration) -> Duration {
    jittered(wait, rand::random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_wait_is_random() {
        let wait = Duration::from_secs(10);
        assert_eq!(jittered(wait, 0.0), Duration::from_secs(5));
        assert_eq!(jittered(wait, 1.0), wait);
        assert!((wait / 2..=wait).contains(&jitter(wait)));
    }
}
