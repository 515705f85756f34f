use std::collections::BTreeSet;

use proptest::prelude::*;

use super::shares::{Demand, refusals};
use super::*;
use crate::check::check;
use crate::last_good::LastGood;
use crate::object::Object;
use crate::options::Options;
use crate::pattern;
use crate::snapshot::Rules;
use crate::testing::alert;

/// An Alert with patterns of about 1.5 MB each.
fn large(namespace: &str, name: &str, patterns: std::ops::Range<usize>) -> Object {
    let list: Vec<_> = patterns
        .map(|number| format!("{namespace}{number}\\pL{{100}}"))
        .collect();
    alert(name, "p")
        .in_namespace(namespace)
        .with("inclusionList", list)
        .object()
}

fn names(rules: &Rules) -> Vec<String> {
    rules.alerts().map(|alert| alert.name.clone()).collect()
}

#[test]
fn an_alert_above_its_limit_is_refused_by_field_and_position() {
    let objects = [
        large("a", "fits", 0..5),
        large("a", "large", 10..2_500),
        large("a", "other", 3..8),
    ];
    let rules = Rules::compile(&objects, &[], &Options::default());
    assert_eq!(names(&rules), ["fits", "other"]);
    let (identity, reason) = &rules.rejected()[0];
    assert_eq!(identity.name, "large");
    assert!(
        reason.starts_with("spec.inclusionList[10]: ") && reason.contains("16 MiB"),
        "{reason}"
    );
}

#[test]
fn patterns_that_are_too_large_count_as_well() {
    let list = |count: usize| -> Vec<String> {
        (0..count)
            .map(|number| format!("{number}\\pL{{900}}"))
            .collect()
    };
    let objects = [
        alert("few", "p").with("inclusionList", list(3)).object(),
        alert("many", "p").with("inclusionList", list(6)).object(),
    ];
    let rules = Rules::compile(&objects, &[], &Options::default());
    assert_eq!(names(&rules), ["few"]);
    let faults = rules.problems().iter();
    let faults = faults.filter(|problem| problem.severity == Severity::Fault);
    assert!(faults.filter(|it| it.message.contains("too large")).count() >= 3);
}

#[test]
fn equal_patterns_of_alerts_are_stored_once() {
    let rules = Rules::compile(
        &[large("a", "x", 0..2), large("a", "y", 0..2)],
        &[],
        &Options::default(),
    );
    let automaton = |name: &str| {
        let alert = rules.alert("a", name).unwrap();
        let patterns = alert.included.as_ref().unwrap();
        patterns.iter().next().unwrap().1.automaton().unwrap()
    };
    assert!(Arc::ptr_eq(&automaton("x"), &automaton("y")));
}

#[test]
fn the_last_good_state_stays_while_the_new_one_is_above_the_limit() {
    let mut good = LastGood::default();
    let mut patterns_in_effect = |object: Object| {
        let (mut checked, _) = check(&[object], &[], &Options::default());
        good.restore(&mut checked, &Options::default());
        let alert = super::alert(&checked[0]).unwrap();
        let count = alert.included.as_ref().unwrap().iter().count();
        (count, checked[0].rejection.is_some())
    };
    assert_eq!(patterns_in_effect(large("b", "x", 0..2)), (2, false));
    assert_eq!(patterns_in_effect(large("b", "x", 0..40)), (2, true));
    assert_eq!(patterns_in_effect(large("b", "x", 0..3)), (3, false));
}

#[test]
fn the_largest_namespace_is_refused_first_and_keeps_what_fits() {
    let check_all = |objects: &[Object]| check(objects, &[], &Options::default()).0;
    let small = alert("y", "p")
        .in_namespace("a")
        .with("inclusionList", ["small"]);
    let mut before = check_all(&[small.object()]);
    limit(MOST_PATTERN_BYTES, &mut before, |_| None);
    let mut checked = check_all(&[
        large("a", "x", 0..1),
        large("a", "y", 1..3),
        large("a", "z", 0..1),
        large("b", "neighbor", 0..1),
    ]);
    let earlier = |checked: &Checked| {
        before[0]
            .resource
            .clone()
            .filter(|_| checked.identity.name == "y")
    };
    limit(4 << 20, &mut checked, earlier);
    let in_effect = |name: &str| {
        let checked = checked.iter().find(|it| it.identity.name == name).unwrap();
        let alert = super::alert(checked).map(|alert| alert.included.clone().unwrap());
        (
            alert.map(|patterns| patterns.iter().count()),
            checked.rejection.clone(),
        )
    };
    for name in ["x", "z", "neighbor"] {
        assert_eq!(in_effect(name), (Some(1), None), "{name}");
    }
    let (patterns, rejection) = in_effect("y");
    let rejection = rejection.unwrap();
    assert_eq!(patterns, Some(1), "the last good state");
    assert!(
        rejection.starts_with("spec.inclusionList[0]: ") && rejection.contains("namespace a"),
        "{rejection}"
    );
}

