//! The line of each field of a manifest, in little memory: most objects never have a problem.

/// The lines of field paths such as `spec.eventSources[0].name`. The empty path is the object
/// itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// All paths, one after the other.
    paths: Box<str>,
    /// Where each path ends in `paths`, and its line. Sorted by path.
    entries: Box<[(u32, u32)]>,
}

impl Lines {
    /// The line of a field, or of its nearest parent with a known line.
    pub fn line(&self, field: &str) -> Option<u64> {
        let mut path = field;
        loop {
            match self.find(path) {
                Some(line) => return Some(line),
                None if path.is_empty() => return None,
                None => path = &path[..path.rfind(['.', '[']).unwrap_or_default()],
            }
        }
    }

    fn find(&self, path: &str) -> Option<u64> {
        let of = |position: usize| {
            let begin = match position {
                0 => 0,
                _ => self.entries[position - 1].0 as usize,
            };
            &self.paths[begin..self.entries[position].0 as usize]
        };
        let (mut low, mut high) = (0, self.entries.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match of(middle).cmp(path) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(self.entries[middle].1.into()),
            }
        }
        None
    }
}

/// Of a path that appears twice, the last line counts. A manifest has less than 4 GiB, so that all
/// numbers fit.
impl<P: AsRef<str> + Ord> FromIterator<(P, u64)> for Lines {
    fn from_iter<I: IntoIterator<Item = (P, u64)>>(lines: I) -> Self {
        let sorted: std::collections::BTreeMap<P, u64> = lines.into_iter().collect();
        let mut paths = String::new();
        let entries = sorted.into_iter().map(|(path, line)| {
            paths.push_str(path.as_ref());
            let end = u32::try_from(paths.len()).unwrap_or(u32::MAX);
            (end, u32::try_from(line).unwrap_or(u32::MAX))
        });
        let entries = entries.collect();
        Self {
            paths: paths.into(),
            entries,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_without_a_line_has_the_line_of_its_parent() {
        let lines = Lines::from_iter([("spec.list[0]", 6), ("", 1), ("spec", 4)]);
        for (field, line) in [
            ("spec.list[0].name", 6),
            ("spec.list[1]", 4),
            ("spec.a", 4),
            ("data.a", 1),
            ("data", 1),
            ("", 1),
        ] {
            assert_eq!(lines.line(field), Some(line), "{field}");
        }
        assert_eq!(Lines::default().line("spec"), None);
    }
}
