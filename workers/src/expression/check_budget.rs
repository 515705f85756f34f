//! How long the checks of expressions may delay a snapshot of the rules.

use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::runtime::codes::log as codes;
use tokio::time::{Instant, timeout};

/// The longest time that checks take within a period.
const MOST: Duration = Duration::from_secs(10);
/// The period.
const PERIOD: Duration = Duration::from_secs(600);

/// Limits the time that checks take together. Checks beyond it are not made.
pub struct CheckBudget {
    most: Duration,
    period: Mutex<Period>,
}

struct Period {
    began: Instant,
    spent: Duration,
}

impl CheckBudget {
    /// For a role, which must also put rules in force.
    pub fn of_a_role() -> Self {
        Self::new(MOST)
    }

    /// For a tool, which only checks.
    pub fn unlimited() -> Self {
        Self::new(Duration::MAX)
    }

    fn new(most: Duration) -> Self {
        let period = Mutex::new(Period {
            began: Instant::now(),
            spent: Duration::ZERO,
        });
        Self { most, period }
    }

    /// Whether some checks may not be made.
    pub fn is_limited(&self) -> bool {
        self.most < Duration::MAX
    }

    /// Makes a check; `None` if there is no time for it.
    pub async fn spend<T>(&self, check: impl Future<Output = T>) -> Option<T> {
        let left = self.left()?;
        let began = Instant::now();
        let checked = timeout(left, check).await.ok();
        let mut period = self.period.lock();
        period.spent = period.spent.saturating_add(began.elapsed());
        if period.spent >= self.most {
            tracing::warn!(
                code = codes::EXPRESSIONS_NOT_CHECKED,
                "checks of expressions take long: the rest is checked later"
            );
        }
        checked
    }

    fn left(&self) -> Option<Duration> {
        let mut period = self.period.lock();
        if period.began.elapsed() >= PERIOD {
            period.began = Instant::now();
            period.spent = Duration::ZERO;
        }
        let left = self.most.saturating_sub(period.spent);
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn checks_stop_when_they_have_taken_too_long_together() {
        let budget = CheckBudget::of_a_role();
        let check = |seconds| budget.spend(sleep(Duration::from_secs(seconds)));
        assert!(check(6).await.is_some());
        assert!(check(6).await.is_none(), "it is ended");
        assert!(check(0).await.is_none(), "it is not begun");
        advance(PERIOD).await;
        assert!(check(6).await.is_some());
        let unlimited = CheckBudget::unlimited();
        for _ in 0..3 {
            assert!(unlimited.spend(sleep(MOST)).await.is_some());
        }
    }
}
