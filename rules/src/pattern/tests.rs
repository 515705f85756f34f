use proptest::prelude::*;

use super::*;
use crate::testing::disorder;

/// Whether the pattern is valid and matches the text.
fn is_match(pattern: &str, text: &str) -> bool {
    decide(pattern, text, ALERT_STEPS) == Decision::Match
}

fn decide(pattern: &str, text: &str, steps: u64) -> Decision {
    compile(pattern)
        .unwrap()
        .search(text, &mut Steps::new(steps))
}

/// Patterns of a list that has no limit.
fn patterns(list: &[&str]) -> (Patterns, Vec<(usize, Refusal)>) {
    let list: Vec<_> = list.iter().map(|text| (*text).to_owned()).collect();
    Patterns::check(&list, &mut Allowance::default())
}

#[test]
fn a_pattern_has_the_same_meaning_as_in_go() {
    for (pattern, text, expected) in [
        ("\\d+", "٣", false),
        ("^\\w+$", "größe", false),
        ("\\bприв", "a прив", false),
        ("b\\sc", "b\u{a0}c", false),
        ("\\p{L}+", "привет", true),
        ("\\P{^L}", "é", true),
        ("(?i)GRÖSSE", "größse", false),
        ("(?i)äpfel", "ÄPFEL", true),
        ("(?i)k", "\u{212a}", true),
        ("line1.line2", "line1\nline2", false),
        ("(?s)line1.line2", "line1\nline2", true),
        ("line1$", "line1\n", false),
        ("[a-c&&b]", "&", true),
        ("[a-c&&b]", "a", true),
        ("[[]", "[", true),
        ("[a-z--b]", "-", true),
        ("[[=a=]]", "=]", true),
        ("a{,3}", "a{,3}", true),
        ("a{,3}", "aaa", false),
        ("{x}", "{x}", true),
        ("]", "]", true),
        ("\\Q[info]\\E+", "[info]]", true),
        ("\\012", "a\nb", true),
        ("\\<foo\\>", "<foo>", true),
        ("\\b{start}", "x{start}", true),
        ("(?P<1n>a)", "a", true),
        ("(?ii)A", "a", true),
        ("(?)a", "a", true),
        ("\\x{D800}", "\u{fffd}", false),
        ("[\\x{D800}-\\x{E000}]", "\u{e000}", true),
        ("[^\\d\\D]", "a", false),
        ("^+a", "a", true),
    ] {
        assert_eq!(is_match(pattern, text), expected, "{pattern} {text:?}");
    }
}

#[test]
fn a_pattern_that_go_rejects_is_rejected() {
    for pattern in [
        "(?=a)",
        "(?!a)",
        "(?<=a)b",
        "(?>a)",
        "(a)\\1",
        "\\8",
        "a**",
        "a{2}+",
        "a{1001}",
        "[a-\\d]",
        "[^]",
        "[a",
        "*a",
        "a)",
        "(?x)a",
        "(?u)a",
        "(?i-)a",
        "\\Z",
        "\\p{Nonsense}",
        "[[:foo:]]",
        "[[:ALPHA:]]",
        "\\",
        "a\\",
        "\\u0041",
        "(?P<n-a>a)",
        "\\x{110000}",
        "\\xZZ",
        "(?i",
        "[b-a]",
        "[\\Q]",
    ] {
        assert!(compile(pattern).is_err(), "{pattern}");
    }
}

#[test]
fn an_invalid_pattern_is_omitted_and_reported() {
    let search = |list: &[&str], text: &str| {
        let found = patterns(list).0.search(text, &mut Steps::new(ALERT_STEPS));
        assert_eq!(found.undecided, [0; 0]);
        found.decision
    };
    assert_eq!(search(&["(?!a)", "b"], "abc"), Decision::Match);
    assert_eq!(search(&["(?!a)", "b"], "a"), Decision::NoMatch);
    assert_eq!(search(&["("], "("), Decision::NoMatch);
    let refused = patterns(&["(?!a)", "b"]).1;
    assert!(
        matches!(&refused[..], [(0, Refusal::Invalid(_))]),
        "{refused:?}"
    );
}

#[test]
fn a_pattern_that_would_use_too_much_memory_is_rejected() {
    assert!(compile("\\pL{1000}").unwrap_err().contains("too large"));
}

proptest! {
    #[test]
    fn no_pattern_causes_a_panic(pattern in "[\\\\\\[\\](){}?*+^$|.,:PpQxdw0-9a-zé&~-]{0,20}") {
        let _ = compile(&pattern);
    }

    #[test]
    fn a_quoted_text_matches(text in "[^\\\\]{0,20}") {
        let quoted = format!("^\\Q{text}\\E$");
        prop_assert!(is_match(&quoted, &text));
    }
}

#[test]
fn an_empty_match_within_a_character_is_no_match() {
    for (pattern, text, expected) in [
        ("\\B", "aéb", false),
        ("\\B|é", "aéb", true),
        ("\\B", "é", true),
        ("x*\\B", "aéb", false),
        ("^$", "", true),
        ("", "é", true),
    ] {
        assert_eq!(is_match(pattern, text), expected, "{pattern} {text}");
    }
}

