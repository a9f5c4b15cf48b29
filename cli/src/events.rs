//! A parser of server-sent events.

/// The unread rest of an event stream. A chunk may end anywhere, even inside a character.
#[derive(Debug, Default)]
pub struct Events {
    unread: Vec<u8>,
}

impl Events {
    /// Takes a chunk, and calls `read` with the type and the data of each event that is now complete. Comments and events
    /// without data are skipped.
    pub fn push(&mut self, chunk: &[u8], mut read: impl FnMut(&str, &str)) {
        self.unread.extend_from_slice(chunk);
        let mut begin = 0;
        while let Some(length) = self.unread[begin..].windows(2).position(|pair| pair == b"\n\n") {
            let event = String::from_utf8_lossy(&self.unread[begin..begin + length]);
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
            if let Some(data) = field("data:") {
                read(field("event:").unwrap_or("message"), data);
            }
            begin += length + 2;
        }
        self.unread.drain(..begin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_the_stream_is_cut() {
        let stream = "event: settled\ndata: {\"n\":\"ä\"}\n\n:\n\nevent: missed\ndata: 3\n\n".as_bytes();
        for cut in 0..stream.len() {
            let (mut events, mut seen) = (Events::default(), Vec::new());
            for chunk in [&stream[..cut], &stream[cut..]] {
                events.push(chunk, |kind, data| seen.push((kind.to_owned(), data.to_owned())));
            }
            let wanted = [("settled", "{\"n\":\"ä\"}"), ("missed", "3")];
            assert_eq!(seen, wanted.map(|(kind, data)| (kind.to_owned(), data.to_owned())), "cut at {cut}");
        }
    }
}
