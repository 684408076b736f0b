//! What others wrote, cut to a length that can be kept, logged and shown: a value in etcd may be a megabyte.

/// So much of a text is quoted (characters): more than any sound key, address or name has.
pub(crate) const EXCERPT_MAX: usize = 128;

/// The text, or its beginning with an ellipsis after it.
#[must_use]
pub fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_is_whole_and_a_long_one_is_cut_between_characters() {
        let just = "é".repeat(EXCERPT_MAX);
        assert_eq!(excerpt(&just), just);
        assert_eq!(excerpt(&format!("{just}é")), format!("{just}…"));
    }
}
