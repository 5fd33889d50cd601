//! Finds the messages in one direction of an HTTP/1.1 connection, incrementally, on a copy of the bytes.
//!
//! It only tells messages apart and reads their heads; it never changes, delays or refuses anything. What
//! it cannot read makes it give up for good ([`Progress::Unreadable`]).

/// Longest head that is read, and most line ends before one.
const HEAD_MAX: usize = 64 * 1024;

/// Most header fields of a head.
const FIELDS_MAX: usize = 128;

/// Longest line with a chunk's length, or of a trailer.
const LINE_MAX: usize = 8 * 1024;

/// Which kind of message begins each head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Requests,
    Responses,
}

/// The first line and the fields that matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// Of a request.
    pub(crate) method: String,
    /// Of a request, with its query.
    pub(crate) target: String,
    /// Of a response.
    pub(crate) status: u16,
    /// Of HTTP/1.0, which closes unless told otherwise.
    old: bool,
    pub(crate) fields: Vec<(String, Vec<u8>)>,
}

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    UntilClose,
}

/// What the bytes given to [`Parser::read`] were.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Part of a message that goes on.
    More,
    /// The head ends here; say with [`Parser::expect`] what follows.
    Head(Head),
    /// The message ends here.
    End,
    /// Not HTTP/1.1, or more of it than is read.
    Unreadable,
}

enum State {
    Head(Vec<u8>),
    Length(u64),
    ChunkSize(Vec<u8>),
    ChunkData(u64),
    /// The line end after a chunk's data.
    ChunkEnd,
    Trailer(Vec<u8>),
    UntilClose,
    Unreadable,
}

/// Reads one direction.
pub(super) struct Parser {
    side: Side,
    state: State,
    /// Line ends before the head that is yet to come.
    blank: usize,
}

impl Parser {
    /// At the beginning of a connection.
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            state: State::Head(Vec::new()),
            blank: 0,
        }
    }

    /// Whether a message has not begun.
    pub(super) fn between_messages(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.is_empty())
    }

    /// Whether the message in hand ends only with the connection.
    pub(super) fn until_close(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    /// Says what follows the head just read; true when nothing does, so the message has ended.
    pub(super) fn expect(&mut self, body: Body) -> bool {
        self.state = match body {
            Body::Length(0) => State::Head(Vec::new()),
            Body::Length(length) => State::Length(length),
            Body::Chunked => State::ChunkSize(Vec::new()),
            Body::UntilClose => State::UntilClose,
        };
        body == Body::Length(0)
    }

    /// Reads the beginning of `data`: how many bytes of it, and what they were. Reads at least one byte.
    pub(super) fn read(&mut self, data: &[u8]) -> (usize, Progress) {
        match &mut self.state {
            State::Head(_) => self.read_head(data),
            State::Length(left) => {
                let length = clip(*left, data);
                *left -= length as u64;
                let ended = *left == 0;
                self.progress(length, ended.then(|| State::Head(Vec::new())), ended)
            }
            State::ChunkData(left) => {
                let length = clip(*left, data);
                *left -= length as u64;
                let ended = *left == 0;
                self.progress(length, ended.then_some(State::ChunkEnd), false)
            }
            State::ChunkEnd => match data[0] {
                b'\r' => (1, Progress::More),
                b'\n' => self.progress(1, Some(State::ChunkSize(Vec::new())), false),
                _ => self.give_up(data),
            },
            State::ChunkSize(_) | State::Trailer(_) => self.read_line(data),
            State::UntilClose => (data.len(), Progress::More),
            State::Unreadable => (data.len(), Progress::Unreadable),
        }
    }

    fn progress(&mut self, length: usize, next: Option<State>, ended: bool) -> (usize, Progress) {
        if let Some(next) = next {
            self.state = next;
        }
        (length, if ended { Progress::End } else { Progress::More })
    }

    fn give_up(&mut self, data: &[u8]) -> (usize, Progress) {
        self.state = State::Unreadable;
        (data.len(), Progress::Unreadable)
    }

    fn read_head(&mut self, data: &[u8]) -> (usize, Progress) {
        let State::Head(head) = &mut self.state else {
            return (data.len(), Progress::More);
        };
        if head.is_empty() {
            let blank = leading_line_ends(data);
            self.blank += blank;
            if self.blank > HEAD_MAX {
                return self.give_up(data);
            }
            if blank > 0 {
                return (blank, Progress::More);
            }
            self.blank = 0;
        }
        let start = head.len();
        let room = HEAD_MAX.saturating_sub(start);
        head.extend_from_slice(&data[..data.len().min(room)]);
        let plausible = head.first().is_some_and(u8::is_ascii_alphabetic);
        match end_of_head(head, start) {
            Some(end) => {
                head.truncate(end);
                match parse_head(self.side, head) {
                    Some(parsed) => (end - start, Progress::Head(parsed)),
                    None => self.give_up(data),
                }
            }
            None if head.len() >= HEAD_MAX || !plausible => self.give_up(data),
            None => (data.len(), Progress::More),
        }
    }

    fn read_line(&mut self, data: &[u8]) -> (usize, Progress) {
        let (State::ChunkSize(line) | State::Trailer(line)) = &mut self.state else {
            return (data.len(), Progress::More);
        };
        let end = data.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(data.len(), |end| end + 1);
        line.extend_from_slice(&data[..length]);
        if line.len() > LINE_MAX {
            return self.give_up(data);
        }
        if end.is_none() {
            return (length, Progress::More);
        }
        let text = String::from_utf8_lossy(line).trim().to_owned();
        let trailer = matches!(self.state, State::Trailer(_));
        match (trailer, text.is_empty(), chunk_size(&text)) {
            (true, true, _) => self.progress(length, Some(State::Head(Vec::new())), true),
            (true, false, _) | (false, _, Some(0)) => {
                self.progress(length, Some(State::Trailer(Vec::new())), false)
            }
            (false, _, Some(size)) => self.progress(length, Some(State::ChunkData(size)), false),
            (false, _, None) => self.give_up(data),
        }
    }
}

