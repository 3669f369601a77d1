//! The system's reasons, in words for people.

use std::io;

/// The text of an error without its number.
pub fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_left_out() {
        assert_eq!(words(&io::Error::from_raw_os_error(98)), "Address already in use");
        assert_eq!(words(&io::Error::other("a file is there")), "a file is there");
    }
}
