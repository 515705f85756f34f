//! Groups and flags.

use super::Translator;

impl Translator<'_> {
    pub(super) fn group(&mut self) -> Result<(), String> {
        let Some(after) = self.rest.strip_prefix("(?") else {
            self.next();
            self.out.push('(');
            return Ok(());
        };
        if let Some(named) = after.strip_prefix("P<").or_else(|| after.strip_prefix('<')) {
            let (name, rest) = named
                .split_once('>')
                .ok_or("has a group name without a closing >")?;
            if name.is_empty()
                || !name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            {
                return Err(
                    "has a lookaround or an invalid group name, which RE2 does not support"
                        .to_owned(),
                );
            }
            // In Go, names may start with a digit.
            self.out.push_str(&format!("(?P<_{name}>"));
            self.rest = rest;
            return Ok(());
        }
        let end = after
            .find([':', ')'])
            .ok_or("has a ( without a closing )")?;
        let (flags, rest) = after.split_at(end);
        if flags.contains('i') {
            self.classes.ignore_case();
        }
        self.out
            .push_str(&group_flags(flags, rest.starts_with(':'))?);
        if rest.starts_with(')') {
            self.repetitions.note(')');
        }
        self.rest = &rest[1..];
        Ok(())
    }
}

/// Translates `(?flags)` or `(?flags:`. Go also accepts repeated flags and no flags.
fn group_flags(flags: &str, opens: bool) -> Result<String, String> {
    let (on, off) = flags
        .split_once('-')
        .map_or((flags, None), |(on, off)| (on, Some(off)));
    let known = |flags: &str| flags.chars().all(|flag| "imsU".contains(flag));
    if !known(on) || off.is_some_and(|off| off.is_empty() || !known(off)) {
        return Err(format!(
            "has (?{flags}, which RE2 does not support; it supports the flags i, m, s and U"
        ));
    }
    let off = off.unwrap_or_default();
    let set: String = "imsU"
        .chars()
        .filter(|flag| on.contains(*flag) && !off.contains(*flag))
        .collect();
    let cleared: String = "imsU".chars().filter(|flag| off.contains(*flag)).collect();
    let dash = if cleared.is_empty() { "" } else { "-" };
    Ok(match (opens, set.is_empty() && cleared.is_empty()) {
        (true, _) => format!("(?{set}{dash}{cleared}:"),
        (false, true) => "(?:)".to_owned(),
        (false, false) => format!("(?{set}{dash}{cleared})"),
    })
}