fn clip(left: u64, data: &[u8]) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(data.len())
}

fn leading_line_ends(data: &[u8]) -> usize {
    data.iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count()
}

/// Where the empty line ends, looking from a little before `start`.
fn end_of_head(head: &[u8], start: usize) -> Option<usize> {
    (start.saturating_sub(3)..head.len()).find_map(|place| match &head[place..] {
        [b'\n', b'\n', ..] => Some(place + 2),
        [b'\n', b'\r', b'\n', ..] => Some(place + 3),
        _ => None,
    })
}

fn chunk_size(line: &str) -> Option<u64> {
    let digits = line.split(';').next().unwrap_or(line).trim();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

fn parse_head(side: Side, bytes: &[u8]) -> Option<Head> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = Head::default();
    let parsed = match side {
        Side::Requests => {
            let mut request = httparse::Request::new(&mut fields);
            request.parse(bytes).ok()?.is_complete().then_some(())?;
            head.method = request.method?.to_owned();
            head.target = request.path?.to_owned();
            head.old = request.version == Some(0);
            request.headers
        }
        Side::Responses => {
            let mut response = httparse::Response::new(&mut fields);
            response.parse(bytes).ok()?.is_complete().then_some(())?;
            head.status = response.code?;
            head.old = response.version == Some(0);
            response.headers
        }
    };
    let owned = |field: &httparse::Header<'_>| (field.name.to_owned(), field.value.to_vec());
    head.fields = parsed.iter().map(owned).collect();
    Some(head)
}

#[cfg(test)]
impl Head {
    /// The head of a request, for tests.
    pub(crate) fn of_request(text: &str) -> Option<Self> {
        parse_head(Side::Requests, text.as_bytes())
    }
}