#[test]
fn nested_repetitions_multiply_as_in_go() {
    for (pattern, is_valid) in [
        ("(?:[ab]{1000}){30}c", false),
        ("(?:a{500}){2}", true),
        ("(?:a{500}){2,}", true),
        ("(?:a{501}){2}", false),
        ("(?:a{501}){2,}", false),
        ("(?:a{1,501}){0,2}", false),
        ("(?:a{2}b{500}){2}", true),
        ("(?:(?:a{10}){10}){10}", true),
        ("(?:(?:a{10}){10}){11}", false),
        ("(?:a{1000})*", true),
        ("(?:(?:a{1000})+){2}", false),
        ("(?:(?:a{500}){0,}){3}", false),
        ("(?:(?:a{1000}){0}){1000}", true),
        ("(?:(?:a{0}){100}){100}", false),
        ("(?:(?:a{100}){100}){0}", false),
        ("a{1000}b{1000}", true),
        ("a{1000}|(b{1000})|(?i)(c{1000}){1}", true),
        ("((a{100}|b){2}|c){6}", false),
        ("[a{100}]{100}\\{100}", true),
        ("\\Q{900}\\E{900}", true),
        ("{900}{900}", false),
    ] {
        let compiled = compile(pattern);
        let is_too_large = compiled
            .as_ref()
            .is_err_and(|why| why.contains("too large"));
        assert_eq!(
            compiled.is_ok() || is_too_large,
            is_valid,
            "{pattern}: {compiled:?}"
        );
    }
}

/// A pattern as a tree, to count repetitions by recursion as Go does.
#[derive(Clone, Debug)]
enum Tree {
    Letter,
    Parts(Vec<Tree>, &'static str),
    Repeat(Box<Tree>, u32, Option<u32>),
    Star(Box<Tree>),
}

impl Tree {
    fn text(&self) -> String {
        match self {
            Self::Letter => "a".to_owned(),
            Self::Parts(parts, between) => {
                let parts: Vec<_> = parts.iter().map(Self::text).collect();
                format!("({})", parts.join(between))
            }
            Self::Repeat(part, least, None) => format!("(?:{}){{{least},}}", part.text()),
            Self::Repeat(part, least, Some(most)) => {
                format!("(?:{}){{{least},{most}}}", part.text())
            }
            Self::Star(part) => format!("(?:{})*", part.text()),
        }
    }

    fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Letter => Vec::new(),
            Self::Parts(parts, _) => parts.iter().collect(),
            Self::Repeat(part, ..) | Self::Star(part) => vec![part],
        }
    }

    /// Whether no part is copied more than `left` times on a path from here.
    fn fits(&self, left: u32) -> bool {
        let left = match self {
            Self::Repeat(_, _, Some(0)) => return true,
            Self::Repeat(_, least, most) => {
                let count = most.unwrap_or(*least);
                if count > left {
                    return false;
                }
                left / count.max(1)
            }
            _ => left,
        };
        self.parts().into_iter().all(|part| part.fits(left))
    }

    /// Every repetition is checked when Go has read it.
    fn is_valid(&self) -> bool {
        self.parts().into_iter().all(Self::is_valid) && self.fits(1000)
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let bound = || prop_oneof![0..4_u32, 8..13_u32, 30..35_u32, 998..1002_u32];
    Just(Tree::Letter).prop_recursive(6, 24, 3, move |inner| {
        let parts = prop::collection::vec(inner.clone(), 1..3);
        prop_oneof![
            (parts, prop_oneof![Just(""), Just("|")])
                .prop_map(|(parts, between)| Tree::Parts(parts, between)),
            (inner.clone(), bound(), prop::option::of(0..3_u32)).prop_map(|(part, least, more)| {
                Tree::Repeat(Box::new(part), least, more.map(|more| least + more))
            }),
            inner.prop_map(|part| Tree::Star(Box::new(part))),
        ]
    })
}

proptest! {
    #[test]
    fn nested_repetitions_are_counted_as_by_recursion(tree in trees()) {
        let translated = translate::translate(&tree.text());
        prop_assert_eq!(translated.is_ok(), tree.is_valid(), "{}: {:?}", tree.text(), translated);
    }

    /// The verdict depends on the pattern, the text and the steps only, and more steps change only
    /// what was undecided.
    #[test]
    fn steps_decide_the_same_each_time(
        pattern in "[ab]{0,2}a[ab]\\{[0-9]{1,2}\\}(c|)",
        text in "[abc]{0,400}",
        steps in 0..60_000_u64,
    ) {
        let decided = decide(&pattern, &text, ALERT_STEPS);
        prop_assert_ne!(decided, Decision::Undecided);
        let first = decide(&pattern, &text, steps);
        is_match("other(?i)wise", &text);
        prop_assert_eq!(first, decide(&pattern, &text, steps));
        prop_assert!(first == decided || first == Decision::Undecided);
    }
}

