//! Nested counted repetitions, as Go's parser limits them.
//!
//! A repetition of a repetition copies the innermost part as often as the product of their counts.
//! Go refuses a pattern if this product is above 1,000 on a path from a repetition to a part of it.
//! The upper bound counts, or the lower one if there is no upper bound. `{0}` ends the path, and
//! `*`, `+` and `?` do not count.

/// The maximum number of copies in Go.
const MAX_COPIES: u32 = 1000;

/// The highest numbers of copies so far, while a pattern is read from left to right.
#[derive(Debug)]
pub(super) struct Repetitions {
    /// For each open group, and for the pattern as a whole: the copies in its finished items.
    groups: Vec<u32>,
    /// The copies in the last item, which a repetition may follow.
    item: u32,
}

impl Default for Repetitions {
    fn default() -> Self {
        Self {
            groups: vec![1],
            item: 1,
        }
    }
}

impl Repetitions {
    /// Notes the first character of an item that is no repetition.
    pub(super) fn note(&mut self, letter: char) {
        let in_group = self.finish_item();
        match letter {
            '(' => self.groups.push(1),
            // An unmatched parenthesis is refused later.
            ')' if self.groups.len() > 1 => {
                self.groups.pop();
                self.item = in_group;
            }
            _ => {}
        }
    }

    /// Notes that the last item is repeated with this count. Returns whether Go accepts it.
    pub(super) fn repeat(&mut self, count: u32) -> bool {
        self.item = match count {
            0 => 1,
            count => self.item.saturating_mul(count),
        };
        self.item <= MAX_COPIES
    }

    /// Adds the last item to its group. Returns the copies in the group.
    fn finish_item(&mut self) -> u32 {
        let item = std::mem::replace(&mut self.item, 1);
        let Some(group) = self.groups.last_mut() else {
            return item;
        };
        *group = item.max(*group);
        *group
    }
}
