//! How many calls of one destination a worker makes at a time. The number follows how the
//! destination answers. Pure.

/// The number at first, and the least.
pub const FIRST_CALLS: usize = 64;
/// The most: with the first number, a destination that takes 200 ms would get 320 calls a second.
pub const MOST_CALLS: usize = 256;
/// Before the first failure, there is one more call for this many answers, so that the number grows
/// by half in the time of a call.
const ANSWERS_AT_FIRST: usize = 2;
/// After a failure, the number grows by this many in the time of a call.
const MORE_AFTER_FAILURE: usize = 4;

/// The number of permits of a destination.
#[derive(Debug)]
pub struct Limit {
    size: usize,
    /// The `maxInFlight` of the Provider, which does not change.
    fixed: Option<u32>,
    /// Permits beyond `size` that calls still hold.
    surplus: usize,
    /// Answers since the last additional permit.
    answers: usize,
    has_failed: bool,
}

impl Limit {
    /// The limit of a Provider with this `maxInFlight`.
    pub fn new(fixed: Option<u32>) -> Self {
        Self {
            size: fixed.map_or(FIRST_CALLS, |max| {
                usize::try_from(max).unwrap_or(MOST_CALLS)
            }),
            fixed,
            surplus: 0,
            answers: 0,
            has_failed: false,
        }
    }

    /// The number of permits.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The `maxInFlight` of the Provider.
    pub fn fixed(&self) -> Option<u32> {
        self.fixed
    }

    /// The destination answered soon while all permits were in use. Returns whether there is to be
    /// one more permit.
    pub fn answered(&mut self) -> bool {
        // Calls that began before a failure say nothing about the time after it.
        if self.fixed.is_some() || self.size >= MOST_CALLS || self.surplus > 0 {
            return false;
        }
        self.answers += 1;
        let enough = match self.has_failed {
            true => self.size / MORE_AFTER_FAILURE,
            false => ANSWERS_AT_FIRST,
        };
        if self.answers < enough {
            return false;
        }
        (self.size, self.answers) = (self.size + 1, 0);
        true
    }

    /// The destination failed, or asked to wait: the number halves.
    pub fn failed(&mut self) {
        if self.fixed.is_some() {
            return;
        }
        let fewer = (self.size / 2).max(FIRST_CALLS);
        self.surplus += self.size - fewer;
        (self.size, self.answers, self.has_failed) = (fewer, 0, true);
    }

    /// A call returns its permit. Whether the permit goes away.
    pub fn drops_one(&mut self) -> bool {
        let drops = self.surplus > 0;
        self.surplus = self.surplus.saturating_sub(1);
        drops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers until the limit has this size.
    fn answers_until(limit: &mut Limit, size: usize) -> usize {
        let mut answers = 0;
        while limit.size() < size {
            limit.answered();
            answers += 1;
        }
        answers
    }

    #[test]
    fn a_destination_that_answers_soon_has_four_times_as_many_calls() {
        let mut limit = Limit::new(None);
        assert_eq!(limit.size(), FIRST_CALLS);
        assert_eq!(answers_until(&mut limit, MOST_CALLS), 2 * 192);
        assert!(!limit.answered() && !limit.answered());
        assert_eq!(limit.size(), MOST_CALLS);
    }

    #[test]
    fn a_failure_halves_the_number_and_then_it_grows_slowly() {
        let mut limit = Limit::new(None);
        answers_until(&mut limit, MOST_CALLS);
        for size in [128, 64, 64] {
            limit.failed();
            assert_eq!(limit.size(), size);
        }
        let dropped = (0..MOST_CALLS).filter(|_| limit.drops_one()).count();
        assert_eq!(dropped, MOST_CALLS - FIRST_CALLS);
        assert_eq!(
            answers_until(&mut limit, FIRST_CALLS + 4),
            16 + 16 + 16 + 16
        );
    }

    #[test]
    fn answers_to_calls_from_before_a_failure_do_not_count() {
        let mut limit = Limit::new(None);
        answers_until(&mut limit, FIRST_CALLS + 1);
        limit.failed();
        assert!((0..99).all(|_| !limit.answered()));
        assert!(limit.drops_one());
        let added = (0..16).filter(|_| limit.answered()).count();
        assert_eq!((limit.size(), added), (FIRST_CALLS + 1, 1));
    }

    #[test]
    fn max_in_flight_does_not_change() {
        let mut limit = Limit::new(Some(3));
        limit.failed();
        assert!(!limit.drops_one());
        assert!((0..9).all(|_| !limit.answered()));
        assert_eq!(limit.size(), 3);
    }
}
