//! Which expressions are refused an evaluation, because they ended a child.

use std::time::Duration;

use parking_lot::Mutex;
use tidings_core::model::id;
use tokio::time::Instant;

use super::Owner;
use super::evaluator::{Cost, NotEvaluated};
use crate::bounded_map::BoundedMap;

/// How long an expression is refused.
pub const REFUSED_FOR: Duration = Duration::from_secs(600);
/// A namespace with this many refused expressions has to wait with its others.
pub const MOST_REFUSED: usize = 10;

/// The refused expressions of a process, by namespace.
#[derive(Default)]
pub struct Refusals(Mutex<BoundedMap<String, Vec<Refusal>>>);

/// A refused expression. A changed one is another.
struct Refusal {
    expression: String,
    since: Instant,
    cost: Cost,
}

impl Refusals {
    /// Whether an expression may be evaluated.
    ///
    /// # Errors
    /// It is refused, or many of its namespace are.
    pub fn check(&self, owner: &Owner, source: &str) -> Result<(), NotEvaluated> {
        let refusals = self.0.lock();
        let Some(of_namespace) = refusals.get(&owner.namespace) else {
            return Ok(());
        };
        let expression = name(owner, source);
        let current = || of_namespace.iter().filter(|it| it.is_current());
        match current().find(|it| it.expression == expression) {
            Some(refusal) => Err(NotEvaluated::TooCostly(refusal.cost)),
            None if current().count() >= MOST_REFUSED => Err(NotEvaluated::Suspected),
            None => Ok(()),
        }
    }

    /// Refuses an expression from now on.
    pub fn insert(&self, owner: &Owner, source: &str, cost: Cost) {
        let refusal = Refusal {
            expression: name(owner, source),
            since: Instant::now(),
            cost,
        };
        let mut refusals = self.0.lock();
        if let Some(of_namespace) = refusals.get_mut(&owner.namespace) {
            of_namespace.retain(Refusal::is_current);
            of_namespace.push(refusal);
            return;
        }
        let is_used = |_: &String, all: &Vec<Refusal>| all.iter().any(Refusal::is_current);
        refusals.insert(owner.namespace.clone(), vec![refusal], is_used);
    }
}

impl Refusal {
    fn is_current(&self) -> bool {
        self.since.elapsed() < REFUSED_FOR
    }
}

fn name(owner: &Owner, source: &str) -> String {
    id::digest(&[&owner.name, source])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(namespace: &str, name: &str) -> Owner {
        Owner {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_expression_is_refused_for_ten_minutes_to_its_provider_only() {
        let refusals = Refusals::default();
        let refused = owner("apps", "p");
        refusals.insert(&refused, "costly", Cost::Memory);
        tokio::time::advance(REFUSED_FOR - Duration::from_secs(1)).await;
        assert_eq!(
            refusals.check(&refused, "costly"),
            Err(NotEvaluated::TooCostly(Cost::Memory))
        );
        for (owner, source) in [
            (owner("other", "p"), "costly"),
            (owner("apps", "q"), "costly"),
            (owner("apps", "p"), "changed"),
        ] {
            assert_eq!(refusals.check(&owner, source), Ok(()));
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(refusals.check(&refused, "costly"), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_with_many_costly_expressions_waits_with_its_others() {
        let refusals = Refusals::default();
        let refused = owner("apps", "p");
        for number in 0..MOST_REFUSED {
            assert_eq!(refusals.check(&refused, "another"), Ok(()));
            refusals.insert(&refused, &format!("costly {number}"), Cost::CpuTime);
        }
        assert_eq!(
            refusals.check(&refused, "another"),
            Err(NotEvaluated::Suspected)
        );
        assert_eq!(refusals.check(&owner("other", "p"), "another"), Ok(()));
        tokio::time::advance(REFUSED_FOR).await;
        assert_eq!(refusals.check(&refused, "another"), Ok(()));
    }
}