/// A demand of one Alert with patterns of these names and sizes.
fn demand(namespace: &str, patterns: &[(u8, usize)]) -> Demand {
    let pattern =
        |(name, size): &(u8, usize)| (pattern::compile(&format!("{name}")).unwrap(), *size);
    Demand {
        owner: 0,
        namespace: namespace.to_owned(),
        patterns: patterns.iter().map(pattern).collect(),
        fields: Vec::new(),
    }
}

fn refused(demands: &[Demand], total: usize) -> Vec<(usize, usize)> {
    refusals(demands, total).at.into_iter().collect()
}

#[test]
fn a_namespace_that_needs_little_is_never_refused() {
    let demands = [
        demand("a", &[(1, 50), (2, 40)]),
        demand("a", &[(3, 40)]),
        demand("a", &[(1, 50)]),
        demand("z", &[(4, 10)]),
    ];
    assert_eq!(refused(&demands, 140), []);
    assert_eq!(refused(&demands, 100), [(1, 0)], "the share of a is 90");
    assert_eq!(
        refused(&demands, 60),
        [(0, 1), (1, 0), (2, 0)],
        "the share of a is 50"
    );
    assert_eq!(refused(&demands, 21), [(0, 0), (1, 0), (2, 0)]);
}

#[test]
fn namespaces_that_need_much_get_the_same_share() {
    let demands = [
        demand("a", &[(1, 40)]),
        demand("a", &[(2, 40)]),
        demand("b", &[(3, 45)]),
        demand("b", &[(4, 45)]),
    ];
    assert_eq!(refused(&demands, 100), [(1, 0), (3, 0)]);
}

#[test]
fn a_pattern_of_many_namespaces_counts_once() {
    let demands: Vec<_> = ["a", "b", "c", "d"]
        .into_iter()
        .map(|namespace| demand(namespace, &[(1, 40)]))
        .chain([demand("z", &[(2, 200)])])
        .collect();
    assert_eq!(refused(&demands, 100), [(4, 0)]);
}

proptest! {
    /// What is accepted fits, and a namespace within an equal share of all is never refused.
    #[test]
    fn accepted_patterns_fit_and_small_namespaces_are_accepted(
        alerts in prop::collection::vec(
            ("[a-d]", prop::collection::vec(0..12_u8, 0..5)), 0..12,
        ),
        total in 1..200_usize,
    ) {
        let size = |name: &u8| usize::from(*name) * 3 + 1;
        let mut demands: Vec<_> = alerts.iter().map(|(namespace, names)| {
            let names: BTreeSet<_> = names.iter().collect();
            let patterns: Vec<_> = names.into_iter().map(|name| (*name, size(name))).collect();
            demand(namespace, &patterns)
        }).collect();
        demands.sort_by(|left, right| left.namespace.cmp(&right.namespace));
        let refused = refusals(&demands, total).at;
        let accepted: HashMap<_, _> = demands.iter().enumerate()
            .filter(|(position, _)| !refused.contains_key(position))
            .flat_map(|(_, demand)| &demand.patterns)
            .map(|(pattern, size)| (Arc::as_ptr(pattern), *size))
            .collect();
        prop_assert!(accepted.values().sum::<usize>() <= total);
        let namespaces: BTreeSet<_> = demands.iter().map(|it| it.namespace.as_str()).collect();
        for namespace in &namespaces {
            let own: HashMap<_, _> = demands.iter()
                .filter(|demand| demand.namespace == *namespace)
                .flat_map(|demand| &demand.patterns)
                .map(|(pattern, size)| (Arc::as_ptr(pattern), *size))
                .collect();
            if own.values().sum::<usize>() <= total / namespaces.len() {
                prop_assert!(refused.keys().all(|at| demands[*at].namespace != *namespace));
            }
        }
    }
}
