//! Cuts texts.

/// Marks the place where a text was cut.
pub const ELLIPSIS: char = '…';

/// Cuts a text to `limit` bytes, including an ellipsis.
pub fn cut_bytes(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(limit.saturating_sub(ELLIPSIS.len_utf8()));
    format!("{}{ELLIPSIS}", &text[..end])
}
