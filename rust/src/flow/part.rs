//! What one server is sent of a command that several servers get a part of.

use crate::resp::{Request, encode};

/// The part of a command that one server gets: its name, and these keys, each with the `values` behind it.
pub(super) fn frame_of(request: &Request<'_>, keys: &[(usize, usize)], values: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    encode::array(&mut frame, 1 + keys.len() * (1 + values));
    encode::bulk(&mut frame, request.arg(0));
    for &(index, strip) in keys {
        encode::bulk(&mut frame, request.arg(index).get(strip..).unwrap_or(&[]));
        (index + 1..=index + values).for_each(|i| encode::bulk(&mut frame, request.arg(i)));
    }
    frame
}

/// The same command as an array, however the client wrote it.
pub(super) fn plain(request: &Request<'_>) -> Vec<u8> {
    let mut frame = Vec::with_capacity(request.frame.len());
    encode::array(&mut frame, request.len());
    request.args_from(0).for_each(|arg| encode::bulk(&mut frame, arg));
    frame
}

/// A `SCAN` with the cursor of the server whose turn it is; if it is to be `bare`, without its pattern, which is given instead.
pub(super) fn scan_frame(request: &Request<'_>, own: u64, bare: bool) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut number = itoa::Buffer::new();
    let mut args = vec![request.arg(0), number.format(own).as_bytes()];
    let mut pattern = None;
    let mut at = 2;
    while at < request.len() {
        let option = request.arg(at);
        if bare && option.eq_ignore_ascii_case(b"match") && at + 1 < request.len() {
            pattern = Some(request.arg(at + 1).to_vec()); // the last one counts, as in Redis
        } else {
            args.extend(request.args_from(at).take(2));
        }
        at += 2;
    }
    let mut frame = Vec::new();
    encode::command(&mut frame, &args);
    (frame, pattern)
}

#[cfg(test)]
mod tests {
    use super::super::keys::ANY;
    use super::*;
    use crate::resp::RequestScanner;

    fn words(frame: &[u8]) -> String {
        let mut scanner = RequestScanner::default();
        scanner.scan(frame, ANY);
        let args = scanner.request(frame).args_from(0).map(String::from_utf8_lossy).collect::<Vec<_>>();
        args.join(" ")
    }

    fn with_request<R>(line: &str, use_it: impl FnOnce(&Request<'_>) -> R) -> R {
        let mut frame = Vec::new();
        encode::command(&mut frame, &line.split(' ').collect::<Vec<_>>());
        let mut scanner = RequestScanner::default();
        scanner.scan(&frame, ANY);
        use_it(&scanner.request(&frame))
    }

    #[test]
    fn a_part_has_its_keys_and_their_values() {
        let part = |line, keys: &[(usize, usize)], values| {
            with_request(line, |request| words(&frame_of(request, keys, values)))
        };
        assert_eq!(part("mget a b a:c", &[(1, 0), (3, 2)], 0), "mget a c");
        assert_eq!(part("MSET a 1 b 2 x:a 3", &[(1, 0), (5, 2)], 1), "MSET a 1 a 3");
        assert_eq!(part("DEL x:", &[(1, 2)], 0), "DEL ");
    }

    #[test]
    fn a_scan_is_passed_on() {
        let scan = |line, bare| {
            with_request(line, |request| {
                let (frame, pattern) = scan_frame(request, 7, bare);
                (words(&frame), pattern.map(|p| String::from_utf8(p).expect("text")))
            })
        };
        let line = "SCAN 22 match a* COUNT 10 Match b* TYPE string";
        assert_eq!(scan(line, false), ("SCAN 7 match a* COUNT 10 Match b* TYPE string".to_owned(), None));
        assert_eq!(scan(line, true), ("SCAN 7 COUNT 10 TYPE string".to_owned(), Some("b*".to_owned())));
        // What is wrong is for the server to say.
        assert_eq!(scan("SCAN 0 COUNT", true), ("SCAN 7 COUNT".to_owned(), None));
        assert_eq!(scan("SCAN 0 MATCH", true), ("SCAN 7 MATCH".to_owned(), None));
    }
}
