//! "Did you mean": the known name that is most similar to a wrong one.

/// Longer names are compared with nothing, because the cost is quadratic.
const MAX_BYTES: usize = 128;

/// The known name that is most similar to `wrong`; `None` if no name is similar. Case, dashes,
/// underscores and dots do not count. Of equally similar names the first is returned.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = letters(wrong);
    let limit = 1 + wrong.len() / 4;
    if wrong.is_empty() || wrong.len() > MAX_BYTES {
        return None;
    }
    known
        .into_iter()
        .map(|name| (distance(&wrong, &letters(name)), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

fn letters(name: &str) -> Vec<u8> {
    name.bytes()
        .filter(|byte| !b"-_.".contains(byte))
        .map(|byte| byte.to_ascii_lowercase())
        .collect()
}

/// The number of bytes to insert, remove, replace or swap with their neighbor.
fn distance(left: &[u8], right: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, byte) in left.iter().enumerate() {
        let mut next = vec![at + 1];
        for (column, other) in right.iter().enumerate() {
            let replaced = row[column] + usize::from(byte != other);
            let mut cost = replaced.min(row[column + 1] + 1).min(next[column] + 1);
            let is_swapped =
                at > 0 && column > 0 && *byte == right[column - 1] && left[at - 1] == *other;
            if is_swapped {
                cost = cost.min(before[column - 1] + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_name_is_found() {
        let known = [
            "clusters",
            "channel",
            "template",
            "rate-limit",
            "max-in-flight",
            "pool",
        ];
        for (wrong, expected) in [
            ("cluster", Some("clusters")),
            ("Clusters", Some("clusters")),
            ("clutsers", Some("clusters")),
            ("rateLimit", Some("rate-limit")),
            ("max_inflight", Some("max-in-flight")),
            ("chanel", Some("channel")),
            ("pol", Some("pool")),
            ("owner", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, known), expected, "{wrong}");
        }
        assert_eq!(nearest(&"clusters".repeat(100), known), None);
    }

    #[test]
    fn a_swap_of_neighbors_is_one_change() {
        assert_eq!(distance(b"abcd", b"abdc"), 1);
        assert_eq!(distance(b"abcd", b""), 4);
        assert_eq!(distance(b"kitten", b"sitting"), 3);
    }
}