const COSTLY: &str = "[ab]*a[ab]{900}c0";

#[test]
fn a_costly_pattern_is_undecided_for_a_long_text_and_decided_for_a_short_one() {
    let long = disorder(1, 400_000);
    let mut steps = Steps::new(ALERT_STEPS);
    let pattern = compile(COSTLY).unwrap();
    assert_eq!(pattern.search(&long, &mut steps), Decision::Undecided);
    let used = ALERT_STEPS - steps.left();
    assert!(used < ALERT_STEPS / 10, "{used} steps before it gave up");
    let short = &long[..20_000];
    assert_eq!(decide(COSTLY, short, ALERT_STEPS), Decision::NoMatch);
    let matching = format!("{short}a{}c0", "b".repeat(900));
    assert_eq!(decide(COSTLY, &matching, ALERT_STEPS), Decision::Match);
}

#[test]
fn a_search_with_a_large_pattern_changes_nothing_for_others() {
    let text = disorder(1, 20_000);
    let small = ["a$", COSTLY, "b{3}c", "\\B"];
    let search = || small.map(|pattern| decide(pattern, &text, ALERT_STEPS / 10));
    let before = search();
    for large in ["\\pL{200}1", "(?:[ab]{1,900}x|[ab]{900}){1}c"] {
        decide(large, &text, ALERT_STEPS);
        assert_eq!(search(), before, "after {large}");
    }
}

#[test]
fn usual_patterns_decide_about_the_largest_message() {
    let text = "Reconciliation finished in 311.712ms, next run in 10m0s. ".repeat(55_000);
    let mut steps = Steps::new(ALERT_STEPS);
    for pattern in [
        "(?i)error.*failed",
        ".*succeeded.*",
        "^error.*lookup",
        "\\bx\\d+s\\b",
    ] {
        let decision = compile(pattern).unwrap().search(&text, &mut steps);
        assert_eq!(decision, Decision::NoMatch, "{pattern}");
    }
}

#[test]
fn an_undecided_pattern_is_left_out() {
    let long = disorder(1, 400_000);
    let search = |list: &[&str]| patterns(list).0.search(&long, &mut Steps::new(ALERT_STEPS));
    let undecided = search(&["c", COSTLY, "d"]);
    assert_eq!(
        (undecided.decision, &undecided.undecided[..]),
        (Decision::Undecided, &[1][..])
    );
    assert_eq!(search(&[COSTLY, "a"]).decision, Decision::Match);
    assert_eq!(search(&["c", "d"]).decision, Decision::NoMatch);
}

#[test]
fn thousands_of_patterns_share_the_steps() {
    let long = "x".repeat(4_000);
    let list: Vec<_> = (0..2500).map(|number| format!("a{number}")).collect();
    let (patterns, refused) = Patterns::check(&list, &mut Allowance::default());
    assert_eq!(refused, []);
    let found = patterns.search(&long, &mut Steps::new(ALERT_STEPS / 64));
    assert_eq!(found.decision, Decision::Undecided);
    assert!(
        (1500..2500).contains(&found.undecided.len()),
        "{}",
        found.undecided.len()
    );
}

#[test]
fn the_deepest_pattern_compiles_on_a_small_stack() {
    let nested = |depth: usize| format!("{}a{}", "(b".repeat(depth), "|c)*".repeat(depth));
    let compile_on_a_thread = |pattern: String| {
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        thread
            .spawn(move || compile(&pattern).map(drop))
            .unwrap()
            .join()
            .unwrap()
    };
    compile_on_a_thread(nested(60)).unwrap();
    compile_on_a_thread(nested(5_000)).unwrap_err();
    compile_on_a_thread("(?:".repeat(240) + &")".repeat(240)).unwrap();
}

#[test]
fn compiling_takes_little_time_for_any_text() {
    let is_over_limit = |list: &[String]| {
        let refused = Patterns::check(list, &mut Allowance::default()).1;
        refused
            .iter()
            .any(|(_, refusal)| matches!(refusal, Refusal::OverLimit(_)))
    };
    let wide = |count: usize| format!("(?i){}", "[ -\u{1f600}]".repeat(count));
    assert!(is_over_limit(&[wide(60)]));
    assert!(is_over_limit(&[wide(20), wide(21), wide(22)]));
    assert!(is_over_limit(&["\\pL".repeat(9_000)]));
    let long = |number: usize| format!("{number}{}", "a".repeat(30_000));
    assert!(is_over_limit(&(0..10).map(long).collect::<Vec<_>>()));
    assert!(
        compile(&"a".repeat(40_000))
            .unwrap_err()
            .contains("40000 bytes")
    );
}

#[test]
fn equal_patterns_are_one() {
    let [first, second] = ["same one", "same one"].map(|text| compile(text).unwrap());
    assert!(Arc::ptr_eq(&first, &second));
    let automata = [first, second].map(|pattern| pattern.automaton().unwrap());
    assert!(Arc::ptr_eq(&automata[0], &automata[1]));
}