impl Head {
    /// The value of the first field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        let found = self
            .fields
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_slice())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.field(name)
            .and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The parts of all fields of this name, which commas separate.
    fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        let fields = self.fields.iter();
        fields
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .flat_map(|(_, value)| std::str::from_utf8(value).unwrap_or_default().split(','))
            .map(str::trim)
    }

    /// The path of a request, without its query.
    pub(crate) fn path(&self) -> &str {
        self.target.split(['?', '#']).next().unwrap_or(&self.target)
    }

    /// Whether more requests may follow on the connection.
    pub(crate) fn keeps_alive(&self) -> bool {
        let says = |word: &str| {
            let mut words = self.list("connection");
            words.any(|said| said.eq_ignore_ascii_case(word))
        };
        !says("close") && (!self.old || says("keep-alive"))
    }

    /// Whether it is of HTTP/1.0, where connections end with each answer unless both sides say otherwise.
    pub(crate) fn is_old(&self) -> bool {
        self.old
    }

    /// Whether the caller waits for a word before it sends the body.
    pub(crate) fn expects_continue(&self) -> bool {
        self.text("expect")
            .is_some_and(|value| value.trim().eq_ignore_ascii_case("100-continue"))
    }

    /// Whether it asks to leave HTTP/1.1.
    pub(super) fn upgrades(&self) -> bool {
        self.field("upgrade").is_some() || self.method == "CONNECT"
    }

    /// How long the body is, as RFC 9112 §6.3 has it; `None` when that cannot be told.
    pub(super) fn body(&self, side: Side) -> Option<Body> {
        if let Some(last) = self.list("transfer-encoding").last() {
            return match side {
                _ if last.eq_ignore_ascii_case("chunked") => Some(Body::Chunked),
                Side::Requests => None,
                Side::Responses => Some(Body::UntilClose),
            };
        }
        let Some(length) = self.list("content-length").next() else {
            return Some(match side {
                Side::Requests => Body::Length(0),
                Side::Responses => Body::UntilClose,
            });
        };
        let alike = self.list("content-length").all(|other| other == length);
        let is_number = length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse().ok().filter(|_| alike && is_number);
        length.map(Body::Length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Heads and ends in a stream that is given in pieces of `step` bytes.
    fn read(side: Side, stream: &str, step: usize) -> Vec<String> {
        let mut parser = Parser::new(side);
        let mut seen = Vec::new();
        for mut data in stream.as_bytes().chunks(step) {
            while !data.is_empty() {
                let (length, progress) = parser.read(data);
                assert!(length > 0);
                data = &data[length..];
                match progress {
                    Progress::More => {}
                    Progress::End => seen.push("end".to_owned()),
                    Progress::Unreadable => return [seen, vec!["unreadable".to_owned()]].concat(),
                    Progress::Head(head) => {
                        seen.push(format!("{}{}{}", head.method, head.target, head.status));
                        if parser.expect(match head.status {
                            204 => Body::Length(0),
                            _ => head.body(side).unwrap(),
                        }) {
                            seen.push("end".to_owned());
                        }
                    }
                }
            }
        }
        seen
    }

    #[test]
    fn messages_are_found_however_the_bytes_are_cut() {
        let stream = "\r\nGET /a?b=1 HTTP/1.1\r\nHost: x\r\n\r\n\
            POST /b HTTP/1.1\r\ncontent-length: 5\r\n\r\nhelloPOST /c HTTP/1.1\r\n\
            Transfer-Encoding: gzip, chunked\r\n\r\n5;ext=1\r\nhello\r\n0\r\nTrailer: GET / HTTP/1.1\r\n\r\n\
            GET /d HTTP/1.1\n\n";
        let expected = [
            "GET/a?b=10",
            "end",
            "POST/b0",
            "end",
            "POST/c0",
            "end",
            "GET/d0",
            "end",
        ];
        for step in [1, 2, 3, 7, 64, 1000] {
            assert_eq!(
                read(Side::Requests, stream, step),
                expected,
                "in steps of {step}"
            );
        }
    }

    #[test]
    fn other_protocols_are_unreadable_and_nothing_worse() {
        for stream in [
            "\x16\x03\x01",
            "\x00\x00",
            "GET \x01\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ] {
            let seen = read(Side::Requests, stream, 1);
            assert_eq!(
                seen.last().map(String::as_str),
                Some("unreadable"),
                "{stream:?}"
            );
        }
    }

    #[test]
    fn head_without_end_is_given_up() {
        let stream = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(2 * HEAD_MAX));
        assert_eq!(read(Side::Requests, &stream, 1000), ["unreadable"]);
    }

    #[test]
    fn line_ends_without_a_head_are_given_up_and_those_between_messages_do_not_add_up() {
        let stream = "\r\n".repeat(HEAD_MAX);
        assert_eq!(read(Side::Responses, &stream, 1000), ["unreadable"]);
        let stream = format!("{}GET /a HTTP/1.1\r\n\r\n", "\r\n".repeat(HEAD_MAX / 3));
        let seen = read(Side::Requests, &stream.repeat(3), 1000);
        assert_eq!(seen, ["GET/a0", "end"].repeat(3));
    }

    #[test]
    fn length_of_a_body_is_told_only_where_it_is_certain() {
        let chunked = Some(Body::Chunked);
        for (fields, request, response) in [
            ("", Some(Body::Length(0)), Some(Body::UntilClose)),
            ("Transfer-Encoding: gzip, chunked", chunked, chunked),
            (
                "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
                chunked,
                chunked,
            ),
            (
                "Transfer-Encoding: chunked, gzip",
                None,
                Some(Body::UntilClose),
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
                None,
                Some(Body::UntilClose),
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 5",
                chunked,
                chunked,
            ),
            (
                "Content-Length: 5",
                Some(Body::Length(5)),
                Some(Body::Length(5)),
            ),
            (
                "Content-Length: 5, 5",
                Some(Body::Length(5)),
                Some(Body::Length(5)),
            ),
            (
                "Content-Length: 5\r\nContent-Length: 5",
                Some(Body::Length(5)),
                Some(Body::Length(5)),
            ),
            ("Content-Length: 5\r\nContent-Length: 6", None, None),
            ("Content-Length: 5, 6", None, None),
            ("Content-Length: +5", None, None),
            ("Content-Length:", None, None),
        ] {
            let end = if fields.is_empty() { "" } else { "\r\n" };
            let head = Head::of_request(&format!("GET / HTTP/1.1\r\n{fields}{end}\r\n")).unwrap();
            assert_eq!(head.body(Side::Requests), request, "{fields}");
            assert_eq!(head.body(Side::Responses), response, "{fields}");
        }
    }

    #[test]
    fn response_status_is_read() {
        let stream =
            "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nhi";
        assert_eq!(
            read(Side::Responses, stream, 5),
            ["204", "end", "503", "end"]
        );
    }
}
